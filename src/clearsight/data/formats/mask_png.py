"""Semantic masks: a folder of images beside a folder of masks, one class a pixel.

Layout: `images/NAME.ext` and `masks/NAME.png` (also image, img; mask, label(s), semantic, SegmentationClass), the two
below the root or below train, val and test, or with these below the two.

Masks are grey or palette PNGs (or TIFFs). The pixel value, of palettes the index, is the class, and 255 is ignored.
Where all grey masks of the data set have only the values 0 and 255, they are binary instead: 255 is class 1 and nothing
is ignored. `classes.txt`, one name a line from class 0 on, names the classes; else they are called `background` and
`foreground` in binary masks, `class 0`, `class 1`, … in others.

The masks are the annotations, so they are decoded when the data set is read; the images are not.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np

from clearsight.data.carry import lost, lost_by, not_placed
from clearsight.data.class_map import BINARY, IGNORED
from clearsight.data.dataset import Dataset
from clearsight.data.decode import read_index_map
from clearsight.data.files import output_names, place_image, printable, write_text
from clearsight.data.formats.folder_names import listed_classes
from clearsight.data.formats.image_pairs import find_pairs, has_pairs
from clearsight.data.image_header import read_header
from clearsight.errors import DataError
from clearsight.types import Finding, Record

__all__ = ["loses", "read", "sniff", "write"]

_FOLDERS = frozenset({"label", "labels", "mask", "masks", "segmentationclass", "semantic"})


def sniff(path: Path) -> bool:
    """Whether a folder of images lies beside one of masks."""
    return has_pairs(path, _FOLDERS)


def read(path: Path, *, classes: tuple[str, ...] | None = None) -> Dataset:
    """Pair images with masks and look at every value of the masks.

    Args:
        path: the root.
        classes: class names from class 0 on; two for binary masks, the one for 0 first.

    Returns:
        Task `semantic`; `Record.attributes["mask"]` is `index`, `palette` or `binary` (`class_map.read_class_map` reads
        them all alike).

    Raises:
        DataError: binary masks, and not two classes.
    """
    findings: list[Finding] = []
    pairs = find_pairs(path, _FOLDERS, findings)
    with ThreadPoolExecutor() as pool:
        looks = list(pool.map(_look, (pair.map for pair in pairs)))
    good = [look for look in looks if isinstance(look, _Look)]
    grey = np.unique(np.concatenate([np.zeros(0, np.int64), *(one.values for one in good if not one.palette)]))
    binary = len(grey) > 0 and set(grey.tolist()) <= {0, IGNORED} and IGNORED in grey
    names = classes or listed_classes(path, findings) or _default_names(good, binary=binary)
    if binary and len(names) != 2:
        raise DataError(
            f"{path}: the masks have the values 0 and 255, which are two classes; {len(names)} were named "
            f"({', '.join(names)}); name two, the one of 0 first"
        )
    records = []
    for pair, look in zip(pairs, looks, strict=True):
        found = look if isinstance(look, Finding) else _unknown_values(look, pair.map, names, binary=binary)
        if found is not None:
            findings.append(found)
        elif isinstance(look, _Look):
            kind = "palette" if look.palette else BINARY if binary else "index"
            where = str(pair.map)
            records.append(
                Record(image=pair.image, semantic=pair.map, split=pair.split, where=where, attributes={"mask": kind})
            )
    return Dataset(records=records, classes=names, task="semantic", root=path, format="mask_png", findings=findings)


class _Look(NamedTuple):
    """What a mask holds: its values ascending, how often each, and whether they are palette indices."""

    values: np.ndarray
    counts: np.ndarray
    palette: bool


def _look(path: Path) -> _Look | Finding:
    try:
        palette = read_header(path).channels > 1
        values, counts = np.unique(read_index_map(path), return_counts=True)
    except DataError as err:
        return err.findings[0]
    return _Look(values.astype(np.int64), counts, palette)


def _default_names(looks: Sequence[_Look], *, binary: bool) -> tuple[str, ...]:
    if binary:
        return ("background", "foreground")
    highest = max((int(look.values[look.values < IGNORED].max(initial=0)) for look in looks), default=0)
    return tuple(f"class {number}" for number in range(highest + 1))


def _unknown_values(look: _Look, path: Path, names: Sequence[str], *, binary: bool) -> Finding | None:
    if binary and not look.palette:
        return None
    unknown = (look.values >= len(names)) & (look.values != IGNORED)
    if not unknown.any():
        return None
    values, count = look.values[unknown].tolist(), int(look.counts[unknown].sum())
    shown = ", ".join(map(str, values[:5])) + (", …" if len(values) > 5 else "")
    return Finding(
        id="unknown-class",
        severity="error",
        where=printable(path),
        explanation=f"{count} pixels have the values {shown}; there are classes 0 to {len(names) - 1}, and 255 for "
        "ignored; name all classes, or correct the mask",
        action="image dropped",
        evidence={"values": values[:50], "pixels": count},
    )


# ------------------------------------------------------------------------------------------------ writing
def loses(dataset: Dataset) -> list[Finding]:
    """Everything but semantic maps and the splits train, val and test."""
    findings = lost_by(dataset, "mask PNG", carries={"semantic", "splits"}, record_key=lambda key, value: key == "mask")
    bare = sum(record.semantic is None for record in dataset.records)
    if bare:
        findings.append(lost(dataset, "mask PNG", f"images without a semantic map ({bare})", bare))
    odd = sorted(
        {record.split for record in dataset.records if record.split not in (None, "train", "val", "test")}, key=str
    )
    if odd:
        findings.append(
            lost(dataset, "mask PNG", f"splits other than train, val and test ({', '.join(map(str, odd))})", 1)
        )
    return findings


def write(dataset: Dataset, out: Path) -> list[Finding]:
    """Write `[SPLIT/]images/NAME`, `[SPLIT/]masks/STEM.ext` and `classes.txt` below `out`; masks stay as they are.

    Returns:
        What was lost, and images that could not be placed.
    """
    findings = loses(dataset)
    for record, name in zip(dataset.records, output_names(dataset.records, dataset.root), strict=True):
        if record.semantic is None:
            continue
        top = out / record.split if record.split in ("train", "val", "test") else out
        try:
            place_image(record.semantic, top / "masks" / f"{Path(name).stem}{record.semantic.suffix}")
            place_image(record.image, top / "images" / name)
        except OSError as err:
            findings.append(not_placed(record, err))
    write_text(out / "classes.txt", "".join(f"{name}\n" for name in dataset.classes))
    return findings
