"""CSV: one row an image with its class, or one row an object with its box.

Columns are told by name, in any order and case: `path` (file, filename, image), `label` (class, category, target),
boxes `xmin ymin xmax ymax` (x1 y1 x2 y2, left top right bottom), and where there are such, `width height` of the image,
`split` and `group` (patient, subject). Further columns are kept as text. With box columns it is detection; a row with
an image and nothing else is then an image without objects.

Files are named relative to the table, else found anywhere below its folder by name. Several tables called train.csv,
val.csv, test.csv are splits. `classes.txt` beside them gives the label order; else whole numbers are sorted as numbers
and names as text.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from clearsight.data.class_names import ClassNames, names_found
from clearsight.data.dataset import Dataset
from clearsight.data.files import ImageIndex, list_images, printable
from clearsight.data.formats.csv_columns import find_columns, pick_delimiter
from clearsight.data.formats.csv_rows import Row, Table, fault, read_table
from clearsight.data.formats.csv_write import loses, write
from clearsight.data.formats.folder_names import SPLIT_FOLDERS, listed_classes
from clearsight.errors import DataError
from clearsight.types import Finding, Object, Record

__all__ = ["loses", "read", "sniff", "write"]

_SUFFIXES = (".csv", ".tsv")


def sniff(path: Path) -> bool:
    """Whether a file, or one directly in a folder, has a header with columns for images and labels or boxes."""
    if path.is_dir():
        return bool(_tables(path))
    if path.suffix.lower() not in _SUFFIXES:
        return False
    with path.open("rb") as file:
        line = file.readline(1 << 16).decode("utf-8-sig", "replace").rstrip("\r\n")
    return find_columns(line.split(pick_delimiter(line))).fits


def _tables(folder: Path) -> list[Path]:
    return sorted(one for one in folder.iterdir() if one.suffix.lower() in _SUFFIXES and one.is_file() and sniff(one))


def read(path: Path, *, classes: tuple[str, ...] | None = None) -> Dataset:
    """Read a table, or the tables of a folder.

    Args:
        path: a `.csv` or `.tsv` file, or a folder with some.
        classes: class names in label order. Where labels are whole numbers and no names, they count from 0 in it.

    Returns:
        Task `detection` where there are box columns, else `classification`. Further columns are in the attributes of
        the objects or records, as text.

    Raises:
        DataError: no table, no header, or no columns that could be images with labels.
    """
    findings: list[Finding] = []
    root = path if path.is_dir() else path.parent
    paths = _tables(path) if path.is_dir() else [path]
    if not paths:
        raise DataError(f"{path}: no table with columns for images and labels was found; expected a .csv with a header")
    tables = [read_table(one, findings) for one in paths]
    detection = any(table.columns.has_boxes for table in tables)
    names = classes or _class_names(tables, root, findings)
    source = _Source(root, ImageIndex(list_images(root)), _labels(names, tables, given=classes is not None), detection)
    records: list[Record] = []
    for table in tables:
        # A folder's tables called train, val, test are splits; a single file may be called anything.
        split = SPLIT_FOLDERS.get(table.path.stem.lower()) if path.is_dir() else None
        records += _records(table, split, source, findings)
    task = "detection" if detection else "classification"
    return Dataset(records=records, classes=names, task=task, root=root, format="csv", findings=findings)


# ------------------------------------------------------------------------------------------------ classes
def _class_names(tables: Sequence[Table], root: Path, findings: list[Finding]) -> tuple[str, ...]:
    used = [row.text(table.columns.place.get("label")) for table in tables for row in table.rows]
    names = names_found(name for name in used if name)
    listed = listed_classes(root, findings)
    if listed:
        there = {name.casefold() for name in listed}
        return (*listed, *(name for name in names if name.casefold() not in there))
    if names and all(_is_index(name) for name in names):
        names = tuple(sorted(names, key=int))
        if [int(name) for name in names] != list(range(len(names))):
            text = f"the class numbers {', '.join(names[:8])} skip; they are read as names, and labels count from 0"
            findings.append(fault("id-gap", "warning", printable(tables[0].path), text, "numbered anew"))
    if not names and any(table.columns.has_boxes for table in tables):
        return ("object",)  # boxes without a class column
    return names


def _is_index(text: str) -> bool:
    return text.isascii() and text.isdigit()


def _labels(names: tuple[str, ...], tables: Sequence[Table], *, given: bool) -> ClassNames:
    """Class names, or where they were given and the tables have only numbers, these numbers."""
    column = [(table, table.columns.place.get("label")) for table in tables]
    used = {row.text(place) for table, place in column for row in table.rows} - {""}
    if given and used and all(map(_is_index, used)) and used.isdisjoint(names):
        return ClassNames([str(number) for number in range(len(names))])
    return ClassNames(names)


# ------------------------------------------------------------------------------------------------ rows
class _Source(NamedTuple):
    """What every row is read with."""

    root: Path
    images: ImageIndex
    names: ClassNames
    detection: bool


def _records(table: Table, split: str | None, source: _Source, findings: list[Finding]) -> list[Record]:
    records: list[Record] = []
    by_image: dict[Path, Record] = {}
    found: dict[str, Path | None] = {}
    for row in table.rows:
        said = row.text(table.columns.place["path"])
        if said not in found:
            found[said] = _image(said, table.path.parent, source.images, row.where, findings)
        image = found[said]
        if image is None:
            continue
        record = by_image.get(image) if source.detection else None
        if record is None:
            record = _record(image, row, table, split, findings)
            records.append(record)
            by_image[image] = record
        if source.detection:
            item = _object(row, table, source, findings)
            record.objects += [] if item is None else [item]
        elif (label := _image_label(row, table, source, findings)) is None:
            records.pop()
        else:
            record.label = label
            record.attributes = _extras(row, table)
    return records


def _image(said: str, folder: Path, index: ImageIndex, where: str, findings: list[Finding]) -> Path | None:
    if not said:
        findings.append(fault("missing-image", "error", where, "the row names no image file", "row dropped"))
        return None
    name = said.replace("\\", "/")
    direct = folder / name
    if direct.is_file():
        return direct
    found = index.named(Path(name).name) or index.stemmed(Path(name).name)
    if len(found) == 1:
        return found[0]
    if found:
        several = ", ".join(str(image) for image in found[:4])
        text = f"{said!r} could be {len(found)} files ({several}); write the path from the table's folder"
        findings.append(fault("duplicate-file-name", "error", where, text, "its rows dropped"))
        return None
    text = f"{said!r} was not found in {printable(folder)} nor below it; restore the file or remove its rows"
    findings.append(fault("missing-image", "error", where, text, "its rows dropped"))
    return None


def _record(image: Path, row: Row, table: Table, split: str | None, findings: list[Finding]) -> Record:
    place = table.columns.place
    size = None
    width, height = row.text(place.get("width")), row.text(place.get("height"))
    if width and height:
        if _is_index(width) and _is_index(height):
            size = (int(height), int(width))
        else:
            text = f"width {width!r} and height {height!r} are no whole numbers of pixels"
            findings.append(fault("unreadable-annotation", "warning", row.where, text, "the image's own size is used"))
    return Record(
        image=image,
        size=size,
        split=row.text(place.get("split")) or split,
        group=row.text(place.get("group")) or None,
        where=row.where,
    )


def _extras(row: Row, table: Table) -> dict[str, object]:
    return {name: row.text(column) for name, column in table.columns.extra.items() if row.text(column)}


def _image_label(row: Row, table: Table, source: _Source, findings: list[Finding]) -> int | None:
    name = row.text(table.columns.place.get("label"))
    if not name:
        text = "the row has no class; fill it in or remove the row"
        findings.append(fault("image-without-label", "error", row.where, text, "row dropped"))
        return None
    return source.names.label(name, row.where, findings)


def _object(row: Row, table: Table, source: _Source, findings: list[Finding]) -> Object | None:
    name = row.text(table.columns.place.get("label"))
    try:
        box = table.box(row) if table.columns.has_boxes else None
    except ValueError as err:
        findings.append(
            fault("unreadable-annotation", "error", row.where, f"{err}; correct the cell", "object dropped")
        )
        return None
    if box is None and not name:
        return None  # an image without objects
    if box is None or (not name and "label" in table.columns.place):
        missing = "a class but no box" if box is None else "a box but no class"
        findings.append(
            fault("unreadable-annotation", "error", row.where, f"the row has {missing}; fill it in", "object dropped")
        )
        return None
    label = source.names.label(name, row.where, findings) if name else 0
    if label is None:
        return None
    return Object(label=label, box=box, attributes=_extras(row, table), where=row.where)
