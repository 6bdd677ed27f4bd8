"""Instance maps: a folder of images beside a folder of maps in which each object has its own number.

Layout: `images/NAME.ext` and `instances/NAME.png`, 8- or 16-bit, 0 is background; the two below the root or below
train, val and test, or with these below the two. `instances.csv` (columns `map,instance,class`, paths from the root)
gives the class of each object; without it there is one class, named by `classes.txt` or called `object`.

The maps are the annotations, so they are decoded when the data set is read; the images are not.
"""

from __future__ import annotations

import csv
import os
from concurrent.futures import ThreadPoolExecutor
from io import StringIO
from pathlib import Path

import numpy as np
from PIL import Image

from clearsight.data.carry import lost, lost_by, not_placed
from clearsight.data.class_names import ClassNames, names_found
from clearsight.data.dataset import Dataset
from clearsight.data.decode import image_size, read_index_map
from clearsight.data.files import output_names, place_image, printable, read_text, write_text
from clearsight.data.formats.folder_names import listed_classes
from clearsight.data.formats.image_pairs import find_pairs, has_pairs
from clearsight.data.formats.instance_map import Instance, draw_instances, split_instances
from clearsight.errors import DataError
from clearsight.types import Finding, Object, Record

__all__ = ["loses", "read", "sniff", "write"]

_FOLDERS = frozenset({"instance", "instances", "instance_maps", "instance_masks"})
_TABLE = "instances.csv"


def sniff(path: Path) -> bool:
    """Whether a folder of images lies beside one of instance maps."""
    return has_pairs(path, _FOLDERS)


def read(path: Path, *, classes: tuple[str, ...] | None = None) -> Dataset:
    """Pair images with maps and take every object out of its map.

    Args:
        path: the root.
        classes: class names in label order.

    Returns:
        Task `instance`; objects in the order of their numbers, each with its box, its run-length mask and
        `attributes["instance"]`, its number; `Record.instance_map` is the file.
    """
    findings: list[Finding] = []
    pairs = find_pairs(path, _FOLDERS, findings)
    table = _read_table(path, findings)
    named = classes or listed_classes(path, findings)
    names = named or names_found(name for name, _ in table.values()) or ("object",)
    known = ClassNames(names)
    with ThreadPoolExecutor() as pool:
        looks = list(pool.map(_look, (pair.map for pair in pairs)))
    records = []
    for pair, look in zip(pairs, looks, strict=True):
        if isinstance(look, Finding):
            findings.append(look)
            continue
        record = Record(image=pair.image, instance_map=pair.map, split=pair.split, where=str(pair.map))
        inside = pair.map.relative_to(path).as_posix()
        for number, box, rle in look:
            where = f"{pair.map}#{number}"
            label = _label(inside, number, table, known, where, findings)
            if label is not None:
                attributes = {"instance": number}
                record.objects.append(Object(label=label, box=box, rle=rle, attributes=attributes, where=where))
        records.append(record)
    return Dataset(records=records, classes=names, task="instance", root=path, format="instance_png", findings=findings)


def _look(path: Path) -> list[Instance] | Finding:
    try:
        return split_instances(read_index_map(path))
    except DataError as err:
        return err.findings[0]


def _label(name: str, number: int, table: Table, known: ClassNames, where: str, findings: list[Finding]) -> int | None:
    if (name, number) in table:
        said, line = table[name, number]
        return known.label(said, line, findings)
    if not table and len(known.names) == 1:
        return 0
    why = f"{_TABLE} has no row for it" if table else f"there are {len(known.names)} classes and no {_TABLE}"
    text = f"the class of object {number} is not known: {why}"
    findings.append(
        Finding(id="unknown-class", severity="error", where=where, explanation=text, action="object dropped")
    )
    return None


Table = dict[tuple[str, int], tuple[str, str]]
"""Class and `file:line` by map and number."""


def _read_table(root: Path, findings: list[Finding]) -> Table:
    path = root / _TABLE
    if not path.is_file():
        return {}
    table: Table = {}
    reader = csv.reader(StringIO(read_text(path, findings), newline=""))
    for row in reader:
        where = f"{printable(path)}:{reader.line_num}"
        if len(row) == 3 and row[1].strip().isdecimal():
            table[row[0].strip(), int(row[1])] = (row[2], where)
        elif row and reader.line_num > 1:  # the first line is the header
            text = f"the row has the cells {row}; expected map,instance,class"
            findings.append(
                Finding(
                    id="unreadable-annotation", severity="error", where=where, explanation=text, action="row dropped"
                )
            )
    return table


# ------------------------------------------------------------------------------------------------ writing
def loses(dataset: Dataset) -> list[Finding]:
    """Objects without a mask, polygons as such, pixels that several objects share, flags, and splits of other names."""
    target = "instance PNG"
    carried = {"boxes", "rle", "polygons", "instance_maps", "splits"}
    findings = lost_by(dataset, target, carries=carried, object_key=lambda key, value: key in ("instance", "fill"))
    items = [item for record in dataset.records for item in record.objects]
    boxes = sum(item.rle is None and not item.polygons for item in items)
    if boxes:
        findings.append(lost(dataset, target, f"objects that have only a box ({boxes})", boxes))
    outlines = sum(bool(item.polygons) for item in items)
    if outlines:
        findings.append(lost(dataset, target, f"outlines finer than a pixel ({outlines} objects)", outlines))
    if dataset.task not in ("instance", "detection"):
        findings.append(lost(dataset, target, f"anything of a data set for {dataset.task}", len(dataset)))
    shared = sum(_drawn(record)[1] for record in dataset.records if outlines or len(record.objects) > 1)
    if shared:
        findings.append(lost(dataset, target, f"pixels that several objects share ({shared})", shared))
    odd = sorted({record.split for record in dataset.records} - {None, "train", "val", "test"}, key=str)
    if odd:
        findings.append(lost(dataset, target, f"splits other than train, val and test ({', '.join(map(str, odd))})", 1))
    return findings


def _drawn(record: Record) -> tuple[np.ndarray, int]:
    size = record.size or next((item.rle.size for item in record.objects if item.rle is not None), None)
    return draw_instances(record.objects, size or image_size(record.image), _numbers(record))


def _numbers(record: Record) -> list[int]:
    """The numbers that the objects had, if these are usable and differ, else 1, 2, …."""
    had = [item.attributes.get("instance") for item in record.objects]
    usable = [number for number in had if isinstance(number, int) and 0 < number < 65536]
    if len(set(usable)) == len(had):
        return usable
    return list(range(1, len(had) + 1))


def write(dataset: Dataset, out: Path) -> list[Finding]:
    """Write `[SPLIT/]images/NAME`, 16-bit `[SPLIT/]instances/STEM.png`, `instances.csv` and `classes.txt` below `out`.

    Returns:
        What was lost, and images that could not be placed.
    """
    findings = loses(dataset)
    table = StringIO()
    rows = csv.writer(table, lineterminator="\n")
    rows.writerow(["map", "instance", "class"])
    for record, name in zip(dataset.records, output_names(dataset.records, dataset.root), strict=True):
        split = f"{record.split}/" if record.split in ("train", "val", "test") else ""
        inside = f"{split}instances/{Path(name).stem}.png"
        try:
            _save(_drawn(record)[0], out / inside)
            place_image(record.image, out / f"{split}images" / name)
        except (DataError, OSError) as err:
            findings.append(not_placed(record, err))
            continue
        for item, number in zip(record.objects, _numbers(record), strict=True):
            rows.writerow([inside, number, dataset.classes[item.label]])
    if len(dataset.classes) > 1:
        write_text(out / _TABLE, table.getvalue())
    write_text(out / "classes.txt", "".join(f"{name}\n" for name in dataset.classes))
    return findings


def _save(numbers: np.ndarray, path: Path) -> None:
    """A 16-bit grey PNG, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        Image.fromarray(numbers).save(part, "PNG")
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
