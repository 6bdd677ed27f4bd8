"""Outlines that cross themselves, looked for in all polygons of an image at once."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from clearsight.ops.polygons import self_intersections

__all__ = ["crossings", "find_crossing"]

_PAIRS_AT_ONCE = 1_000_000


def find_crossing(rings: Sequence[np.ndarray]) -> list[int]:
    """Positions of the rings that cross themselves.

    Args:
        rings: `(p, 2)` xy each, finite.

    Cost: edges are compared with those that overlap them in y, so a ring of p vertices costs about p comparisons, not
    p².
    """
    edge_ring, starts, ends = _edges(rings)
    if not len(starts):
        return []
    # Rings are moved apart in y, so that one sweep serves all of them.
    low, high = np.minimum(starts[:, 1], ends[:, 1]), np.maximum(starts[:, 1], ends[:, 1])
    apart = edge_ring * (float(high.max() - low.min()) + 1)
    order = np.argsort(low + apart, kind="stable")
    stop = np.searchsorted((low + apart)[order], (high + apart)[order], side="right")
    partners = stop - np.arange(len(order)) - 1
    found: set[int] = set()
    total = np.cumsum(partners)
    first = 0
    while first < len(order):
        done = int(total[first - 1]) if first else 0
        last = max(first + 1, int(np.searchsorted(total, done + _PAIRS_AT_ONCE, side="right")))
        each = partners[first:last]
        one = np.repeat(np.arange(first, last), each)
        other = one + 1 + np.arange(len(one)) - np.repeat(np.cumsum(each) - each, each)
        a, b = order[one], order[other]
        cross = (edge_ring[a] == edge_ring[b]) & _cross(starts[a], ends[a], starts[b], ends[b])
        found |= set(edge_ring[a[cross]].tolist())
        first = last
    return sorted(ring for ring in found if len(crossings(rings[ring])))


def crossings(ring: np.ndarray) -> np.ndarray:
    """The points where a ring crosses itself, `(k, 2)` xy.

    Edges that are walked there and back enclose nothing and do not count: they are how one ring carries holes and
    separate parts (`ops.contours.join_rings`).

    Args:
        ring: `(p, 2)` xy, finite.
    """
    points = np.asarray(ring, dtype=np.float64)
    following = np.roll(points, -1, axis=0)
    pairs = self_intersections(points, touching=False)
    if not len(pairs):
        return np.empty((0, 2))
    # Edge i runs from vertex i to the next; the way back is the same edge with its ends exchanged.
    walked = {(*start, *end) for start, end in zip(points.tolist(), following.tolist(), strict=True)}
    bridge = np.array(
        [(*end, *start) in walked for start, end in zip(points.tolist(), following.tolist(), strict=True)]
    )
    one, other = pairs[~bridge[pairs].any(axis=1)].T
    along, across = following[one] - points[one], following[other] - points[other]
    between = points[other] - points[one]
    share = _turn(between, across) / _turn(along, across)
    return points[one] + share[:, None] * along


def _edges(rings: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    lengths = [len(ring) for ring in rings]
    parts = [np.asarray(ring, dtype=np.float64) for ring in rings if len(ring)]
    starts = np.concatenate(parts) if parts else np.empty((0, 2))
    ends = np.concatenate([np.concatenate((part[1:], part[:1])) for part in parts]) if parts else starts
    return np.repeat(np.arange(len(rings)), lengths), starts, ends


def _cross(a: np.ndarray, b: np.ndarray, c: np.ndarray, d: np.ndarray) -> np.ndarray:
    """Whether the segments from a to b and from c to d cross at a point within both."""
    ab, cd = b - a, d - c
    return (_turn(ab, c - a) * _turn(ab, d - a) < 0) & (_turn(cd, a - c) * _turn(cd, b - c) < 0)


def _turn(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    return one[:, 0] * other[:, 1] - one[:, 1] * other[:, 0]
