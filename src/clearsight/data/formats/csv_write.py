"""Writing CSV."""

from __future__ import annotations

import csv
from io import StringIO
from pathlib import Path

from clearsight.data.carry import lost, lost_by, not_placed
from clearsight.data.dataset import Dataset
from clearsight.data.files import output_names, place_image, write_text
from clearsight.data.formats.csv_columns import BOX, find_columns
from clearsight.types import Finding, Object, Record

__all__ = ["loses", "write"]


def loses(dataset: Dataset) -> list[Finding]:
    """Masks, polygons, flags, overlapping lists, and attributes that are not text or cannot name a column."""
    if dataset.task == "classification":
        return lost_by(dataset, "CSV", carries={"labels", "splits", "groups"}, record_key=_carries)
    findings = lost_by(dataset, "CSV", carries={"boxes", "splits", "groups"}, object_key=_carries)
    torn = sum(record.split is not None and not record.split.strip() for record in dataset.records)
    return findings + ([lost(dataset, "CSV", "blank split names", torn)] if torn else [])


def _carries(key: str, value: object) -> bool:
    """Text that comes back as it went, under a name that means nothing else."""
    free = key == key.strip() and bool(key) and key in find_columns([key]).extra
    return free and isinstance(value, str) and value == value.strip() and value != "" and "\r" not in value


def write(dataset: Dataset, out: Path) -> list[Finding]:
    """Write `labels.csv`, `images/` and `classes.txt` (label order) below `out`.

    Numbers are written with all their digits, whole ones without a point.

    Returns:
        What was lost, and images that could not be placed.
    """
    findings = loses(dataset)
    boxes = dataset.task != "classification"
    sizes = boxes and any(record.size is not None for record in dataset.records)
    splits = any(record.split is not None for record in dataset.records)
    groups = any(record.group is not None for record in dataset.records)
    extras = sorted({key for record in dataset.records for key in _texts(record, boxes=boxes)})
    header = ["path", "label", *(BOX if boxes else ()), *(("width", "height") if sizes else ())]
    header += [*(["split"] if splits else []), *(["group"] if groups else []), *extras]
    lines = [header]
    for record, name in zip(dataset.records, output_names(dataset.records, dataset.root), strict=True):
        try:
            place_image(record.image, out / "images" / name)
        except OSError as err:
            findings.append(not_placed(record, err))
            continue
        for item in record.objects or [None] if boxes else [None]:
            cells = _cells(record, item, dataset) | {"path": f"images/{name}"}
            lines.append([cells.get(column, "") for column in header])
    text = StringIO()
    csv.writer(text, lineterminator="\n").writerows(lines)
    write_text(out / "labels.csv", text.getvalue())
    write_text(out / "classes.txt", "".join(f"{name}\n" for name in dataset.classes))
    return findings


def _texts(record: Record, *, boxes: bool) -> set[str]:
    holders = record.objects if boxes else [record]
    return {key for holder in holders for key, value in holder.attributes.items() if _carries(key, value)}


def _cells(record: Record, item: Object | None, dataset: Dataset) -> dict[str, str]:
    cells = {"split": record.split or "", "group": record.group or ""}
    if record.size is not None:
        cells |= {"height": str(record.size[0]), "width": str(record.size[1])}
    label, attributes = (record.label, record.attributes) if item is None else (item.label, item.attributes)
    if item is None and dataset.task != "classification":
        return cells
    if item is not None:
        cells |= dict(zip(BOX, map(_number, item.box), strict=True))
    cells |= {key: value for key, value in attributes.items() if _carries(key, value)}
    return cells | ({} if label is None else {"label": dataset.classes[label]})


def _number(value: float) -> str:
    return str(int(value)) if float(value).is_integer() else repr(float(value))
