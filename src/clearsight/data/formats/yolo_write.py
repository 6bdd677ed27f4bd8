"""Writing YOLO."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import yaml

from clearsight.data.carry import lost, lost_by, not_placed
from clearsight.data.dataset import Dataset
from clearsight.data.decode import image_size
from clearsight.data.files import output_names, place_image, write_text
from clearsight.data.formats.yolo_lines import line_of
from clearsight.errors import DataError
from clearsight.ops.contours import polygon_box
from clearsight.ops.masks import rle_to_mask
from clearsight.ops.outlines import mask_to_polygons
from clearsight.types import Finding, Object

__all__ = ["loses", "write"]

_RESERVED = frozenset({"categories", "class_ids", "names", "nc", "path"})
_UNSPLIT = "unsplit"


def loses(dataset: Dataset) -> list[Finding]:
    """Crowd and difficult flags, attributes, groups; rings of objects that have several; boxes unlike their polygons.

    Holes and further parts are joined to one ring, run lengths become outlines: their masks stay the same pixels.
    """
    found = lost_by(
        dataset,
        "YOLO",
        carries={"boxes", "polygons", "rle", "splits", "lists"},
        object_key=lambda key, value: key == "fill",
        dataset_key=lambda key, value: key == "class_ids" or (key not in _RESERVED and _is_plain(value)),
    )
    items = [item for record in dataset.records for item in record.objects]
    outlines = [_rings(item) for item in items]
    joined = sum(len(rings) > 1 for rings in outlines)
    if joined:
        what = f"several rings ({joined} objects); they are joined to one that covers the same"
        found.append(lost(dataset, "YOLO", what, joined))
    runs = sum(item.rle is not None for item in items)
    if runs:
        what = f"run lengths ({runs} objects); outlines of the same pixels are written"
        found.append(lost(dataset, "YOLO", what, runs, severity="info"))
    distances = [_box_off(item, rings) for item, rings in zip(items, outlines, strict=True)]
    apart = [distance for distance in distances if distance > 1e-6]
    if apart:
        what = f"boxes that differ from their polygons ({len(apart)} objects, by up to {max(apart):.3g} pixels)"
        severity = "warning" if max(apart) > 1 else "info"  # COCO's boxes are rounded to whole pixels by many tools
        found.append(lost(dataset, "YOLO", what, len(apart), severity=severity))
    without = sum(record.split is None for record in dataset.records)
    if 0 < without < len(dataset):
        what = f"images without a split beside others ({without} images); they become split {_UNSPLIT!r}"
        found.append(lost(dataset, "YOLO", what, without))
    return found


def _is_plain(value: object) -> bool:
    try:
        return json.loads(json.dumps(value)) == value
    except (TypeError, ValueError):
        return False


def _rings(item: Object) -> list[np.ndarray]:
    return mask_to_polygons(rle_to_mask(item.rle)) if item.rle is not None else item.polygons


def _box_off(item: Object, rings: list[np.ndarray]) -> float:
    """Largest distance in pixels between the sides of the box and those of the outline."""
    if not rings:
        return 0.0
    return max(abs(mine - its) for mine, its in zip(item.box, polygon_box(rings), strict=True))


def write(dataset: Dataset, out: Path) -> list[Finding]:
    """Write `images/SPLIT/`, `labels/SPLIT/` and `data.yaml` below `out`.

    Shares have twelve decimals: on an image of 65,000 pixels a box comes back within 1e-7 pixels, and reading takes
    what lies that close to a whole pixel for whole, so boxes of whole pixels come back exactly.

    Returns:
        What was lost, and images that could not be placed.
    """
    findings = loses(dataset)
    splits = {record.split for record in dataset.records}
    lists: dict[str, list[str]] = {}
    numbers = _numbers(dataset)
    for record, name in zip(dataset.records, output_names(dataset.records, dataset.root), strict=True):
        split = record.split if record.split is not None else "" if splits == {None} else _UNSPLIT
        try:
            size = image_size(record.image)
            place_image(record.image, out / "images" / split / name)
        except (DataError, OSError) as err:
            findings.append(not_placed(record, err))
            continue
        lines = [line_of(item, numbers[item.label], size) for item in record.objects]
        label = (out / "labels" / split / name).with_suffix(".txt")
        write_text(label, "".join(f"{line}\n" for line in lines))
        for one in record.attributes.get("lists", ()):
            lists.setdefault(one, []).append(f"./images/{split}/{name}".replace("//", "/"))
    for one, names in lists.items():
        write_text(out / f"{one}.txt", "".join(f"{name}\n" for name in names))
    write_text(out / "data.yaml", _data_yaml(dataset, splits, lists, numbers))
    return findings


def _numbers(dataset: Dataset) -> list[int]:
    """The class number of each label: as the data set was read with, where that still fits."""
    given = dataset.attributes.get("class_ids")
    usable = isinstance(given, list) and len(given) == len(dataset.classes) and dataset.format == "yolo"
    return list(given) if usable and given is not None else list(range(len(dataset.classes)))


def _data_yaml(dataset: Dataset, splits: set[str | None], lists: dict[str, list[str]], numbers: list[int]) -> str:
    usual = [split for split in ("train", "val", "test") if split in splits]
    others = sorted(split for split in splits if split is not None and split not in usual)
    content: dict[str, object] = {split: f"images/{split}" for split in usual + others}
    if None in splits and len(splits) > 1:
        content[_UNSPLIT] = f"images/{_UNSPLIT}"
    for one in sorted(lists):
        places = [content[one]] if one in content else []
        content[one] = [*places, f"{one}.txt"] if places else f"{one}.txt"
    content["nc"] = len(dataset.classes)
    content["names"] = dict(zip(numbers, dataset.classes, strict=True))
    taken = _RESERVED | content.keys()
    content |= {k: v for k, v in dataset.attributes.items() if k not in taken and _is_plain(v)}
    note = "" if splits - {None} else "# The images have no splits: add train, val and test here.\n"
    return note + yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=120)
