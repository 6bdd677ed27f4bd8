"""Rows of a table with the line each begins on, and cells as values; every fault is told with its line."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from io import StringIO
from pathlib import Path
from typing import NamedTuple

from clearsight.data.files import printable, read_text
from clearsight.data.formats.csv_columns import BOX, Columns, find_columns, pick_delimiter
from clearsight.errors import DataError
from clearsight.types import Finding, Severity

__all__ = ["Row", "Table", "fault", "read_table"]


# Boxes written in other ways; read as classification, their rows would look like images with several labels.
_OTHER_BOXES = frozenset({"x", "y", "bbox", "xmin", "xmax", "x_min", "x_max", "x1", "x2", "x_center", "cx"})


class Row(NamedTuple):
    """The cells of one row, and `file:line` of where it begins."""

    cells: list[str]
    where: str

    def text(self, column: int | None) -> str:
        """A cell without the space around it; empty where the table has no such column."""
        return "" if column is None else self.cells[column].strip()


class Table(NamedTuple):
    """A table that was read."""

    path: Path
    columns: Columns
    rows: list[Row]
    decimal_comma: bool

    def number(self, text: str) -> float:
        """A number, with a decimal comma where the comma does not separate columns.

        Raises:
            ValueError: it is none.
        """
        return float(text.replace(",", ".") if self.decimal_comma else text)

    def box(self, row: Row) -> tuple[float, float, float, float] | None:
        """The box of a row; None where all four cells are empty.

        Raises:
            ValueError: a cell is no number; the message is for people.
        """
        cells = [(name, row.text(self.columns.place[name])) for name in BOX]
        if not any(text for _, text in cells):
            return None
        values = []
        for name, text in cells:
            try:
                values.append(self.number(text))
            except ValueError:
                raise ValueError(f"{name} is {text!r}, a number was expected") from None
        return values[0], values[1], values[2], values[3]


def fault(id_: str, severity: Severity, where: str, text: str, action: str) -> Finding:
    """A finding about a row."""
    return Finding(id=id_, severity=severity, where=where, explanation=text, action=action)


def read_table(path: Path, findings: list[Finding]) -> Table:
    """Read a CSV file with a header: comma, semicolon or tab, UTF-8 with or without byte order mark.

    Raises:
        DataError: no header, a column twice, or no columns for the file name and for labels or boxes.
    """
    text = read_text(path, findings)
    if not text.strip():
        raise DataError(f"{printable(path)}: the file is empty; expected a header with columns such as path,label")
    first = text.lstrip("\r\n").split("\n", 1)[0]
    delimiter = pick_delimiter(first)
    rows = _rows(text, delimiter, path, findings)
    header = next(rows).cells
    columns = find_columns(header)
    named = [name.strip().lower() for name in header if name.strip()]
    double = sorted({name for name in named if named.count(name) > 1})
    if double:
        raise DataError(f"{printable(path)}:1: column {double[0]!r} occurs more than once; rename or remove one")
    if not columns.fits or (not columns.has_boxes and not _OTHER_BOXES.isdisjoint(named)):
        raise DataError(
            f"{printable(path)}:1: the header has the columns {', '.join(map(repr, header))}; expected one for the "
            "image file (path, file, filename or image) and one for the class (label, class or target), for boxes also "
            "xmin, ymin, xmax and ymax; add a header line, or rename or compute columns"
        )
    kept = []
    for row in rows:
        if len(row.cells) == columns.count:
            kept.append(row)
            continue
        said = f"the row has {len(row.cells)} columns, the header has {columns.count}; correct the line"
        findings.append(fault("unreadable-annotation", "error", row.where, said, "row dropped"))
    return Table(path, columns, kept, delimiter != ",")


def _rows(text: str, delimiter: str, path: Path, findings: list[Finding]) -> Iterator[Row]:
    """Rows that are not blank, with the line each begins on."""
    reader = csv.reader(StringIO(text, newline=""), delimiter=delimiter)
    while True:
        line = reader.line_num + 1
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as err:
            where = f"{printable(path)}:{line}"
            said = f"the line cannot be read ({err}); look for a quotation mark that is not closed"
            findings.append(fault("unreadable-annotation", "error", where, said, "it and all lines after it dropped"))
            return
        if any(cell.strip() for cell in cells):
            yield Row(cells, f"{printable(path)}:{line}")
