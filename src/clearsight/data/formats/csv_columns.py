"""What the columns of a table mean, told by their names."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["BOX", "Columns", "find_columns", "pick_delimiter"]

BOX = ("xmin", "ymin", "xmax", "ymax")

# The first of each is what the writer calls it.
_NAMES: dict[str, tuple[str, ...]] = {
    "path": (
        "path",
        "file",
        "filename",
        "file_name",
        "filepath",
        "file_path",
        "image",
        "image_path",
        "image_name",
        "img",
    ),
    "label": ("label", "class", "class_name", "classname", "category", "target"),
    "xmin": ("xmin", "x_min", "x1", "left"),
    "ymin": ("ymin", "y_min", "y1", "top"),
    "xmax": ("xmax", "x_max", "x2", "right"),
    "ymax": ("ymax", "y_max", "y2", "bottom"),
    "width": ("width", "image_width", "img_width"),
    "height": ("height", "image_height", "img_height"),
    "split": ("split", "subset", "set", "fold"),
    "group": ("group", "patient", "patient_id", "subject"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Columns:
    """Which column means what.

    Args:
        place: column number by meaning (`path`, `label`, `xmin`, …), only of those that the table has.
        extra: column number by its own name, of those that mean nothing here.
        count: columns of the table.
    """

    place: dict[str, int]
    extra: dict[str, int]
    count: int

    @property
    def has_boxes(self) -> bool:
        """Whether all four corners of boxes have a column."""
        return all(name in self.place for name in BOX)

    @property
    def fits(self) -> bool:
        """Whether this is a table of images with labels or boxes."""
        return "path" in self.place and ("label" in self.place or self.has_boxes)


def find_columns(header: Sequence[str]) -> Columns:
    """Tell columns by their names, whatever their case; of several for one meaning, the first name listed wins."""
    lower: dict[str, int] = {}
    for number, name in enumerate(header):
        lower.setdefault(name.strip().lower().replace(" ", "_"), number)
    place: dict[str, int] = {}
    for meaning, names in _NAMES.items():
        found = next((lower[name] for name in names if name in lower), None)
        if found is not None:
            place[meaning] = found
    used = set(place.values())
    extra = {name.strip(): number for number, name in enumerate(header) if number not in used and name.strip()}
    return Columns(place=place, extra=extra, count=len(header))


def pick_delimiter(line: str) -> str:
    """Comma, semicolon or tab: the one that gives the header the most columns whose names are known, then the most."""

    def known(delimiter: str) -> tuple[int, int]:
        try:
            header = next(csv.reader([line], delimiter=delimiter), [])
        except csv.Error:
            return 0, 0
        return len(find_columns(header).place), len(header)

    return max((",", ";", "\t"), key=known)
