"""What a data set holds that a format cannot carry: the findings of every format's `loses`."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Collection
from typing import Any

from clearsight.data.dataset import Dataset
from clearsight.ops.contours import polygon_area
from clearsight.ops.masks import rle_area
from clearsight.types import Finding, Object, Record, Severity

__all__ = ["lost", "lost_by", "not_placed", "object_area"]

_OBJECT_FACTS: dict[str, tuple[str, Callable[[Object], object]]] = {
    "polygons": ("polygons", lambda item: item.polygons),
    "rle": ("run-length masks", lambda item: item.rle is not None),
    "crowd": ("the crowd flag", lambda item: item.crowd),
    "difficult": ("the difficult flag", lambda item: item.difficult),
}
_RECORD_FACTS: dict[str, tuple[str, Callable[[Record], object]]] = {
    "splits": ("splits", lambda record: record.split is not None),
    "lists": ("lists that overlap the splits", lambda record: record.attributes.get("lists")),
    "labels": ("image labels", lambda record: record.label is not None),
    "semantic": ("semantic maps", lambda record: record.semantic is not None),
    # A map whose objects were read is carried, or lost, with their masks.
    "instance_maps": ("instance maps", lambda record: record.instance_map is not None and not record.objects),
    "groups": ("groups", lambda record: record.group is not None),
}
# Where files lie and how things are numbered can be made anew: worth knowing, no reason to refuse.
_BOOKKEEPING = frozenset({"bbox", "categories", "coco_url", "depth", "flickr_url", "folder", "id", "instance", "path"})
_SAYS_NOTHING = ", which says nothing"
_EMPTY = (None, "", 0, "Unspecified", "Unknown", [])


def lost(dataset: Dataset, target: str, what: str, count: int, *, severity: Severity = "warning") -> Finding:
    """One finding `lost-on-write`.

    Args:
        dataset: whose data is lost.
        target: name of the format that is written.
        what: plural noun or sentence part, put after "cannot carry".
        count: objects or images it concerns.
        severity: `warning` for content (convert then refuses unless told otherwise), `info` for what can be made anew.
    """
    return Finding(
        id="lost-on-write",
        severity=severity,
        where=str(dataset.root),
        explanation=f"{target} cannot carry {what}",
        action="left out",
        evidence={"count": count},
    )


def lost_by(
    dataset: Dataset,
    target: str,
    *,
    carries: Collection[str],
    object_key: Callable[[str, Any], bool] = lambda key, value: False,
    record_key: Callable[[str, Any], bool] = lambda key, value: False,
    dataset_key: Callable[[str, Any], bool] = lambda key, value: False,
) -> list[Finding]:
    """What `target` would leave out, one finding for each kind of thing.

    Args:
        dataset: what is to be written.
        target: name of the format, for the text.
        carries: of `boxes polygons rle crowd difficult splits lists labels semantic instance_maps groups`.
        object_key: whether the format carries this attribute (key and value) of an object.
        record_key: the same for attributes of a record; `lists` is not asked.
        dataset_key: the same for attributes of the data set.
    """
    counts: Counter[tuple[str, str]] = Counter()
    for record in dataset.records:
        for fact, (what, holds) in _RECORD_FACTS.items():
            counts[what, "images"] += fact not in carries and bool(holds(record))
        for key, value in record.attributes.items():
            counts[_named(key, value), "images"] += key != "lists" and not record_key(key, value)
        for item in record.objects:
            counts["boxes", "objects"] += "boxes" not in carries
            for fact, (what, holds) in _OBJECT_FACTS.items():
                counts[what, "objects"] += fact not in carries and bool(holds(item))
            for key, value in item.attributes.items():
                kept = object_key(key, value) or (key == "area" and _follows(item, value))
                counts[_named(key, value), "objects"] += not kept
    found = [
        lost(dataset, target, f"{what} ({count} {of})", count, severity=_severity(what))
        for (what, of), count in counts.items()
        if count
    ]
    for key, value in dataset.attributes.items():
        if not dataset_key(key, value):
            found.append(lost(dataset, target, f"the data set's {key!r}", 1, severity=_severity(repr(key))))
    return found


def _follows(item: Object, area: object) -> bool:
    """Whether an annotated area is what the object's own outline or box says, so that nothing is lost without it."""
    if not isinstance(area, int | float):
        return False
    return math.isclose(area, object_area(item), rel_tol=1e-6, abs_tol=1e-6)


def object_area(item: Object) -> float:
    """Pixels that an object covers, by the most exact thing it has: run lengths, polygons, else its box."""
    if item.rle is not None:
        return float(rle_area(item.rle))
    if item.polygons:
        return sum(polygon_area(ring) for ring in item.polygons)
    left, top, right, bottom = item.box
    return (right - left) * (bottom - top)


def not_placed(record: Record, err: Exception) -> Finding:
    """The finding of a writer that could not read or place an image: the image and its label are not written."""
    return Finding(
        id="missing-image",
        severity="error",
        where=str(record.image),
        explanation=f"the image cannot be placed: {err}",
        action="not written",
    )


def _named(key: str, value: object) -> str:
    return f"the attribute {key!r}" + (_SAYS_NOTHING if _is_empty(value) else "")


def _is_empty(value: object) -> bool:
    """Whether a value is only a form that was not filled in."""
    if isinstance(value, dict):
        return all(map(_is_empty, value.values()))
    return value in _EMPTY


def _severity(what: str) -> Severity:
    key = what.removeprefix("the attribute ").strip("'")
    return "info" if key in _BOOKKEEPING or what.endswith(_SAYS_NOTHING) else "warning"
