"""What annotations say, checked without opening an image: objects, names, classes, splits."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import replace

from clearsight.data.check_objects import check_object
from clearsight.data.dataset import Dataset
from clearsight.data.files import encodable, printable
from clearsight.data.image_header import read_header
from clearsight.errors import DataError
from clearsight.types import Finding, Record, Severity

__all__ = ["check_objects_of", "check_records"]


def check_records(dataset: Dataset) -> Dataset:
    """Judge every record, object, class and split, in one pass; nothing is decoded.

    Objects that cannot be used are dropped (box not finite, inverted, without area, wholly outside; class index that
    does not exist), objects that reach out of their image are clipped, records that name the same image twice or have
    names that cannot be written are dropped. Each with a finding; what is only worth knowing is kept with one.

    Args:
        dataset: as a reader gives it; not changed.

    Returns:
        The cleaned data set; `findings` are the reader's and then these, in the order of the records.
    """
    findings: list[Finding] = []
    records = _with_printable_names(dataset.records, findings)
    records = _without_duplicates(records, findings)
    checked = []
    for record in records:
        clean, found = _checked(record, dataset)
        findings += found
        if clean is not None:
            checked.append(clean)
    result = replace(dataset, records=checked)
    findings += [*_classes_without_samples(result), *_splits_that_vanished(dataset, result), *_single_image(result)]
    return replace(result, findings=[*dataset.findings, *findings])


def _finding(fault: str, severity: Severity, where: str, text: str, action: str, **evidence: object) -> Finding:
    return Finding(id=fault, severity=severity, where=where, explanation=text, action=action, evidence=evidence)


# ------------------------------------------------------------------------------------------------ names
def _with_printable_names(records: Sequence[Record], findings: list[Finding]) -> list[Record]:
    kept = []
    for record in records:
        if encodable(record.image):
            kept.append(record)
            continue
        text = "the file name is not valid UTF-8, so no report or annotation can name it; rename the file"
        findings.append(_finding("encoding-name", "error", printable(record.image), text, "image dropped"))
    return kept


def _without_duplicates(records: Sequence[Record], findings: list[Finding]) -> list[Record]:
    """One record an image: the first of equal ones; none of those that contradict each other."""
    by_path: dict[str, list[Record]] = defaultdict(list)
    for record in records:
        by_path[str(record.image)].append(record)
    dropped: set[int] = set()
    for path, same in by_path.items():
        if len(same) < 2:
            continue
        places = ", ".join(record.where or "?" for record in same[:4])
        if all(_content(record) == _content(same[0]) for record in same[1:]):
            text = f"the image is listed {len(same)} times with the same content ({places})"
            findings.append(_finding("duplicate-file-name", "warning", path, text, "kept once", times=len(same)))
            dropped |= {id(record) for record in same[1:]}
        else:
            text = (
                f"the image is listed {len(same)} times with different content ({places}), and nothing tells which is "
                "right; keep one of them"
            )
            findings.append(_finding("duplicate-file-name", "error", path, text, "image dropped", times=len(same)))
            dropped |= {id(record) for record in same}
    kept = [record for record in records if id(record) not in dropped]
    findings += _names_in_several_folders(kept)
    return kept


def _content(record: Record) -> tuple[object, ...]:
    objects = [
        (item.label, item.box, [ring.tolist() for ring in item.polygons], item.rle, item.crowd, item.difficult)
        for item in record.objects
    ]
    return record.label, record.semantic, record.instance_map, record.split, record.group, objects


def _names_in_several_folders(records: Sequence[Record]) -> list[Finding]:
    """Two images that differ by case only collide on many file systems; equal names in several folders are normal."""
    lower: dict[str, list[str]] = defaultdict(list)
    for record in records:
        lower[str(record.image).lower()].append(str(record.image))
    return [
        _finding(
            "duplicate-file-name",
            "warning",
            paths[0],
            f"{', '.join(paths)} differ by case only and would be one file on Windows and macOS; rename one",
            "kept",
        )
        for paths in lower.values()
        if len(paths) > 1
    ]


# ------------------------------------------------------------------------------------------------ records
def _checked(record: Record, dataset: Dataset) -> tuple[Record | None, list[Finding]]:
    count, where = len(dataset.classes), record.where or str(record.image)
    if record.label is not None and not 0 <= record.label < count:
        text = f"class number {record.label} does not exist; there are {count} classes, counted from 0"
        return None, [_finding("unknown-class", "error", where, text, "image dropped", label=record.label)]
    findings: list[Finding] = []
    known = [item for item in record.objects if 0 <= item.label < count]
    for item in record.objects:
        if not 0 <= item.label < count:
            text = f"class number {item.label} does not exist; there are {count} classes, counted from 0"
            found = _finding("unknown-class", "error", item.where or where, text, "object dropped", label=item.label)
            findings.append(found)
    record = replace(record, objects=known)
    size = record.size
    if size is not None and _any_outside(record, size) and _true_size(record) not in (None, size):
        size = None  # the annotation's size is wrong; check_images says so, and judges the objects by the file's
    record, found = check_objects_of(record, size)
    findings += found
    if dataset.task in ("detection", "instance") and not record.objects:
        findings.append(_no_objects(record, dropped=len([one for one in findings if one.severity == "error"])))
    return record, findings


def check_objects_of(record: Record, size: tuple[int, int] | None) -> tuple[Record, list[Finding]]:
    """The record with its objects judged against an image of `size`; see `check_object`."""
    findings: list[Finding] = []
    kept = []
    for item in record.objects:
        clean, found = check_object(item, size, where=record.where or str(record.image))
        findings += found
        if clean is not None:
            kept.append(clean)
    return (replace(record, objects=kept) if findings else record), findings


def _any_outside(record: Record, size: tuple[int, int]) -> bool:
    height, width = size
    return any(max(item.box[0::2]) > width or max(item.box[1::2]) > height for item in record.objects)


def _true_size(record: Record) -> tuple[int, int] | None:
    try:
        return read_header(record.image).size
    except DataError:
        return None


def _no_objects(record: Record, *, dropped: int) -> Finding:
    where = record.where or str(record.image)
    if dropped:
        text = (
            "all of its objects were faulty and dropped, so the image now counts as one on which nothing is to be seen"
        )
        return _finding("no-objects", "warning", where, text, "kept without objects", image=str(record.image))
    text = "the image has no objects; right if nothing is to be seen on it"
    return _finding("no-objects", "info", where, text, "kept as background", image=str(record.image))


# ------------------------------------------------------------------------------------------------ the whole
def _classes_without_samples(dataset: Dataset) -> list[Finding]:
    if dataset.task == "semantic" or not dataset.records:
        return []
    unit = "images" if dataset.task == "classification" else "objects"
    total = dataset.counts()
    findings = []
    for name, count in total.items():
        if count == 0:
            text = f"class {name!r} has no {unit}: nothing can be learned or measured; add some or remove the class"
            findings.append(_finding("empty-class", "warning", str(dataset.root), text, "kept", **{"class": name}))
    by_split: dict[str | None, Counter[int]] = defaultdict(Counter)
    for record in dataset.records:
        labels = [item.label for item in record.objects]
        by_split[record.split].update(labels if record.label is None else [record.label])
    for split in (name for name in by_split if name is not None):
        for label, name in enumerate(dataset.classes):
            if total[name] and not by_split[split][label]:
                text = (
                    f"class {name!r} has no {unit} in split {split!r}, of {total[name]} in all; split anew to mix them"
                )
                where = f"{dataset.root} (split {split})"
                findings.append(_finding("empty-class", "warning", where, text, "kept", **{"class": name}, split=split))
    return findings


def _splits_that_vanished(before: Dataset, after: Dataset) -> list[Finding]:
    left = after.splits
    return [
        _finding(
            "empty-split",
            "error",
            f"{before.root} (split {name})",
            f"none of the {count} images of split {name!r} can be used; see the other findings",
            "the split is gone",
        )
        for name, count in before.splits.items()
        if name is not None and name not in left
    ]


def _single_image(dataset: Dataset) -> list[Finding]:
    if len(dataset) != 1:
        return []
    text = "there is a single image: nothing is left to validate on, and scores will mean nothing; add images"
    return [_finding("single-image", "warning", str(dataset.root), text, "kept")]
