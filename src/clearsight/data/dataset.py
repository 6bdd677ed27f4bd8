"""A data set as its files describe it: records, classes, splits; nothing is decoded."""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import numpy as np

from clearsight.errors import DataError
from clearsight.types import Finding, Object, Record, Task

__all__ = ["Dataset"]


@dataclass(kw_only=True)
class Dataset:
    """Records of one data set, in a stable order.

    A record belongs to the split `record.split`. Lists that overlap those (Pascal VOC's `trainval` beside `train` and
    `val`) are kept by name in `record.attributes["lists"]`, so membership survives when records are dropped or
    selected; `split("trainval")` works either way.

    Args:
        records: one an image.
        classes: class names in label order.
        task: what the annotations allow.
        root: folder that holds the data; the annotation file's folder where a file was read.
        format: key of `clearsight.data.formats.FORMATS` that it was read with.
        findings: everything found while reading, in file order.
        attributes: what belongs to the whole and only some formats carry (COCO's `info`), plain JSON values.
    """

    records: list[Record]
    classes: tuple[str, ...]
    task: Task
    root: Path
    format: str
    findings: list[Finding] = field(default_factory=list)
    attributes: dict[str, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.records)

    @property
    def splits(self) -> dict[str | None, int]:
        """Images of each split and of each overlapping list; the key None counts images without a split."""
        found: Counter[str | None] = Counter(record.split for record in self.records)
        lists: Counter[str | None] = Counter(name for record in self.records for name in _lists(record))
        return dict(found + lists)

    def split(self, name: str | Sequence[str]) -> Dataset:
        """The records of one split or list, or of several together, in the order of `records`; same classes.

        Raises:
            DataError: a name is unknown or has no records; the message lists the splits there are.
        """
        wanted = (name,) if isinstance(name, str) else tuple(name)
        known = self.splits
        for one in wanted:
            if one not in known:
                raise DataError(self._no_split(one, known))
        chosen = set(wanted)
        records = [r for r in self.records if r.split in chosen or not chosen.isdisjoint(_lists(r))]
        return replace(self, records=records)

    def _no_split(self, name: str, known: dict[str | None, int]) -> str:
        there = ", ".join(f"{key} ({count} images)" for key, count in known.items() if key is not None)
        near = get_close_matches(name, [key for key in known if key is not None], n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        if not there:
            return f"{self.root}: no split {name!r}: its files name no splits ({len(self)} images without one)"
        return f"{self.root}: no images in split {name!r}; there are: {there}{hint}"

    def counts(self) -> dict[str, int]:
        """Annotated objects of each class, or images of each class for classification; 0 where a class has none."""
        labels: Counter[int] = Counter()
        for record in self.records:
            if record.label is not None:
                labels[record.label] += 1
            labels.update(item.label for item in record.objects)
        return {name: labels[index] for index, name in enumerate(self.classes)}

    def fingerprint(self) -> str:
        """SHA-256 over relative paths, file sizes and annotations.

        Does not depend on where `root` lies nor on the order of the records; changes when an image's size in bytes, a
        name, a class, a split or any annotated value changes. Files are not opened, only asked for their size.

        Returns:
            64 hexadecimal digits.
        """
        root = self.root if self.root.is_dir() else self.root.parent
        digests = sorted(_record_digest(record, root) for record in self.records)
        whole = hashlib.sha256(json.dumps([self.task, self.classes], ensure_ascii=True).encode())
        for digest in digests:
            whole.update(digest)
        return whole.hexdigest()


def _lists(record: Record) -> Sequence[str]:
    return record.attributes.get("lists", ())


def _record_digest(record: Record, root: Path) -> bytes:
    paths = [record.image, record.semantic, record.instance_map]
    files = [None if path is None else (os.path.relpath(path, root), _file_size(path)) for path in paths]
    head = [files, record.size, record.label, record.split, record.group, record.attributes]
    digest = hashlib.sha256(_canonical(head))
    for item in record.objects:
        digest.update(_canonical(_object_key(item)))
        for ring in item.polygons:
            digest.update(np.ascontiguousarray(ring, dtype=np.float64).tobytes() + b"|")
    return digest.digest()


def _object_key(item: Object) -> list[Any]:
    rle = None if item.rle is None else (item.rle.size, item.rle.counts)
    return [item.label, item.box, rle, item.crowd, item.difficult, len(item.polygons), item.attributes]


def _canonical(value: object) -> bytes:
    return json.dumps(value, sort_keys=True, ensure_ascii=True, default=str).encode()


def _file_size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return -1
