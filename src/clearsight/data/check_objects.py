"""Boxes, polygons and masks of one object against its image: what is kept, what is clipped, what is dropped."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from clearsight.data.check_outlines import crossings
from clearsight.ops.contours import polygon_area
from clearsight.ops.masks import rle_area
from clearsight.types import Finding, Object, Severity

__all__ = ["TOLERANCE", "check_object", "clip_ring"]

TOLERANCE = 0.05
"""Pixels by which a coordinate may lie outside the image without a word: files round to one or two digits."""

Size = tuple[int, int]
Box = tuple[float, float, float, float]


def check_object(item: Object, size: Size | None, *, where: str) -> tuple[Object | None, list[Finding]]:
    """Judge one object.

    Args:
        item: as read.
        size: `(height, width)` of its image; None when that is not known yet: then nothing can lie outside.
        where: used in findings when the object itself does not know its place.

    Returns:
        The object, clipped where it reaches out of the image; None where it cannot be used. And what was found.
    """
    report = _Report(item.where or where)
    box = _checked_box(item.box, size, report)
    if box is None:
        return None, report.findings
    polygons = item.polygons
    if polygons:
        rings = [_checked_ring(ring, size, report) for ring in polygons]
        polygons = [ring for ring in rings if ring is not None]
        if not polygons and item.rle is None:
            report.add("polygon-empty", "none of its polygons can be used", "object dropped")
            return None, report.findings
    if item.rle is not None and size is not None and item.rle.size != size:
        found = f"{item.rle.size[1]} × {item.rle.size[0]}"
        report.add("size-mismatch", f"its mask is {found} pixels, its image {size[1]} × {size[0]}", "object dropped")
        return None, report.findings
    if item.rle is not None and not rle_area(item.rle):
        report.add("mask-empty", "its mask has no pixel", "object dropped")
        return None, report.findings
    if not report.findings:
        return item, []
    return replace(item, box=box, polygons=polygons), report.findings


class _Report:
    """Findings of one object."""

    def __init__(self, where: str) -> None:
        self.where = where
        self.findings: list[Finding] = []

    def add(
        self,
        fault: str,
        text: str,
        action: str,
        *,
        severity: Severity = "error",
        evidence: dict[str, Any] | None = None,
    ) -> None:
        self.findings.append(
            Finding(
                id=fault,
                severity=severity,
                where=self.where,
                explanation=text,
                action=action,
                evidence=evidence or {},
            )
        )


def _checked_box(box: Box, size: Size | None, report: _Report) -> Box | None:
    left, top, right, bottom = box
    text = "(" + ", ".join(f"{value:g}" for value in box) + ")"
    # What NaN and infinity are in JSON is not agreed upon, so evidence has them as text.
    evidence = {"box": [value if math.isfinite(value) else str(value) for value in box]}
    if not all(map(math.isfinite, box)):
        report.add(
            "box-not-finite", f"box {text} has a coordinate that is not a number", "object dropped", evidence=evidence
        )
    elif right < left or bottom < top:
        report.add(
            "box-inverted",
            f"box {text} ends before it begins; expected xmin < xmax and ymin < ymax",
            "object dropped",
            evidence=evidence,
        )
    elif right == left or bottom == top:
        report.add(
            "box-empty",
            f"box {text} has no area; expected xmin < xmax and ymin < ymax",
            "object dropped",
            evidence=evidence,
        )
    else:
        return box if size is None else _inside(box, size, text, report)
    return None


def _inside(box: Box, size: Size, text: str, report: _Report) -> Box | None:
    height, width = size
    left, top, right, bottom = box
    evidence = {"box": list(box), "size": [height, width]}
    if left >= width or top >= height or right <= 0 or bottom <= 0:
        report.add(
            "box-outside",
            f"box {text} lies wholly outside its image of {width} × {height}",
            "object dropped",
            evidence=evidence,
        )
        return None
    if min(left, top) >= -TOLERANCE and right <= width + TOLERANCE and bottom <= height + TOLERANCE:
        return box
    report.add(
        "box-outside",
        f"box {text} reaches out of its image of {width} × {height}",
        "clipped to the image",
        severity="warning",
        evidence=evidence,
    )
    return max(left, 0.0), max(top, 0.0), min(right, float(width)), min(bottom, float(height))


def _checked_ring(ring: np.ndarray, size: Size | None, report: _Report) -> np.ndarray | None:
    if not np.isfinite(ring).all():
        report.add("polygon-not-finite", "a polygon has a coordinate that is not a number", "polygon dropped")
        return None
    if _encloses_nothing(ring):
        different = len(np.unique(ring, axis=0))
        points = f"{len(ring)} points" if different == len(ring) else f"{len(ring)} points ({different} different ones)"
        report.add("polygon-empty", f"a polygon of {points} has no area", "polygon dropped")
        return None
    if size is None:
        return ring
    height, width = size
    if (ring >= -TOLERANCE).all() and (ring <= (width + TOLERANCE, height + TOLERANCE)).all():
        return ring
    clipped = clip_ring(ring, size)
    if _encloses_nothing(clipped):
        report.add(
            "polygon-outside", f"a polygon lies wholly outside its image of {width} × {height}", "polygon dropped"
        )
        return None
    report.add(
        "polygon-outside",
        f"a polygon reaches out of its image of {width} × {height}",
        "clipped to the image",
        severity="warning",
    )
    return clipped


def _encloses_nothing(ring: np.ndarray) -> bool:
    """Loops that go round opposite ways cancel in the area, but not where the ring crosses itself between them."""
    return len(ring) < 3 or (polygon_area(ring) == 0 and not len(crossings(ring)))


def clip_ring(ring: np.ndarray, size: Size) -> np.ndarray:
    """The part of a ring inside an image.

    Method: Sutherland and Hodgman 1974, one border after the other. A ring that leaves the image and comes back keeps
    an edge along the border, which encloses nothing.

    Args:
        ring: `(p, 2)` xy.
        size: `(height, width)`.

    Returns:
        `(q, 2)` float64; q is 0 where nothing is inside.
    """
    height, width = size
    for axis, limit, sign in ((0, 0.0, 1.0), (0, float(width), -1.0), (1, 0.0, 1.0), (1, float(height), -1.0)):
        ring = _clip_half(ring, lambda points, a=axis, at=limit, s=sign: (points[:, a] - at) * s)
    return ring


def _clip_half(ring: np.ndarray, depth_of: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """Keep the half plane where `depth_of` is not negative; crossings become vertices."""
    ring = np.asarray(ring, dtype=np.float64)
    if not len(ring):
        return ring
    depth = depth_of(ring)
    following, depth_after = np.roll(ring, -1, axis=0), np.roll(depth, -1)
    inside = depth >= 0
    crosses = (inside != (depth_after >= 0)) & (depth != 0) & (depth_after != 0)
    share = depth / np.where(crosses, depth - depth_after, 1.0)
    crossing = ring + (following - ring) * share[:, None]
    return np.stack([ring, crossing], axis=1)[np.stack([inside, crosses], axis=1)]
