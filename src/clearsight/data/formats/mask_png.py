"""Semantic masks: a folder of images beside a folder of masks, one class a pixel.

Layout: `images/NAME.ext` and `masks/NAME.png` (also image, img; mask, label(s), semantic, SegmentationClass), the two
below the root or below train, val and test, or with these below the two.

Masks are grey or palette PNGs (or TIFFs). The pixel value, of palettes the index, is the class, and 255 is ignored.
Where all grey masks of the data set have only the values 0 and 255, they are binary instead: 255 is class 1 and nothing
is ignored. Their edges may be soft (`mask_values.are_binary`): of grey values between, 128 and more are class 1, with a
warning; a mask of which more than 1 % is grey is an error, unless two classes are named. `classes.txt`, one name a line
from class 0 on, names the classes; else they are called `background` and `foreground` in binary masks, `class 0`,
`class 1`, … in others.

The masks are the annotations, so they are decoded when the data set is read; the images are not.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from clearsight.data.carry import lost, lost_by, not_placed
from clearsight.data.class_map import BINARY
from clearsight.data.dataset import Dataset
from clearsight.data.decode import read_index_map
from clearsight.data.files import output_names, place_image, write_text
from clearsight.data.formats.folder_names import listed_classes
from clearsight.data.formats.image_pairs import find_pairs, has_pairs
from clearsight.data.formats.mask_values import (
    MaskLook,
    are_binary,
    class_pixels,
    default_names,
    empty_classes,
    judge_mask,
)
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
    good = [look for look in looks if isinstance(look, MaskLook)]
    named = classes or listed_classes(path, findings)
    binary = are_binary(good, len(named or ()))
    names = named or default_names(good, binary=binary)
    if binary and len(names) != 2:
        raise DataError(
            f"{path}: the masks have the values 0 and 255, which are two classes; {len(names)} were named "
            f"({', '.join(names)}); name two, the one of 0 first"
        )
    records, pixels = [], []
    for pair, look in zip(pairs, looks, strict=True):
        found = (
            [look] if isinstance(look, Finding) else judge_mask(look, pair.map, names, binary=binary, named=bool(named))
        )
        findings += found
        if isinstance(look, Finding) or any(finding.severity == "error" for finding in found):
            continue
        kind = "palette" if look.palette else BINARY if binary else "index"
        where = str(pair.map)
        records.append(
            Record(image=pair.image, semantic=pair.map, split=pair.split, where=where, attributes={"mask": kind})
        )
        pixels.append(class_pixels(look, len(names), binary=binary))
    findings += empty_classes(pixels, [record.split for record in records], names, path, named=bool(named) or binary)
    return Dataset(records=records, classes=names, task="semantic", root=path, format="mask_png", findings=findings)


def _look(path: Path) -> MaskLook | Finding:
    try:
        palette = read_header(path).channels > 1
        pixels = read_index_map(path)
    except DataError as err:
        return err.findings[0]
    counts = np.bincount(pixels.ravel())
    values = np.flatnonzero(counts)
    return MaskLook(values, counts[values], palette)


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
