"""Overlap of polygons, exactly, whatever their shape: concave, with holes, crossing themselves.

A polygon is one ring `(p, 2)` xy, or a sequence of rings; inside is what an odd number of rings surrounds, as in
`ops.outlines`. Rings of fewer than three vertices surround nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from clearsight.errors import DataError, ShapeError

__all__ = ["Polygon", "polygon_intersection", "polygon_iou", "polygon_iou_matrix"]

Polygon = np.ndarray | Sequence[np.ndarray]

_EDGES_AT_ONCE = 200_000


def polygon_intersection(a: Polygon, b: Polygon) -> float:
    """Area that two polygons have in common; the area of one is that with itself.

    Args:
        a: a ring `(p, 2)` xy, or rings.
        b: another.

    Raises:
        ShapeError: a ring is not `(p, 2)`.
        DataError: a vertex is NaN or infinite.
    """
    first, second = _centred([a], [b])
    return float(_common(first, second, np.zeros(1, dtype=np.int64), np.zeros(1, dtype=np.int64))[0])


def polygon_iou(a: Polygon, b: Polygon) -> float:
    """Area that two polygons have in common over the area of both together; 0 where neither has any.

    Args:
        a: a ring `(p, 2)` xy, or rings.
        b: another.

    Raises:
        ShapeError: a ring is not `(p, 2)`.
        DataError: a vertex is NaN or infinite.

    Example:
        >>> square = np.array([[0.0, 0.0], [2.0, 0.0], [2.0, 2.0], [0.0, 2.0]])
        >>> polygon_iou(square, square + np.array([1.0, 0.0]))
        0.3333333333333333
    """
    return float(polygon_iou_matrix([a], [b])[0, 0])


def polygon_iou_matrix(a: Sequence[Polygon], b: Sequence[Polygon]) -> np.ndarray:
    """`polygon_iou` of every pair.

    The plane is cut into slabs at the height of every vertex and of every crossing of two edges. Within a slab edges
    are straight and do not cross, so what is inside both is trapezoids, and their area is the width halfway times the
    height. Nothing has to be said of vertices on edges, shared edges or bridges: they enclose no area.

    Args:
        a: n polygons.
        b: m polygons.

    Returns:
        `(n, m)` float64 in [0, 1], up to rounding of the crossings exact.

    Raises:
        ShapeError: a ring is not `(p, 2)`.
        DataError: a vertex is NaN or infinite.

    Cost: only pairs whose boxes overlap are computed, many at once; for each the number of edges in each slab.
    """
    first, second = _centred(a, b)
    one, other = np.arange(len(a)), np.arange(len(b))
    area_a, area_b = _common(first, first, one, one), _common(second, second, other, other)
    boxes_a, boxes_b = _boxes(first), _boxes(second)
    low = np.maximum(boxes_a[:, None, :2], boxes_b[None, :, :2])
    high = np.minimum(boxes_a[:, None, 2:], boxes_b[None, :, 2:])
    row, column = np.nonzero((low < high).all(axis=2))
    inside = np.zeros((len(a), len(b)))
    inside[row, column] = _common(first, second, row, column)
    inside = np.minimum(inside, np.minimum(area_a[:, None], area_b))
    union = area_a[:, None] + area_b - inside
    return np.divide(inside, union, out=np.zeros_like(inside), where=union > 0)


def _centred(a: Sequence[Polygon], b: Sequence[Polygon]) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """The edges `(e, 4)` of each polygon, from its upper to its lower end, level ones left out: they bound no slab.

    Relative to the middle of all: far from the origin products would cancel digits.
    """
    first, second = [_rings(polygon) for polygon in a], [_rings(polygon) for polygon in b]
    points = [ring for rings in [*first, *second] for ring in rings if len(ring)]
    if not points:
        return [np.empty((0, 4))] * len(a), [np.empty((0, 4))] * len(b)
    every = np.concatenate(points)
    middle = every.min(axis=0) / 2 + every.max(axis=0) / 2
    return [_edges(rings, middle) for rings in first], [_edges(rings, middle) for rings in second]


def _rings(polygon: Polygon) -> list[np.ndarray]:
    parts = [polygon] if isinstance(polygon, np.ndarray) else polygon
    rings = [np.asarray(part, dtype=np.float64) for part in parts]
    for ring in rings:
        if ring.ndim != 2 or ring.shape[1] != 2:
            raise ShapeError(f"polygon: expected (p, 2) xy vertices or a sequence of such rings, got {ring.shape}")
        if not np.isfinite(ring).all():
            raise DataError("polygon: a vertex is NaN or infinite")
    return rings


def _edges(rings: list[np.ndarray], middle: np.ndarray) -> np.ndarray:
    parts = [np.hstack([ring - middle, np.roll(ring, -1, axis=0) - middle]) for ring in rings]
    edges = np.concatenate([np.empty((0, 4)), *parts])
    edges = np.where((edges[:, 1] <= edges[:, 3])[:, None], edges, edges[:, [2, 3, 0, 1]])
    return edges[edges[:, 1] < edges[:, 3]]


def _boxes(polygons: list[np.ndarray]) -> np.ndarray:
    """`(n, 4)` xyxy; what has no edges has a box that overlaps nothing."""
    boxes = np.tile([np.inf, np.inf, -np.inf, -np.inf], (len(polygons), 1))
    for box, edges in zip(boxes, polygons, strict=True):
        if len(edges):
            box[:] = edges[:, ::2].min(), edges[:, 1].min(), edges[:, ::2].max(), edges[:, 3].max()
    return boxes


def _common(a: list[np.ndarray], b: list[np.ndarray], row: np.ndarray, column: np.ndarray) -> np.ndarray:
    """Area in common of the pairs a[row], b[column], some at a time."""
    lengths_a, lengths_b = np.array([len(part) for part in a]), np.array([len(part) for part in b])
    areas = np.zeros(len(row))
    if not len(row):
        return areas
    batch = np.cumsum(lengths_a[row] + lengths_b[column]) // _EDGES_AT_ONCE
    for number in range(int(batch[-1]) + 1):
        pairs = np.flatnonzero(batch == number)
        parts = [part for k in pairs.tolist() for part in (a[row[k]], b[column[k]])]
        lengths = np.array([len(part) for part in parts], dtype=np.int64)
        owner = np.repeat(np.arange(len(parts)), lengths)
        if len(owner):
            areas[pairs] = _areas(np.concatenate(parts), owner // 2, owner % 2 == 1, len(pairs))
    return areas


def _areas(edges: np.ndarray, pair: np.ndarray, second: np.ndarray, pairs: int) -> np.ndarray:
    """Area in common of each pair, of edges that know their pair and which of its two polygons they belong to."""
    top, bottom = np.full((2, pairs), np.inf), np.full((2, pairs), -np.inf)
    for side in (0, 1):
        of_side = second == bool(side)
        np.minimum.at(top[side], pair[of_side], edges[of_side, 1])
        np.maximum.at(bottom[side], pair[of_side], edges[of_side, 3])
    # Only the heights that both polygons reach count; a polygon without edges leaves none.
    top, bottom = top.max(axis=0), bottom.min(axis=0)
    used = (np.maximum(edges[:, 1], top[pair]) < np.minimum(edges[:, 3], bottom[pair])).nonzero()[0]
    edges, pair, second = edges[used], pair[used], second[used]
    upper, lower = np.maximum(edges[:, 1], top[pair]), np.minimum(edges[:, 3], bottom[pair])
    slope = (edges[:, 2] - edges[:, 0]) / (edges[:, 3] - edges[:, 1])
    cut_pair, cut = np.empty(0, dtype=np.int64), np.empty(0)
    for _ in (0, 1):  # once to find the crossings, once with cuts at them
        edge, slab, bounds, slab_pair = _spans(upper, lower, pair, cut, cut_pair)
        above, height = bounds[slab], bounds[slab + 1] - bounds[slab]
        at = [edges[edge, 0] + (above + part * height - edges[edge, 1]) * slope[edge] for part in (0.0, 0.5, 1.0)]
        order = np.lexsort((at[1], slab))
        if len(cut):
            break
        left, right = at[0][order], at[2][order]
        cut, where = _crossing_heights(left, right, slab[order], above[order], height[order])
        cut_pair = slab_pair[where]
        if not len(cut):
            break
    of_second = second[edge[order]]
    both = (np.cumsum(~of_second) % 2 == 1) & (np.cumsum(of_second) % 2 == 1)
    widths = np.diff(at[1][order], append=0.0)
    return np.bincount(pair[edge[order]], weights=np.where(both, widths * height[order], 0.0), minlength=pairs)


def _spans(
    upper: np.ndarray, lower: np.ndarray, pair: np.ndarray, cut: np.ndarray, cut_pair: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Which edge passes through which slab: edge, slab; and of each bound of slabs its height and pair."""
    heights, owner = np.concatenate([upper, lower, cut]), np.concatenate([pair, pair, cut_pair])
    order = np.lexsort((heights, owner))
    heights, owner = heights[order], owner[order]
    new = np.ones(len(order), dtype=bool)
    new[1:] = (heights[1:] != heights[:-1]) | (owner[1:] != owner[:-1])
    rank = np.empty(len(order), dtype=np.int64)
    rank[order] = np.cumsum(new) - 1
    first, stop = rank[: len(upper)], rank[len(upper) : 2 * len(upper)]
    each = stop - first
    edge = np.repeat(np.arange(len(upper)), each)
    slab = np.arange(len(edge)) - np.repeat(np.cumsum(each) - each, each) + first[edge]
    return edge, slab, heights[new], owner[new]


def _crossing_heights(
    top: np.ndarray, bottom: np.ndarray, slab: np.ndarray, above: np.ndarray, height: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Heights at which edges cross within slabs, and the slabs; edges are given by slab, in the order halfway down."""
    same = slab[1:] == slab[:-1]
    swapped = same & ((top[1:] < top[:-1]) | (bottom[1:] < bottom[:-1]))
    members = np.flatnonzero(np.isin(slab, slab[1:][swapped]))
    # Each member of such a slab with all that come after it in the slab.
    last = np.searchsorted(slab, slab[members], side="right")
    each = last - members - 1
    one = np.repeat(members, each)
    other = np.arange(len(one)) - np.repeat(np.cumsum(each) - each, each) + one + 1
    start, end = top[one] - top[other], bottom[one] - bottom[other]
    cross = start * end < 0
    one, start, end = one[cross], start[cross], end[cross]
    return above[one] + height[one] * (start / (start - end)), slab[one]
