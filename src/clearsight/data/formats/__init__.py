"""Annotation formats: one module each, all with the same four functions."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, Protocol

from clearsight.data.dataset import Dataset
from clearsight.data.formats import coco, csv_table, image_folder, instance_png, labelme, mask_png, voc, yolo
from clearsight.types import Finding

__all__ = ["FORMATS", "Format", "Reader"]


class Reader(Protocol):
    """The type of `read`."""

    def __call__(self, path: Path, *, classes: tuple[str, ...] | None = None) -> Dataset:
        """Read a data set; see `Format`."""
        ...


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


# The order is that of detection: the more particular a format's signs, the earlier it is asked.
FORMATS: dict[str, Format] = {
    "voc": Format(voc.read, voc.write, voc.loses, voc.sniff),
    "coco": Format(coco.read, coco.write, coco.loses, coco.sniff),
    "yolo": Format(yolo.read, yolo.write, yolo.loses, yolo.sniff),
    "labelme": Format(labelme.read, labelme.write, labelme.loses, labelme.sniff),
    "csv": Format(csv_table.read, csv_table.write, csv_table.loses, csv_table.sniff),
    "instance_png": Format(instance_png.read, instance_png.write, instance_png.loses, instance_png.sniff),
    "mask_png": Format(mask_png.read, mask_png.write, mask_png.loses, mask_png.sniff),
    "image_folder": Format(image_folder.read, image_folder.write, image_folder.loses, image_folder.sniff),
}
