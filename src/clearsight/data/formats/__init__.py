"""Annotation formats: one module each, all with the same four functions."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple, Protocol

from clearsight.data.dataset import Dataset
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


_NAMES = ("voc", "coco", "yolo", "labelme", "csv", "instance_png", "mask_png", "image_folder")
# The order is that of detection: the more particular a format's signs, the earlier it is asked.
FORMATS: dict[str, Format] = {}
for _name in _NAMES:
    if find_spec(f"{__name__}.{_name}") is not None:
        _module = import_module(f"{__name__}.{_name}")
        FORMATS[_name] = Format(_module.read, _module.write, _module.loses, _module.sniff)
