"""What masks and outlines say of objects: specks, copies, crossings, holes, parts, borders."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from clearsight.data.check_outlines import crossings, find_crossing
from clearsight.data.dataset import Dataset
from clearsight.data.in_threads import in_threads
from clearsight.data.object_strips import Strip, draw_strips
from clearsight.data.shape_overlap import find_overlaps
from clearsight.types import Finding, Object, Record, Severity

__all__ = ["SPECK", "check_shapes"]

SPECK = 3
"""Pixels up to which an object counts as a speck."""
_DUPLICATE = 0.8
_EXAMPLES = 5


def check_shapes(dataset: Dataset, *, workers: int = 0) -> list[Finding]:
    """Judge the masks and polygons of objects; nothing is changed and no file is opened.

    Objects are drawn as training draws them, those of an image in a few long masks. What is likely a mistake has a
    finding of its own; what is only worth knowing is counted, one finding for the data set. Crowds are passed over.

    Args:
        dataset: after `check_records`, and after `check_images` where that is wanted: objects cut by the border are
            told only of images whose size is known.
        workers: threads; 0 takes one a core, at most 16.

    Returns:
        Findings in the order of the records, then those of the whole.

    Cost: about 0.1 ms an object of 30 × 30 pixels and 0.4 ms one of 100 × 100, on one core.
    """
    if not any(item.polygons or item.rle is not None for record in dataset.records for item in record.objects):
        return []
    judged = list(in_threads(_judge, dataset.records, workers=workers, title="Checking shapes"))
    findings = [finding for one in judged for finding in one.findings]
    return [*findings, *_of_the_whole(dataset, judged)]


class _Shapes(NamedTuple):
    """What one image's objects show; places are `Object.where`."""

    findings: list[Finding]
    objects: int
    holes: list[str]
    parts: list[str]
    border: list[str]
    overlaps: list[str]
    boxes: list[str]


def _judge(record: Record) -> _Shapes:
    items = [item for item in record.objects if not item.crowd]
    shaped = [item for item in items if item.polygons or item.rle is not None]
    boxes = [_place(item, record) for item in items if not item.polygons and item.rle is None]
    found = _Shapes([], len(items), [], [], [], [], boxes)
    if not shaped:
        return found
    found.findings.extend(_crossing(shaped, record))
    strips = draw_strips(shaped, record.size)
    for strip in strips:
        _measure(strip, shaped, record, found)
    if record.instance_map is None and len(shaped) > 1:  # objects of a map have no pixel in common
        pairs = find_overlaps(strips)
        found.overlaps.extend(_place(shaped[number], record) for number in sorted({n for p in pairs for n in p[:2]}))
        for one, other, iou in pairs:
            if iou >= _DUPLICATE and shaped[one].label == shaped[other].label:
                found.findings.append(_duplicate(_place(shaped[one], record), _place(shaped[other], record), iou))
    return found


def _place(item: Object, record: Record) -> str:
    return item.where or record.where or str(record.image)


def _finding(fault: str, severity: Severity, where: str, text: str, action: str = "kept", **evidence: Any) -> Finding:
    return Finding(id=fault, severity=severity, where=where, explanation=text, action=action, evidence=evidence)


# ------------------------------------------------------------------------------------------------ one image
def _crossing(items: Sequence[Object], record: Record) -> list[Finding]:
    owners = [item for item in items for _ in item.polygons]
    rings = [ring for item in items for ring in item.polygons]
    findings = []
    for number in find_crossing(rings):
        points = crossings(rings[number])
        x, y = points[0].tolist()
        text = (
            f"a polygon of {len(rings[number])} points crosses itself {_times(len(points))}, at ({x:.1f}, {y:.1f})"
            f"{'' if len(points) == 1 else ' first'}; what it goes around twice lies outside; draw it again"
        )
        where = _place(owners[number], record)
        evidence = {"crossings": len(points), "points": points[:_EXAMPLES].tolist()}
        findings.append(_finding("polygon-crosses-itself", "warning", where, text, **evidence))
    return findings


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"


def _measure(strip: Strip, items: Sequence[Object], record: Record, found: _Shapes) -> None:
    """Specks, parts, holes and borders of the objects of one strip."""
    places = [_place(items[number], record) for number in strip.objects.tolist()]
    areas = np.add.reduceat(np.count_nonzero(strip.pixels, axis=1), strip.rows)
    for number in np.flatnonzero(areas <= SPECK).tolist():
        found.findings.append(_speck(places[number], int(areas[number]), strip.windows[number].tolist()))
    bounds = _bounds(strip.pixels, np.ones((3, 3), dtype=bool))
    owner = strip.owner(bounds[:, 1])
    parts = np.bincount(owner, minlength=len(places))
    found.parts.extend(places[number] for number in np.flatnonzero(parts > 1).tolist())
    # Pixels that touch at a corner belong together, so background that does so does not.
    inside = _bounds(~strip.pixels, None)[1:]  # the first is the frame, and all that it reaches
    found.holes.extend(places[number] for number in np.unique(strip.owner(inside[:, 1])).tolist())
    shift = strip.windows[owner, :2] - np.stack((np.ones_like(owner), strip.rows[owner]), axis=1)
    boxes = bounds + np.tile(shift, 2)
    if record.size is not None:
        height, width = record.size
        touches = (boxes[:, :2] <= 0).any(axis=1) | (boxes[:, 2:] >= (width, height)).any(axis=1)
        found.border.extend(places[number] for number in np.unique(owner[touches]).tolist())
    if record.instance_map is not None:
        for number in np.flatnonzero(parts > 1).tolist():
            gap = _widest_gap(boxes[owner == number])
            if gap is not None:
                found.findings.append(_scattered(places[number], int(parts[number]), *gap))


def _bounds(pixels: np.ndarray, near: np.ndarray | None) -> np.ndarray:
    """The xyxy box of each component, `(n, 4)`; `near` are the neighbours of a pixel, None those with a common side."""
    from scipy import ndimage

    labels = np.empty(pixels.shape, dtype=np.int32)
    ndimage.label(pixels, near, output=labels)
    boxes = [(x.start, y.start, x.stop, y.stop) for y, x in ndimage.find_objects(labels)]
    return np.array(boxes, dtype=np.int64).reshape(-1, 4)


def _widest_gap(boxes: np.ndarray) -> tuple[int, int] | None:
    """The gap between a part and the largest one, and the longer side of that, where the gap is longer; else None."""
    sides = boxes[:, 2:] - boxes[:, :2]
    largest = int(sides.prod(axis=1).argmax())
    apart = np.maximum(boxes[:, :2] - boxes[largest, 2:], boxes[largest, :2] - boxes[:, 2:]).max(axis=1)
    gap, side = int(apart.max()), int(sides[largest].max())
    return (gap, side) if gap > side else None


def _speck(where: str, area: int, window: list[int]) -> Finding:
    covers = "covers no pixel's centre" if area == 0 else f"has {area} pixel{'' if area == 1 else 's'}"
    text = f"the object {covers}, at ({window[0]}, {window[1]}): a slip of the hand, or too small to learn; look at it"
    return _finding("tiny-object", "warning", where, text, pixels=area, window=window)


def _scattered(where: str, parts: int, gap: int, side: int) -> Finding:
    text = (
        f"one number covers {parts} components, {gap} pixels apart where the largest is {side} long; if they are "
        "different objects, give each a number of its own"
    )
    return _finding("scattered-instance", "info", where, text, components=parts, gap=gap, side=side)


def _duplicate(first: str, second: str, iou: float) -> Finding:
    text = f"its mask is nearly that of {first} (IoU {iou:.2f}), of the same class; if it is one object, remove one"
    return _finding("duplicate-object", "warning", second, text, first=first, iou=round(iou, 4))


# ------------------------------------------------------------------------------------------------ the whole
_COUNTED = (
    (
        "holes",
        "objects-with-holes",
        "have holes, which do not belong to them; of polygons by the even-odd rule",
    ),
    ("parts", "objects-in-parts", "have several components; all of them belong to the object"),
    ("border", "objects-at-border", "touch the border of their image, and may go on beyond it"),
    ("overlaps", "overlapping-objects", "share pixels with another one; each keeps all of its own"),
)


def _of_the_whole(dataset: Dataset, judged: Sequence[_Shapes]) -> list[Finding]:
    total, root = sum(one.objects for one in judged), str(dataset.root)
    findings = []
    for field, fault, text in _COUNTED:
        places = [place for one in judged for place in getattr(one, field)]
        if places:
            findings.append(_counted(fault, "info", places, total, root, text))
    places = [place for one in judged for place in one.boxes]
    if places:
        text = "have a box and no mask, while others have masks; their whole box is taken for the mask: draw them"
        findings.append(_counted("box-without-mask", "warning", places, total, root, text))
    copies = sum(finding.id == "duplicate-object" for one in judged for finding in one.findings)
    if copies > 1:
        text = f"{copies} of {total} objects ({copies / total:.1%}) are nearly copies of another one"
        findings.append(_finding("duplicate-object", "warning", root, text, objects=copies, of=total))
    return findings


def _counted(fault: str, severity: Severity, places: list[str], total: int, root: str, text: str) -> Finding:
    count = len(places)
    whole = f"{count} of {total} objects ({count / total:.1%}) {text} (such as {places[0]})"
    return _finding(fault, severity, root, whole, objects=count, of=total, examples=places[:_EXAMPLES])
