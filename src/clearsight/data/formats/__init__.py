"""Annotation formats: one module each, all with the same four functions."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, Protocol

from clearsight.data.dataset import Dataset
from clearsight.data.formats import coco, csv_table, image_folder, instance_png, labelme, mask_png, voc, yolo
from clearsight.types import Finding

__all__ = ["FORMATS", "Format"]


class Reader(Protocol):
    """The type of `read`."""

    def __call__(self, path: Path, *, classes: tuple[str, ...] | None = None) -> Dataset: ...


class Format(NamedTuple):
    """What a format module offers.

    Args:
        read: parses annotations, never pixels; collects every fault as a finding and drops just the faulty items.
        write: writes labels and images below a folder; gives what could not be carried.
        loses: what `write` could not carry for this data set, without writing.
        sniff: whether a path looks like the format; cheap.
    """

    read: Reader
    write: Callable[[Dataset, Path], list[Finding]]
    loses: Callable[[Dataset], list[Finding]]
    sniff: Callable[[Path], bool]


_MODULES = {
    # The order is that of detection: the more particular a format's signs, the earlier it is asked.
    "voc": voc,
    "coco": coco,
    "yolo": yolo,
    "labelme": labelme,
    "csv": csv_table,
    "instance_png": instance_png,
    "mask_png": mask_png,
    "image_folder": image_folder,
}
FORMATS: dict[str, Format] = {
    name: Format(module.read, module.write, module.loses, module.sniff) for name, module in _MODULES.items()
}
