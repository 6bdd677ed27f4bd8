"""Contours: closed rings of xy vertices, `(p, 2)`, last vertex not repeated."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from clearsight.errors import DataError, RangeError, ShapeError

__all__ = ["join_rings", "pad_rings", "polygon_area", "polygon_box", "resample_contour"]


def polygon_area(contour: np.ndarray, *, signed: bool = False) -> float:
    """Area by the shoelace formula; a ring that crosses itself counts its loops with their sign.

    Args:
        contour: `(p, 2)` xy; fewer than three vertices have no area.
        signed: keep the sign: positive where the ring runs clockwise on a screen (y down).
    """
    points = _ring(contour)
    if not len(points):
        return 0.0
    # Relative to the first vertex: far from the origin the products would cancel digits.
    x, y = (points - points[0]).T
    twice = float(np.dot(x, np.roll(y, -1)) - np.dot(np.roll(x, -1), y))
    return twice / 2 if signed else abs(twice) / 2


def polygon_box(contours: np.ndarray | Sequence[np.ndarray]) -> tuple[float, float, float, float]:
    """The smallest xyxy box around one ring `(p, 2)` or several of them.

    Raises:
        DataError: there is no vertex.
    """
    rings = [contours] if isinstance(contours, np.ndarray) else list(contours)
    points = np.concatenate([_ring(ring) for ring in rings]) if rings else np.empty((0, 2))
    if not len(points):
        raise DataError("polygon_box: there is no vertex, so there is no box")
    left, top = points.min(axis=0).tolist()
    right, bottom = points.max(axis=0).tolist()
    return left, top, right, bottom


def resample_contour(contour: np.ndarray, points: int) -> np.ndarray:
    """Vertices at equal distances along the ring, from its first vertex on, in its direction.

    Args:
        contour: `(p, 2)` xy, p >= 1; repeated vertices do no harm.
        points: how many vertices to give, >= 1.

    Returns:
        `(points, 2)` float64; all the same where the ring has no length.

    Raises:
        RangeError: `points` is below 1.
        DataError: the ring has no vertex.
    """
    ring = _ring(contour)
    if points < 1:
        raise RangeError(f"resample_contour: points must be at least 1, got {points}")
    if not len(ring):
        raise DataError("resample_contour: the contour has no vertex")
    closed = np.concatenate([ring, ring[:1]])
    along = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(closed, axis=0), axis=1))])
    wanted = np.arange(points) * (along[-1] / points)
    return np.stack([np.interp(wanted, along, closed[:, axis]) for axis in (0, 1)], axis=1)


def join_rings(rings: Sequence[np.ndarray]) -> np.ndarray:
    """One ring that covers, by the even-odd rule, exactly what several rings cover.

    The rings are joined through their first vertices by bridges that are walked there and back, so that these enclose
    nothing. Formats that have one ring an object can carry holes and separate parts that way.

    Returns:
        `(p, 2)` float64; empty for no rings.
    """
    parts = [_ring(ring) for ring in rings if len(ring)]
    if len(parts) <= 1:
        return parts[0] if parts else np.empty((0, 2))
    there = [np.concatenate([part, part[:1]]) for part in parts]
    back = [part[:1] for part in parts[-2:0:-1]]
    return np.concatenate([*there, *back])


def pad_rings(rings: Sequence[np.ndarray]) -> np.ndarray:
    """Rings of any length as one array; shorter ones repeat their last vertex.

    Args:
        rings: `(p, 2)` xy each, p >= 1.

    Returns:
        `(r, longest, 2)` float32; `(0, 0, 2)` for no rings.

    Raises:
        DataError: a ring has no vertex, so there is none to repeat.
    """
    if not len(rings):
        return np.zeros((0, 0, 2), dtype=np.float32)
    parts = [_ring(ring) for ring in rings]
    length = np.array([len(part) for part in parts])
    if not length.all():
        raise DataError(f"pad_rings: ring {int(length.argmin())} of {len(parts)} has no vertex to repeat")
    vertex = np.minimum(np.arange(length.max()), length[:, None] - 1) + (np.cumsum(length) - length)[:, None]
    return np.concatenate(parts).astype(np.float32)[vertex]


def _ring(contour: np.ndarray) -> np.ndarray:
    ring = np.asarray(contour, dtype=np.float64)
    if ring.ndim != 2 or ring.shape[1] != 2:
        raise ShapeError(f"contour: expected (p, 2) xy vertices, got {ring.shape}")
    return ring
