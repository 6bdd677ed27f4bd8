"""Every image file opened once: is it there, is it whole, is it the size that its annotation says?"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from clearsight.data.check_records import check_objects_of
from clearsight.data.dataset import Dataset
from clearsight.data.decode import read_index_map
from clearsight.data.image_damage import find_damage
from clearsight.data.image_header import ImageHeader, read_header
from clearsight.data.in_threads import in_threads
from clearsight.errors import DataError
from clearsight.types import Finding, Record, Severity

__all__ = ["check_images"]

_MAPS_ARE_READ = frozenset({"instance_png", "mask_png"})
"""Formats whose reader has decoded every map already."""

Judged = tuple[Record | None, ImageHeader | None, list[Finding]]


def check_images(dataset: Dataset, *, decode: bool, workers: int = 0) -> Dataset:
    """Open every file that the records name and compare it with what they say.

    Images that are missing, empty, cut off, no images, or too large to decode are dropped, as are those whose size is
    not the annotated one (unless width and height are merely exchanged and the objects fit the file: then the file is
    believed). Objects of annotations without a size are judged here. `Record.size` is the file's afterwards.

    Args:
        dataset: after `check_records`; not changed.
        decode: decode every pixel. Otherwise headers are read, and only files whose end looks cut off are decoded.
        workers: threads; 0 takes one a core, at most 16.

    Returns:
        The cleaned data set; findings are in the order of the records, whatever the number of threads.

    Cost: about 0.1 ms an image for headers.
    """
    splits = {record.split for record in dataset.records}
    decode_maps = decode and dataset.format not in _MAPS_ARE_READ

    def judge(record: Record) -> Judged:
        return _judged(record, decode=decode, decode_maps=decode_maps)

    results = list(in_threads(judge, dataset.records, workers=workers, title="Checking images"))
    records = [record for record, _, _ in results if record is not None]
    findings = [finding for _, _, found in results for finding in found]
    headers = [header for record, header, _ in results if record is not None and header is not None]
    findings += _mixed(headers, str(dataset.root))
    left = {record.split for record in records}
    findings += [_vanished(dataset, split) for split in sorted(name for name in splits - left if name is not None)]
    return replace(dataset, records=records, findings=[*dataset.findings, *findings])


def _judged(record: Record, *, decode: bool, decode_maps: bool) -> Judged:
    try:
        header = read_header(record.image)
        damage = find_damage(record.image) if decode or not header.complete else ""
    except DataError as err:
        return None, None, [_with_label(finding, record) for finding in err.findings]
    findings = [_damaged(record, damage)] if damage else []
    for path in filter(None, (record.semantic, record.instance_map)):  # first: its objects have the map's size
        fault = _map_fault(path, header, record, decode=decode_maps)
        if fault is not None:
            return None, None, [*findings, fault]
    clean, found = _of_true_size(record, header)
    return clean, header if clean is not None else None, [*findings, *found]


def _damaged(record: Record, damage: str) -> Finding:
    text = f"the file can be decoded, but is damaged ({damage}), so a part of the picture may be wrong; look at it"
    return Finding(id="damaged-image", severity="warning", where=str(record.image), explanation=text, action="kept")


def _with_label(finding: Finding, record: Record) -> Finding:
    """The finding about an image, with where the image was named."""
    if not record.where or record.where == finding.where:
        return replace(finding, action="image dropped")
    return replace(finding, action="image dropped", evidence={**finding.evidence, "annotation": record.where})


# ------------------------------------------------------------------------------------------------ sizes
def _of_true_size(record: Record, header: ImageHeader) -> tuple[Record | None, list[Finding]]:
    """The record with the file's size and its objects judged against it, or None where the sizes contradict."""
    said, true = record.size, header.size
    if said == true:
        return record, []
    findings: list[Finding] = []
    if said is not None:
        height, width = true
        fits = all(
            item.box[0] >= 0 and item.box[1] >= 0 and item.box[2] <= width and item.box[3] <= height
            for item in record.objects
        )
        swapped = said == (true[1], true[0])
        # Where the EXIF turn explains the exchange, the objects were drawn on the unturned picture.
        usable = not record.objects or (swapped and fits and header.orientation < 5)
        findings.append(_size_mismatch(record, header, swapped=swapped, usable=usable))
        if not usable:
            return None, findings
    record, found = check_objects_of(replace(record, size=true), true)
    return record, [*findings, *found]


def _size_mismatch(record: Record, header: ImageHeader, *, swapped: bool, usable: bool) -> Finding:
    said, true = record.size or (0, 0), header.size
    text = f"the annotation says {said[1]} × {said[0]} pixels, the file has {true[1]} × {true[0]}"
    if swapped and header.orientation >= 5:
        text += (
            f": its EXIF orientation {header.orientation} turns it by a quarter, the annotation was made without "
            "that turn; annotate it again, or rewrite the image without the EXIF tag"
        )
    elif swapped:
        text += ": width and height are exchanged in the annotation; correct its size"
    else:
        text += ": not the same picture, or resized since; restore the image or annotate it again"
    return Finding(
        id="size-mismatch",
        severity="warning" if usable else "error",
        where=record.where or str(record.image),
        explanation=text,
        action="the file's size is used" if usable else "image dropped",
        evidence={"image": str(record.image), "annotated": list(said), "file": list(true)},
    )


def _map_fault(path: Path, header: ImageHeader, record: Record, *, decode: bool) -> Finding | None:
    """What is wrong with a semantic or instance map; None where nothing is."""
    try:
        found = read_header(path)
        if decode or not found.complete:
            read_index_map(path)
    except DataError as err:
        return _with_label(err.findings[0], record)
    if found.size == header.size:
        return None
    (height, width), (map_height, map_width) = header.size, found.size
    return Finding(
        id="size-mismatch",
        severity="error",
        where=str(path),
        explanation=f"the map is {map_width} × {map_height} pixels, its image {record.image.name} {width} × {height}: "
        "made of another picture, or one of them resized since; they must be equal",
        action="image dropped",
        evidence={"image": str(record.image), "map": list(found.size), "file": list(header.size)},
    )


# ------------------------------------------------------------------------------------------------ the whole
def _mixed(headers: Sequence[ImageHeader], root: str) -> list[Finding]:
    """Alpha, and images of several depths or numbers of channels in one data set."""
    found: list[tuple[str, Severity, str, Counter[int]]] = []
    alpha = Counter(header.channels for header in headers if header.alpha)
    if alpha:
        text = f"{alpha.total()} of {len(headers)} images have an alpha channel; only data.channels=4 keeps it"
        found.append(("alpha-channel", "info", text, alpha))
    # Grey is repeated and alpha dropped, so only other numbers of channels are odd beside RGB.
    colours = Counter(header.channels - header.alpha for header in headers)
    if len(set(colours) - {1}) > 1:
        numbers = ", ".join(f"{count} images with {number}" for number, count in sorted(colours.items()))
        text = f"the numbers of channels differ: {numbers}; only images that fit data.channels can be read"
        found.append(("mixed-channels", "warning", text, colours))
    bits = Counter(header.bits for header in headers)
    if len(bits) > 1:
        text = f"{bits[8]} images have 8 bits a channel and {bits[16]} have 16, so their values differ 257-fold"
        found.append(("mixed-depth", "warning", f"{text}; convert them to one depth", bits))
    return [
        Finding(
            id=fault,
            severity=severity,
            where=root,
            explanation=text,
            action="kept",
            evidence={str(number): count for number, count in sorted(counts.items())},
        )
        for fault, severity, text, counts in found
    ]


def _vanished(dataset: Dataset, split: str) -> Finding:
    count = dataset.splits[split]
    return Finding(
        id="empty-split",
        severity="error",
        where=f"{dataset.root} (split {split})",
        explanation=f"none of the {count} images of split {split!r} can be used; see the other findings",
        action="the split is gone",
    )
