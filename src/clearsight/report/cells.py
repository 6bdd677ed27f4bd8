"""What tables of a report are made of."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

from clearsight.report.numbers import count, score

__all__ = ["Cell", "Column", "Table", "count_cell", "number_cell", "score_cell"]


class Column(NamedTuple):
    """A column's head.

    Args:
        name: as printed.
        number: right-aligned, sorted as a number.
        help: what it means; shown when the pointer rests on it.
    """

    name: str
    number: bool = True
    help: str = ""


class Cell(NamedTuple):
    """One cell.

    Args:
        text: as printed.
        sort: what it sorts by; NaN sorts last.
        color: a swatch before the text, or "".
        whisker: `(low, value, high)` in [0, 1], drawn as a dot on a line, or None.
        share: a bar of this part of the cell, or None.
    """

    text: str
    sort: float | str = ""
    color: str = ""
    whisker: tuple[float, float, float] | None = None
    share: float | None = None


class Table(NamedTuple):
    """A table with its words.

    Args:
        id: unique in the page.
        title: heading.
        help: how to read it.
        columns: heads.
        rows: one cell a column.
    """

    id: str
    title: str
    help: str
    columns: list[Column]
    rows: list[list[Cell]]


def number_cell(value: float, text: str) -> Cell:
    """A number as it is printed; one that is not finite sorts last."""
    return Cell(text, value if math.isfinite(value) else math.nan)


def score_cell(row: Mapping[str, Any], key: str) -> Cell:
    """A figure between 0 and 1 of a row; a dash where it has none."""
    value = float(row.get(key, math.nan))
    return number_cell(value, score(value))


def count_cell(row: Mapping[str, Any], key: str) -> Cell:
    """A whole number of a row; a dash where it has none."""
    value = float(row.get(key, math.nan))
    return number_cell(value, count(value))
