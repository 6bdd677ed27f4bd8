"""Shape of polygons: rings that cross or touch themselves, fewer vertices, convexity; rings as in `ops.contours`.

A vertex that repeats the one before it counts as one with it, so that rings padded by repeating their last vertex are
what they are without the padding.
"""

from __future__ import annotations

import numpy as np

from clearsight.errors import DataError, RangeError, ShapeError

__all__ = ["convex_hull", "is_convex", "is_simple", "self_intersections", "simplify_polygon"]

_PAIRS_AT_ONCE = 2_000_000


def self_intersections(ring: np.ndarray, *, touching: bool = True) -> np.ndarray:
    """Pairs of edges that meet where they should not.

    Args:
        ring: `(p, 2)` xy; edge i goes from vertex i to the next.
        touching: also edges that only touch, lie on each other, or turn straight back at their common vertex; False
            keeps those that cross at a point within both.

    Returns:
        `(k, 2)` int64 edges i < j, in order; empty for fewer than three different vertices in a row.

    Raises:
        ShapeError: not `(p, 2)`.
        DataError: a vertex is NaN or infinite.

    Cost: O(p²), some pairs at a time. Exact where coordinates are whole or simple fractions; else up to rounding.
    """
    points, vertex = _without_repeats(ring)
    count = len(points)
    found = [np.empty((0, 2), dtype=np.int64)]
    if count >= 3:
        rows = max(1, _PAIRS_AT_ONCE // count)
        for begin in range(0, count, rows):
            one, other = np.triu_indices(min(rows, count - begin), k=1, m=count - begin)
            one, other = one + begin, other + begin
            meet = _meet(points, one, other, touching=touching)
            found.append(np.stack([vertex[one[meet]], vertex[other[meet]]], axis=1))
    pairs = np.sort(np.concatenate(found), axis=1)
    return pairs[np.lexsort((pairs[:, 1], pairs[:, 0]))]


def is_simple(ring: np.ndarray) -> bool:
    """Whether a ring bounds one piece: three vertices or more, and no edge touches another but its neighbours.

    Raises:
        ShapeError: not `(p, 2)`.
        DataError: a vertex is NaN or infinite.
    """
    return len(_without_repeats(ring)[0]) >= 3 and not len(self_intersections(ring))


def simplify_polygon(ring: np.ndarray, tolerance: float) -> np.ndarray:
    """Fewer vertices: those left out lie at most `tolerance` from the edge that stands for them.

    Method: Douglas and Peucker 1973, between the first vertex and the one farthest from it, all open stretches a round
    at once; distances to the edge, not to its line. Differs: at least three vertices stay where there are so many, the
    farthest one from the edge if need be, so that small objects do not vanish.

    Args:
        ring: `(p, 2)` xy.
        tolerance: in pixels, at least 0; 0 leaves out only vertices on straight edges.

    Returns:
        `(q, 2)` float64, in order, with the first vertex. It may touch or cross itself where the ring comes closer to
        itself than the tolerance.

    Raises:
        ShapeError: not `(p, 2)`.
        DataError: a vertex is NaN or infinite.
        RangeError: a negative tolerance, or NaN.
    """
    if not tolerance >= 0:
        raise RangeError(f"simplify_polygon: tolerance must be at least 0, got {tolerance}")
    points, _ = _without_repeats(ring)
    count = len(points)
    if count <= 3:
        return points
    closed = np.concatenate([points, points[:1]])
    kept = np.zeros(count + 1, dtype=bool)
    kept[[0, count, int(((points - points[0]) ** 2).sum(axis=1).argmax())]] = True
    while True:
        ends = np.flatnonzero(kept)
        stretch = np.clip(np.searchsorted(ends, np.arange(count + 1), side="right") - 1, 0, len(ends) - 2)
        away = _distance(closed, closed[ends[stretch]], closed[ends[stretch + 1]])
        away[kept] = -1.0
        farthest = np.lexsort((np.arange(count + 1)[::-1], away, stretch))
        farthest = farthest[np.searchsorted(stretch[farthest], np.arange(len(ends) - 1), side="right") - 1]
        far = farthest[away[farthest] > tolerance]
        if not len(far) and kept.sum() == 3:  # both ends of the ring and one vertex between
            far = np.array([int(away.argmax())])
        if not len(far):
            return closed[:-1][kept[:-1]]
        kept[far] = True


def is_convex(ring: np.ndarray) -> bool:
    """Whether a ring turns one way only, and once around; straight corners are allowed, a ring without area is not.

    Raises:
        ShapeError: not `(p, 2)`.
        DataError: a vertex is NaN or infinite.
    """
    points, _ = _without_repeats(ring)
    if len(points) < 3:
        return False
    here = np.roll(points, -1, axis=0) - points
    after = np.roll(here, -1, axis=0)
    turn, along = _cross(here, after), (here * after).sum(axis=1)
    if ((turn == 0) & (along < 0)).any() or not ((turn >= 0).all() or (turn <= 0).all()):
        return False
    return 0 < abs(float(np.arctan2(turn, along).sum())) < 3 * np.pi


def convex_hull(points: np.ndarray) -> np.ndarray:
    """The corners of the smallest convex polygon around points.

    Method: Andrew 1979, the monotone chain.

    Args:
        points: `(p, 2)` xy, in any order.

    Returns:
        `(q, 2)` float64, from the leftmost (of these the topmost) on, clockwise on a screen (y down), without points on
        straight edges; the two ends of points on one line, and one or none where there are no more.

    Raises:
        ShapeError: not `(p, 2)`.
        DataError: a point is NaN or infinite.
    """
    ordered = np.unique(_checked(points), axis=0)
    if len(ordered) < 3:
        return ordered
    listed = ordered.tolist()
    chain: list[list[float]] = []
    for part in (listed, listed[::-1]):
        half: list[list[float]] = []
        for x, y in part:
            while len(half) > 1:
                (x0, y0), (x1, y1) = half[-2:]
                if (x1 - x0) * (y - y0) - (y1 - y0) * (x - x0) > 0:
                    break
                half.pop()
            half.append([x, y])
        chain += half[:-1]
    return np.array(chain)


def _meet(points: np.ndarray, one: np.ndarray, other: np.ndarray, *, touching: bool) -> np.ndarray:
    """Whether edges of a ring meet beyond the vertex that neighbours share."""
    count = len(points)
    a, b, c, d = points[one], points[(one + 1) % count], points[other], points[(other + 1) % count]
    sides = [np.sign(_cross(q - p, r - p)) for p, q, r in ((a, b, c), (a, b, d), (c, d, a), (c, d, b))]
    crosses = (sides[0] * sides[1] < 0) & (sides[2] * sides[3] < 0)
    neighbours, around = other == one + 1, (one == 0) & (other == count - 1)
    apart = ~(neighbours | around)
    if not touching:
        return crosses & apart
    touches = np.zeros(len(one), dtype=bool)
    for side, p, q, r in zip(sides, (a, a, c, c), (b, b, d, d), (c, d, a, b), strict=True):
        touches |= (side == 0) & (np.minimum(p, q) <= r).all(axis=1) & (r <= np.maximum(p, q)).all(axis=1)
    back = (_cross(b - a, d - c) == 0) & (((b - a) * (d - c)).sum(axis=1) < 0)
    return np.where(apart, crosses | touches, back)


def _distance(points: np.ndarray, starts: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """From points to segments, one each; exactly 0 on a segment between points of whole numbers."""
    along, off = ends - starts, points - starts
    square, share = (along**2).sum(axis=1), (off * along).sum(axis=1)
    beside = np.abs(_cross(along, off)) / np.sqrt(np.where(square > 0, square, 1.0))
    nearest_end = np.where((share <= 0)[:, None], starts, ends)
    return np.where((share > 0) & (share < square), beside, np.linalg.norm(points - nearest_end, axis=1))


def _cross(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]


def _without_repeats(ring: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The vertices that differ from the one before, and where they end in the ring (there their edges begin)."""
    points = _checked(ring)
    if not len(points):
        return points, np.empty(0, dtype=np.int64)
    last = (points != np.roll(points, -1, axis=0)).any(axis=1)
    if not last.any():
        return points[:1], np.zeros(1, dtype=np.int64)
    vertex = np.flatnonzero(last)
    return points[vertex], vertex


def _checked(ring: np.ndarray) -> np.ndarray:
    points = np.asarray(ring, dtype=np.float64)
    if points.ndim != 2 or points.shape[1] != 2:
        raise ShapeError(f"polygon: expected (p, 2) xy vertices, got {points.shape}")
    if not np.isfinite(points).all():
        raise DataError("polygon: a vertex is NaN or infinite")
    return points
