"""Masks and the polygons around them, exactly and for many objects at once; coordinates as in `ops.masks`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import numpy as np
from torch import Tensor

from clearsight.errors import ConfigError, DataError, ShapeError, nearest

__all__ = ["mask_to_polygons", "masks_to_polygons", "polygons_to_mask", "polygons_to_masks"]

Fill = Literal["even_odd", "union"]


# ------------------------------------------------------------------------------------------------ polygons to masks
def polygons_to_mask(polygons: Sequence[np.ndarray], size: tuple[int, int], *, fill: Fill = "even_odd") -> np.ndarray:
    """The pixels whose centres lie inside.

    A centre that lies exactly on an edge belongs to the polygon on its right (or below, for a horizontal edge), so that
    polygons which share an edge neither overlap nor leave a gap. Parts outside the image are cut off.

    Args:
        polygons: rings, `(p, 2)` xy each, closed by themselves; fewer than three vertices cover nothing.
        size: `(height, width)` of the mask.
        fill: `even_odd`: inside is what an odd number of rings surrounds, so a ring within a ring is a hole (what
            `mask_to_polygons` gives); `union`: inside any ring (how COCO reads several rings of one object).

    Returns:
        `(h, w)` bool.

    Raises:
        ShapeError: a ring is not `(p, 2)`.
        DataError: a vertex is NaN or infinite.
        ConfigError: there is no such fill.
    """
    return polygons_to_masks([polygons], size, fill=fill)[0]


def polygons_to_masks(
    polygons: Sequence[Sequence[np.ndarray]], size: tuple[int, int], *, fill: Fill = "even_odd"
) -> np.ndarray:
    """`polygons_to_mask` for many objects in one pass.

    Args:
        polygons: the rings of each object.
        size: `(height, width)` of all masks.
        fill: see `polygons_to_mask`.

    Returns:
        `(n, h, w)` bool; an object without rings has an empty mask.

    Raises:
        ShapeError: a ring is not `(p, 2)`.
        DataError: a vertex is NaN or infinite.
        ConfigError: there is no such fill.

    Cost: the places where edges cross rows are sorted; only rows that something crosses are written.
    """
    if fill not in get_args(Fill):
        raise ConfigError(f"fill: there is none named {fill!r}{nearest(fill, get_args(Fill))}")
    height, width = size
    ring_object = np.repeat(np.arange(len(polygons)), [len(rings) for rings in polygons])
    ring, row, column = _crossings([ring for rings in polygons for ring in rings], size)
    line = ring_object[ring] * height + row
    if fill == "even_odd":
        key = np.sort(line * (width + 1) + column)
        inside = np.arange(len(key)) % 2 == 0  # each ring crosses a row an even number of times
    else:
        order = np.lexsort((column, row, ring))
        step = 1 - 2 * (np.arange(len(order)) % 2)  # into the ring, out of it
        key = (line * (width + 1) + column)[order]
        order = np.argsort(key, kind="stable")
        key, inside = key[order], np.cumsum(step[order]) > 0
    masks = np.zeros((len(polygons), height, width), dtype=bool)
    if len(key) and width:
        line, column = np.divmod(key, width + 1)
        first = np.concatenate(([True], line[1:] != line[:-1]))
        where = (np.cumsum(first) - 1) * width + column
        runs = np.diff(where, prepend=0, append=np.count_nonzero(first) * width)
        filled = np.repeat(np.concatenate(([False], inside)), runs)
        masks.reshape(-1, width)[line[first]] = filled.reshape(-1, width)
    return masks


def _crossings(rings: list[np.ndarray], size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Every place where a ring crosses the centre line of a row: ring, row, and the first column to its right."""
    height, width = size
    ring, starts, ends = _edges(rings)
    # Ordered, so that an edge shared by two polygons is computed alike.
    rises = (starts[:, 1] <= ends[:, 1])[:, None]
    low, high = np.where(rises, starts, ends), np.where(rises, ends, starts)
    first = np.clip(np.ceil(low[:, 1] - 0.5), 0, height).astype(np.int64)
    stop = np.clip(np.ceil(high[:, 1] - 0.5), 0, height).astype(np.int64)
    rows_each = stop - first
    edge = np.repeat(np.arange(len(low)), rows_each)
    row = np.arange(len(edge)) - np.repeat(np.cumsum(rows_each) - rows_each, rows_each) + first[edge]
    run, rise = (high - low)[edge].T
    # Divided last: where the coordinates are fractions of a power of two, a centre on an edge is found on it exactly.
    crossing = low[edge, 0] + (row + 0.5 - low[edge, 1]) * run / rise
    column = np.clip(np.ceil(crossing - 0.5), 0, width).astype(np.int64)
    return ring[edge], row, column


def _edges(rings: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """All edges of all rings: ring `(e,)`, starts and ends `(e, 2)`."""
    arrays = [np.asarray(ring, dtype=np.float64) for ring in rings]
    for array in arrays:
        if array.ndim != 2 or array.shape[1] != 2:
            raise ShapeError(f"polygon: expected (p, 2) xy vertices, got {array.shape}")
    starts = np.concatenate([np.empty((0, 2)), *arrays])
    if not np.isfinite(starts).all():
        raise DataError("polygon: a vertex is NaN or infinite")
    lengths = np.array([len(array) for array in arrays], dtype=np.int64)
    stops = np.cumsum(lengths)
    following = np.arange(1, len(starts) + 1)
    following[stops[lengths > 0] - 1] = (stops - lengths)[lengths > 0]
    return np.repeat(np.arange(len(arrays)), lengths), starts, starts[following]


# ------------------------------------------------------------------------------------------------ masks to polygons
def mask_to_polygons(mask: np.ndarray | Tensor) -> list[np.ndarray]:
    """The outlines of a mask, along the cracks between pixels, with holes and all components.

    `polygons_to_mask(mask_to_polygons(mask), mask.shape)` is the mask again, exactly. Vertices are pixel corners, only
    where the outline turns. Pixels that touch at a corner only belong to different rings (4-connected inside).

    Args:
        mask: `(h, w)`, bool or any number; non-zero is inside.

    Returns:
        Rings, float64 `(p, 2)` xy, p >= 4. Outer rings run clockwise as seen on the screen (positive shoelace sum with
        y down), holes the other way. Ordered by their topmost, then leftmost vertex; empty for an empty mask.

    Raises:
        ShapeError: not two axes.

    Cost: see `masks_to_polygons`.
    """
    bits = _bits(mask, "mask", "h w")
    return masks_to_polygons(bits[None])[0]


def masks_to_polygons(masks: np.ndarray | Tensor) -> list[list[np.ndarray]]:
    """`mask_to_polygons` for many masks in one pass.

    Args:
        masks: `(n, h, w)`, bool or any number; non-zero is inside. They may overlap.

    Returns:
        The rings of each mask, as `mask_to_polygons` gives them; n lists.

    Raises:
        ShapeError: not three axes.

    Cost: one pass over all pixels that finds the rows with anything inside, vectorised work on these, and a short
    Python step for each horizontal stretch of an outline.
    """
    bits = _bits(masks, "masks", "n h w")
    height, width = bits.shape[1:]
    line, x, double, begins_below = _corners(bits)
    item, y = np.divmod(line, height + 1)
    # Corners sorted along a row pair up as the ends of horizontal stretches; along a column, of vertical ones.
    partner = np.arange(len(x)) ^ 1
    by_column = np.argsort(((item * (width + 1) + x) * (height + 1) + y) * 2 + double)
    vertical = np.empty_like(by_column)
    vertical[by_column] = by_column[partner]
    # Corners 2k and 2k + 1 bound a stretch; its start is the left one where the inside lies below.
    start = np.arange(0, len(x), 2) + np.where(begins_below[::2], 0, 1)
    order, firsts = _cycles((vertical[start ^ 1] // 2).tolist())
    ends = start[order]
    corner = np.stack([ends, ends ^ 1], axis=1).ravel()
    vertices = np.stack([x[corner], y[corner]], axis=1).astype(np.float64)
    bounds = [2 * first for first in firsts] + [len(vertices)]
    polygons: list[list[np.ndarray]] = [[] for _ in range(len(bits))]
    for owner, begin, end in zip(item[corner[bounds[:-1]]].tolist(), bounds[:-1], bounds[1:], strict=True):
        polygons[owner].append(vertices[begin:end])
    return polygons


def _corners(masks: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Turning points of all outlines, sorted by mask, y and x.

    A corner where two pixels touch diagonally is there twice, once for each pixel.

    Returns:
        `(c,)` each: line, mask · (h + 1) + y; x; the order among equals within a column, which holds the two of a
        double corner apart so that each turn stays around its own pixel (the left one goes up where the pixels fall to
        the right, down where they rise); whether, to the right of it, the inside begins below.
    """
    count, height, width = masks.shape
    rows = np.flatnonzero(masks.any(axis=2))
    framed = np.zeros((len(rows), width + 2), dtype=bool)
    framed[:, 1:-1] = masks.reshape(count * height, width)[rows]
    local, x = np.divmod(np.flatnonzero(framed[:, 1:] != framed[:, :-1]), width + 1)
    # The sides of runs: each ends at the line above its row and at the line below. There it goes on, turns, or meets
    # the side of another run at a corner.
    row = rows[local]
    upper = (row + row // max(height, 1)) * (width + 1) + x
    key = np.concatenate([upper, upper + width + 1])
    order = np.argsort(key, kind="stable")  # of two equals, the one of the row below the line comes first
    key, from_below = key[order], order < len(upper)
    enters = order % 2 == 0  # sides of a row alternate, and there is an even number of them
    goes_on = np.zeros(len(key) + 1, dtype=bool)
    goes_on[1:-1] = (key[1:] == key[:-1]) & (enters[1:] == enters[:-1])
    turns = ~(goes_on[1:] | goes_on[:-1])
    key, enters, from_below = key[turns], enters[turns], from_below[turns]
    line, x = np.divmod(key, width + 1)
    return line, x, ~enters, from_below == enters


def _cycles(following: list[int]) -> tuple[list[int], list[int]]:
    """The members of a permutation's cycles, each cycle in order from its smallest, and where each begins."""
    order, firsts = [], []
    for first in range(len(following)):
        here = following[first]
        if here < 0:
            continue
        firsts.append(len(order))
        order.append(first)
        following[first] = -1
        while here != first:
            order.append(here)
            after, following[here] = following[here], -1
            here = after
    return order, firsts


def _bits(mask: np.ndarray | Tensor, name: str, layout: str) -> np.ndarray:
    array = mask.detach().cpu().numpy() if isinstance(mask, Tensor) else np.asarray(mask)
    if array.ndim != layout.count(" ") + 1:
        other = "masks_to_polygons takes many" if layout == "h w" else "for one mask use mask_to_polygons"
        raise ShapeError(f"{name}: expected ({', '.join(layout.split())}), got {array.shape}; {other}")
    return array if array.dtype == bool else array != 0
