"""Writing LabelMe."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from clearsight.data.carry import lost, lost_by, not_placed
from clearsight.data.dataset import Dataset
from clearsight.data.decode import image_size
from clearsight.data.files import output_names, place_image, write_text
from clearsight.data.formats.coco_shape import rings_overlap
from clearsight.data.formats.labelme_shapes import shapes_of
from clearsight.errors import DataError
from clearsight.types import Finding, Object, Record

__all__ = ["loses", "write"]

_VERSION = "5.5.0"  # of LabelMe's file format
_TAKEN = frozenset({"group", "imageData", "imageHeight", "imagePath", "imageWidth", "shapes", "split", "version"})
_TAKEN_BY_SHAPES = frozenset({"box", "label", "mask", "points", "shape_type"})
_SPLITS = ("train", "val", "test")


def loses(dataset: Dataset) -> list[Finding]:
    """Image labels, maps, splits of other names; holes are kept, as a bridge to the outline."""
    findings = lost_by(
        dataset,
        "LabelMe",
        carries={"boxes", "polygons", "rle", "crowd", "difficult", "splits", "lists", "groups"},
        object_key=lambda key, value: key == "fill" or key not in _TAKEN_BY_SHAPES or _is_circle(key, value),
        record_key=lambda key, value: key not in _TAKEN,
    )
    items = [item for record in dataset.records for item in record.objects]
    joined = sum(map(_has_holes, items))
    if joined:
        what = f"rings within rings as such ({joined} objects); they are joined to one that covers the same"
        findings.append(lost(dataset, "LabelMe", what, joined, severity="info"))
    empty = sum(item.rle is not None and sum(item.rle.counts[1::2]) == 0 for item in items)
    if empty:
        findings.append(lost(dataset, "LabelMe", f"masks without a pixel ({empty} objects)", empty))
    odd = sorted({record.split for record in dataset.records} - {None, *_SPLITS}, key=str)
    if odd:
        findings.append(
            lost(dataset, "LabelMe", f"splits other than train, val and test ({', '.join(map(str, odd))})", 1)
        )
    return findings


def _is_circle(key: str, value: object) -> bool:
    return (key == "shape_type" and value == "circle") or (key == "points" and isinstance(value, list))


def _has_holes(item: Object) -> bool:
    overlap = len(item.polygons) > 1 and item.attributes.get("fill") != "union" and rings_overlap(item.polygons)
    return item.rle is None and overlap


def write(dataset: Dataset, out: Path) -> list[Finding]:
    """Write `[SPLIT/]NAME.json` beside `[SPLIT/]NAME.ext`, and `classes.txt` (label order), below `out`.

    Returns:
        What was lost, and images that could not be placed.
    """
    findings = loses(dataset)
    for record, name in zip(dataset.records, output_names(dataset.records, dataset.root), strict=True):
        folder = out / record.split if record.split in _SPLITS else out
        try:
            content = _content(record, name, dataset.classes)
            place_image(record.image, folder / name)
        except (DataError, OSError) as err:
            findings.append(not_placed(record, err))
            continue
        write_text(folder / f"{Path(name).stem}.json", json.dumps(content, indent=2) + "\n")
    write_text(out / "classes.txt", "".join(f"{name}\n" for name in dataset.classes))
    return findings


def _content(record: Record, name: str, classes: tuple[str, ...]) -> dict[str, Any]:
    height, width = record.size or image_size(record.image)
    used = [item.attributes.get("group_id") for item in record.objects]
    group = max((number for number in used if isinstance(number, int)), default=0) + 1
    shapes: list[dict[str, Any]] = []
    for item in record.objects:
        drawn, group = shapes_of(item, classes[item.label], group)
        shapes += drawn
    extra = {key: value for key, value in record.attributes.items() if key not in _TAKEN}
    return {
        "version": _VERSION,
        "flags": {},
        **extra,
        **({} if record.group is None else {"group": record.group}),
        "shapes": shapes,
        "imagePath": name,
        "imageData": None,
        "imageHeight": height,
        "imageWidth": width,
    }
