"""Writing COCO JSON."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from clearsight.data.carry import lost, lost_by, not_placed, object_area
from clearsight.data.dataset import Dataset
from clearsight.data.decode import image_size
from clearsight.data.files import output_names, place_image, write_text
from clearsight.data.formats.coco_shape import box_to_xywh, needs_corners, rings_overlap, segmentation_of
from clearsight.errors import DataError
from clearsight.ops.masks import mask_to_rle
from clearsight.ops.outlines import polygons_to_mask
from clearsight.types import Finding, Object, Record, Rle

__all__ = ["loses", "write"]

_IMAGE_KEYS = frozenset({"file_name", "group", "height", "id", "width"})
_OBJECT_KEYS = frozenset({"bbox_corners", "category_id", "difficult", "image_id", "iscrowd", "segmentation"})
_NOT_WRITTEN = _OBJECT_KEYS | {"bbox", "fill", "id"}  # bbox and id are written from elsewhere, fill is COCO's own rule


def loses(dataset: Dataset) -> list[Finding]:
    """Image labels, semantic and instance maps; vertices of polygons with holes, which become run lengths."""
    found = lost_by(
        dataset,
        "COCO",
        carries={"boxes", "polygons", "rle", "crowd", "difficult", "splits", "lists", "groups"},
        object_key=lambda key, value: key not in _OBJECT_KEYS and _is_json(value),
        record_key=lambda key, value: (key == "id" or key not in _IMAGE_KEYS) and _is_json(value),
        dataset_key=lambda key, value: key not in ("annotations", "images") and _is_json(value),
    )
    items = [(item, record) for record in dataset.records for item in record.objects]
    both = sum(bool(item.polygons) and item.rle is not None for item, _ in items)
    if both:
        found.append(lost(dataset, "COCO", f"polygons beside run lengths ({both} objects); run lengths stay", both))
    holes = sum(_holes(item, record.size) is not None for item, record in items)
    if holes:
        what = f"polygons with holes ({holes} objects); their masks are written as run lengths"
        found.append(lost(dataset, "COCO", what, holes))
    return found


def _is_json(value: object) -> bool:
    try:
        json.dumps(value)
    except (TypeError, ValueError):
        return False
    return True


def write(dataset: Dataset, out: Path) -> list[Finding]:
    """Write `images/` and one `annotations/instances_SPLIT.json` a split (`instances.json` for images without one).

    Ids of categories, images and annotations are kept where they have some and they are unique, else counted from 1.

    Returns:
        What was lost, and images that could not be placed.
    """
    findings = loses(dataset)
    content: dict[str | None, list[tuple[Record, dict[str, Any]]]] = {split: [] for split in dataset.splits}
    for record, name in zip(dataset.records, output_names(dataset.records, dataset.root), strict=True):
        try:
            height, width = record.size or image_size(record.image)
            place_image(record.image, out / "images" / name)
        except (DataError, OSError) as err:
            findings.append(not_placed(record, err))
            continue
        entry: dict[str, Any] = {"id": None, "file_name": name, "height": height, "width": width}
        entry.update({k: v for k, v in record.attributes.items() if k not in entry and _is_json(v)})
        if record.group is not None:
            entry["group"] = record.group
        content.setdefault(record.split, []).append((record, entry))
    categories = _categories(dataset)
    extra = {k: v for k, v in dataset.attributes.items() if k != "categories" and _is_json(v)}
    own = {record.split for record in dataset.records}
    for split, pairs in content.items():
        if split in own:
            file = {**extra, "categories": categories, **_tables(pairs, [one["id"] for one in categories])}
            name = "instances.json" if split is None else f"instances_{split}.json"
            write_text(out / "annotations" / name, json.dumps(file, ensure_ascii=False) + "\n")
    return findings


def _categories(dataset: Dataset) -> list[dict[str, Any]]:
    known = {str(entry.get("name")).strip(): entry for entry in dataset.attributes.get("categories", [])}
    ids = _numbers([known.get(name, {}).get("id") for name in dataset.classes])
    return [{**known.get(name, {}), "id": id_, "name": name} for id_, name in zip(ids, dataset.classes, strict=True)]


def _tables(pairs: list[tuple[Record, dict[str, Any]]], category_ids: Sequence[int | str]) -> dict[str, Any]:
    image_ids = _numbers([record.attributes.get("id") for record, _ in pairs])
    annotation_ids = iter(_numbers([item.attributes.get("id") for record, _ in pairs for item in record.objects]))
    images, annotations = [], []
    for (record, entry), image_id in zip(pairs, image_ids, strict=True):
        images.append({**entry, "id": image_id})
        for item in record.objects:
            whole = _annotation(item, (entry["height"], entry["width"]))
            ids = {"id": next(annotation_ids), "image_id": image_id, "category_id": category_ids[item.label]}
            annotations.append({**ids, **whole})
    return {"images": images, "annotations": annotations}


def _numbers(given: Iterable[object]) -> list[int | str]:
    """Ids as given where there is one and it is the first of its value; the others count on above the largest."""
    wanted = [one if isinstance(one, int | str) and not isinstance(one, bool) else None for one in given]
    first: dict[object, int] = {}
    for place, one in enumerate(wanted):
        first.setdefault(one, place)
    counter = max([one for one in wanted if isinstance(one, int)], default=0)
    numbers: list[int | str] = []
    for place, one in enumerate(wanted):
        if one is None or first[one] != place:
            counter += 1
            one = counter
        numbers.append(one)
    return numbers


def _annotation(item: Object, size: tuple[int, int]) -> dict[str, Any]:
    rle = _holes(item, size)
    if rle is not None:
        item = Object(label=item.label, box=item.box, rle=rle, crowd=item.crowd, attributes=item.attributes)
    others = {k: v for k, v in item.attributes.items() if k not in _NOT_WRITTEN and _is_json(v)}
    written: dict[str, Any] = {
        "bbox": box_to_xywh(item.box, item.attributes.get("bbox")),
        "area": object_area(item),
        "iscrowd": int(item.crowd),
        "segmentation": segmentation_of(item),
        **others,
    }
    if item.difficult:
        written["difficult"] = 1
    if needs_corners(item.box) and box_to_xywh(item.box, item.attributes.get("bbox")) != item.attributes.get("bbox"):
        written["bbox_corners"] = list(item.box)
    return written


def _holes(item: Object, size: tuple[int, int] | None) -> Rle | None:
    """The mask of an object whose rings overlap so that the rules differ: COCO would fill its holes; else None."""
    if item.rle is not None or size is None or "fill" in item.attributes or not rings_overlap(item.polygons):
        return None
    mask = polygons_to_mask(item.polygons, size)
    if (mask == polygons_to_mask(item.polygons, size, fill="union")).all():
        return None
    return mask_to_rle(mask)
