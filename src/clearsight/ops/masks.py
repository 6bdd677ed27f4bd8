"""Masks, run lengths and polygons, and the ways between them.

A mask is `(h, w)` bool. Pixel (row i, column j) covers the square from (x, y) = (j, i) to (j + 1, i + 1) and its
centre is (j + 0.5, i + 0.5): the coordinates of boxes and contours everywhere in clearsight.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from torch import Tensor

from clearsight.errors import DataError, ShapeError
from clearsight.types import Rle

__all__ = [
    "mask_to_box",
    "mask_to_polygons",
    "mask_to_rle",
    "polygons_to_mask",
    "rle_area",
    "rle_from_string",
    "rle_to_mask",
    "rle_to_string",
]

_FIRST_CHARACTER = 48  # of the 64 that COCO's strings use: "0" to "o"
_CONTINUES = 0x20
_SIGN = 0x10


# ------------------------------------------------------------------------------------------------ run lengths
def mask_to_rle(mask: np.ndarray | Tensor) -> Rle:
    """Run lengths of a mask in COCO's order: down the columns, the first run of zeros (0 long if need be).

    Args:
        mask: `(h, w)`, bool or any number; non-zero is inside.

    Raises:
        ShapeError: not two axes.
    """
    bits = _two_axes(mask)
    flat = bits.ravel(order="F")
    if not flat.size:
        return Rle(size=bits.shape, counts=())
    changes = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    counts = np.diff(changes, prepend=0, append=flat.size).tolist()
    return Rle(size=bits.shape, counts=tuple([0, *counts] if flat[0] else counts))


def rle_to_mask(rle: Rle) -> np.ndarray:
    """The `(h, w)` bool mask of run lengths.

    Raises:
        DataError: a run is negative, or the runs do not add up to the size.
    """
    height, width = rle.size
    counts = np.asarray(rle.counts, dtype=np.int64)
    if (counts < 0).any() or counts.sum() != height * width:
        raise DataError(
            f"run lengths: expected runs >= 0 that add up to {height} x {width} = {height * width}, "
            f"got {len(counts)} runs that add up to {counts.sum()}, smallest {counts.min(initial=0)}"
        )
    inside = np.arange(len(counts)) % 2 == 1
    return np.repeat(inside, counts).reshape(width, height).T


def rle_area(rle: Rle) -> int:
    """Pixels inside, without unpacking."""
    return sum(rle.counts[1::2])


def rle_to_string(rle: Rle) -> str:
    """COCO's compressed string of the run lengths.

    From the fourth run on, the difference to the run two before is stored; each number is cut into groups of five bits,
    the lowest first, one character a group, with a bit that says whether another follows.
    """
    left = np.asarray(rle.counts, dtype=np.int64)
    left[3:] -= np.asarray(rle.counts[1:-2], dtype=np.int64)
    groups, used = [], []
    open_ = np.ones(len(left), dtype=bool)
    while open_.any():
        group = left & 0x1F
        left = left >> 5
        more = np.where(group & _SIGN, left != -1, left != 0)
        groups.append(group + _CONTINUES * more + _FIRST_CHARACTER)
        used.append(open_)
        open_ = open_ & more
    if not groups:
        return ""
    return np.stack(groups, axis=1)[np.stack(used, axis=1)].astype(np.uint8).tobytes().decode("ascii")


def rle_from_string(text: str | bytes, size: tuple[int, int]) -> Rle:
    """Run lengths of COCO's compressed string.

    Args:
        text: as `rle_to_string` gives it.
        size: `(height, width)` of the mask; the runs are not checked against it (`rle_to_mask` does).

    Raises:
        DataError: a character is not one of the 64, the last number is cut off, or a run is negative.
    """
    raw = text.encode("utf-8") if isinstance(text, str) else text
    codes = np.frombuffer(raw, dtype=np.uint8).astype(np.int64) - _FIRST_CHARACTER
    if not codes.size:
        return Rle(size=size, counts=())
    last = (codes & _CONTINUES) == 0
    if (codes < 0).any() or (codes > 0x3F).any() or not last[-1]:
        raise DataError(f"compressed run lengths: {raw[:20]!r}… has foreign characters or ends within a number")
    starts = np.flatnonzero(np.concatenate(([True], last[:-1])))
    lengths = np.diff(starts, append=codes.size)
    if lengths.max() > 12:  # a count of more than 60 bits cannot be
        raise DataError(f"compressed run lengths: {raw[:20]!r}… has a number of {lengths.max()} characters")
    shift = 5 * (np.arange(codes.size) - np.repeat(starts, lengths))
    values = np.add.reduceat((codes & 0x1F) << shift, starts)
    values -= np.where(codes[last] & _SIGN, 1, 0) << (5 * lengths)  # two's complement
    values[1::2] = np.cumsum(values[1::2])
    values[2::2] = np.cumsum(values[2::2])
    if (values < 0).any():
        raise DataError(f"compressed run lengths: {raw[:20]!r}… has a negative run")
    return Rle(size=size, counts=tuple(values.tolist()))


# ------------------------------------------------------------------------------------------------ polygons
def polygons_to_mask(
    polygons: Sequence[np.ndarray], size: tuple[int, int], *, fill: Literal["even_odd", "union"] = "even_odd"
) -> np.ndarray:
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
    """
    if fill == "union":
        masks = [polygons_to_mask([ring], size) for ring in polygons]
        return np.logical_or.reduce(masks) if masks else np.zeros(size, dtype=bool)
    height, width = size
    starts, ends = _edges(polygons)
    low = np.where(
        (starts[:, 1] <= ends[:, 1])[:, None], starts, ends
    )  # ordered, so that a shared edge is computed alike
    high = np.where((starts[:, 1] <= ends[:, 1])[:, None], ends, starts)
    first = np.clip(np.ceil(low[:, 1] - 0.5), 0, height).astype(np.int64)
    stop = np.clip(np.ceil(high[:, 1] - 0.5), 0, height).astype(np.int64)
    rows_each = stop - first
    edge = np.repeat(np.arange(len(low)), rows_each)
    row = np.arange(len(edge)) - np.repeat(np.cumsum(rows_each) - rows_each, rows_each) + first[edge]
    rise = np.where(rows_each > 0, high[:, 1] - low[:, 1], 1.0)
    slope = (high[:, 0] - low[:, 0]) / rise
    crossing = low[edge, 0] + (row + 0.5 - low[edge, 1]) * slope[edge]
    column = np.clip(np.ceil(crossing - 0.5), 0, width).astype(np.int64)
    flips = np.bincount(row * (width + 1) + column, minlength=height * (width + 1)).reshape(height, width + 1)
    return np.logical_xor.accumulate((flips[:, :width] & 1).astype(bool), axis=1)


def _edges(polygons: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Starts and ends of all edges of all rings, `(e, 2)` each."""
    starts, ends = [np.empty((0, 2))], [np.empty((0, 2))]
    for ring in polygons:
        points = np.asarray(ring, dtype=np.float64)
        if points.ndim != 2 or points.shape[1] != 2:
            raise ShapeError(f"polygon: expected (p, 2) xy vertices, got {points.shape}")
        if not np.isfinite(points).all():
            raise DataError("polygon: a vertex is NaN or infinite")
        starts.append(points)
        ends.append(np.roll(points, -1, axis=0))
    return np.concatenate(starts), np.concatenate(ends)


def mask_to_polygons(mask: np.ndarray | Tensor) -> list[np.ndarray]:
    """The outlines of a mask, along the cracks between pixels, with holes and all components.

    `polygons_to_mask(mask_to_polygons(mask), mask.shape)` is the mask again, exactly. Vertices are pixel corners, only
    where the outline turns. Pixels that touch at a corner only belong to different rings (4-connected inside).

    Args:
        mask: `(h, w)`, bool or any number; non-zero is inside.

    Returns:
        Rings, float64 `(p, 2)` xy, p >= 4. Outer rings run clockwise as seen on the screen (positive shoelace sum with
        y down), holes the other way. Ordered by their topmost, then leftmost vertex; empty for an empty mask.

    Cost: O(h w) vectorised, plus a Python step for each vertex pair.
    """
    bits = _two_axes(mask)
    box = mask_to_box(bits)
    if box is None:
        return []
    left, top, right, bottom = map(int, box)  # only there can be corners, and most objects are small
    points, rightwards = _corners(np.pad(bits[top:bottom, left:right], 1))
    points[:, :2] += left, top
    # Corners sorted along a row pair up as the ends of horizontal stretches; along a column, of vertical ones.
    partner = np.arange(len(points)) ^ 1
    by_column = np.lexsort((points[:, 2], points[:, 1], points[:, 0]))
    vertical = np.empty_like(by_column)
    vertical[by_column] = by_column[partner]
    # Corners 2k and 2k + 1 bound a stretch; its start is the left one where the inside lies below.
    start = np.arange(0, len(points), 2) + np.where(rightwards[::2], 0, 1)
    following = (vertical[start ^ 1] // 2).tolist()
    return [_ring(points, start, chain) for chain in _cycles(following)]


def _corners(bits: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Turning points of the outline in row order, and whether the inside begins below, to the right of each.

    Points are `(c, 3)`: x, y, and the order among equals within a column. A corner where two pixels touch diagonally is
    there twice, once for each; the order holds them apart, so that each turn stays around its own pixel.
    """
    upper_left, upper_right = bits[:-1, :-1], bits[:-1, 1:]
    lower_left, lower_right = bits[1:, :-1], bits[1:, 1:]
    odd = upper_left ^ upper_right ^ lower_left ^ lower_right
    falling = upper_left & lower_right & ~upper_right & ~lower_left
    rising = upper_right & lower_left & ~upper_left & ~lower_right
    y, x = np.nonzero(odd | falling | rising)
    twice = ~odd[y, x]
    index = np.repeat(np.arange(len(x)), np.where(twice, 2, 1))
    second = np.zeros(len(index), dtype=np.int64)
    second[1:] = index[1:] == index[:-1]
    # The left one of a double corner goes up where the pixels fall to the right, down where they rise.
    lower = np.where(rising[y, x][index], 1 - second, second)
    points = np.stack([x[index], y[index], lower], axis=1)
    return points, lower_right[y, x][index] & ~upper_right[y, x][index]


def _cycles(following: list[int]) -> list[list[int]]:
    """The cycles of a permutation, each from its smallest member."""
    seen = [False] * len(following)
    cycles = []
    for first in range(len(following)):
        if seen[first]:
            continue
        chain, here = [], first
        while not seen[here]:
            seen[here] = True
            chain.append(here)
            here = following[here]
        cycles.append(chain)
    return cycles


def _ring(points: np.ndarray, start: np.ndarray, chain: list[int]) -> np.ndarray:
    ends = start[chain]
    order = np.stack([ends, ends ^ 1], axis=1).ravel()
    return points[order, :2].astype(np.float64)


def mask_to_box(mask: np.ndarray | Tensor) -> tuple[float, float, float, float] | None:
    """The smallest box, xyxy half-open, that holds all pixels inside; None for an empty mask."""
    bits = _two_axes(mask)
    rows, columns = np.flatnonzero(bits.any(axis=1)), np.flatnonzero(bits.any(axis=0))
    if not rows.size:
        return None
    return float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1)


def _two_axes(mask: np.ndarray | Tensor) -> np.ndarray:
    array = np.asarray(mask)
    if array.ndim != 2:
        raise ShapeError(f"mask: expected (h, w), got {array.shape}; give one mask at a time")
    return array if array.dtype == bool else array != 0
