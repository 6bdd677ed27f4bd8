"""Image folder: the folder an image lies in is its class.

Layout: `CLASS/…/NAME.ext`, or `SPLIT/CLASS/…/NAME.ext` with splits called train, val (valid, validation) and test.
Labels are the classes' places in the plain sorted order of their folders' names, as in torchvision's `ImageFolder`, so
`10` comes before `2`; a `classes.txt` in the root, one name a line, gives another order. A class folder may be empty.
"""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

from clearsight.data.carry import lost, lost_by, not_placed
from clearsight.data.class_names import ClassNames
from clearsight.data.dataset import Dataset
from clearsight.data.files import IMAGE_SUFFIXES, list_images, output_names, place_image, printable, write_text
from clearsight.data.formats.folder_names import SPLIT_FOLDERS, folders_of, listed_classes
from clearsight.types import Finding, Record, Severity

__all__ = ["loses", "read", "sniff", "write"]

_UNSAFE = '/\\:*?"<>|\0'


def sniff(path: Path) -> bool:
    """Whether some folder below, other than the root and its splits, holds images."""
    return any(_has_images(folder) for _, top in _tops(path) for folder in folders_of(top))


def _has_images(folder: Path) -> bool:
    return any(entry.suffix.lower() in IMAGE_SUFFIXES for entry in folder.rglob("*"))


def _tops(root: Path) -> list[tuple[str | None, Path]]:
    """The folders that hold class folders, with their splits."""
    folders = folders_of(root)
    splits = [(SPLIT_FOLDERS[one.name.lower()], one) for one in folders if one.name.lower() in SPLIT_FOLDERS]
    # A folder `train` with images but no folders in it is a class beside others, say of vehicles.
    others = [one for one in folders if one.name.lower() not in SPLIT_FOLDERS]
    if splits and (not others or any(folders_of(one) for _, one in splits)):
        return list(splits)
    return [(None, root)]


def read(path: Path, *, classes: tuple[str, ...] | None = None) -> Dataset:
    """List every image below the class folders.

    Args:
        path: the root.
        classes: class names in label order; images of other folders are then dropped with a finding.

    Returns:
        Task `classification`.
    """
    findings: list[Finding] = []
    tops = _tops(path)
    listed = listed_classes(path, findings)
    there = sorted({folder.name for _, top in tops for folder in folders_of(top)})
    names = classes if classes is not None else (*listed, *(name for name in there if name not in listed))
    known = ClassNames(names)
    records: list[Record] = []
    for split, top in tops:
        found: list[Record] = []
        for folder in folders_of(top):
            images = list_images(folder)
            label = known.label(folder.name, printable(folder), findings) if images or classes is None else None
            if label is not None:
                found += [Record(image=image, label=label, split=split) for image in images]
            _other_files(folder, findings)
        _images_without_class(top, findings)
        if split is not None and not found:
            findings.append(_empty_split(top, split))
        records += found
    if tops != [(None, path)]:
        _unused_folders(path, tops, findings)
    return Dataset(
        records=records, classes=names, task="classification", root=path, format="image_folder", findings=findings
    )


def _other_files(folder: Path, findings: list[Finding]) -> None:
    for entry in sorted(folder.rglob("*")):
        hidden = any(part.startswith(".") for part in entry.relative_to(folder).parts)
        if entry.is_file() and not hidden and entry.suffix.lower() not in IMAGE_SUFFIXES:
            text = f"the name ends in {entry.suffix or 'nothing'!r}, which is no image; move it out of the class folder"
            findings.append(_finding("unsupported-file", "warning", entry, text, "passed over"))


def _images_without_class(top: Path, findings: list[Finding]) -> None:
    for image in list_images(top, recursive=False):
        text = "the image lies beside the class folders, so its class is not known; move it into one"
        findings.append(_finding("image-without-label", "error", image, text, "image dropped"))


def _empty_split(top: Path, split: str) -> Finding:
    return _finding("empty-split", "error", top, f"split {split!r} has no images of any class", "the split is gone")


def _unused_folders(root: Path, tops: list[tuple[str | None, Path]], findings: list[Finding]) -> None:
    used = {top for _, top in tops}
    for folder in folders_of(root):
        count = 0 if folder in used else len(list_images(folder))
        if count:
            text = (
                f"its {count} images lie beside the splits {', '.join(top.name for _, top in tops)} and in none of them"
            )
            findings.append(_finding("image-without-label", "error", folder, text, "images dropped"))
    _images_without_class(root, findings)


def _finding(fault: str, severity: Severity, where: Path, text: str, action: str) -> Finding:
    return Finding(id=fault, severity=severity, where=printable(where), explanation=text, action=action)


# ------------------------------------------------------------------------------------------------ writing
def loses(dataset: Dataset) -> list[Finding]:
    """Everything but image labels and the splits train, val and test."""
    findings = lost_by(dataset, "an image folder", carries={"labels", "splits"})
    unlabelled = sum(record.label is None for record in dataset.records)
    if unlabelled:
        findings.append(lost(dataset, "an image folder", f"images without an image label ({unlabelled})", unlabelled))
    odd = [name for name in dataset.classes if _folder_name(name) != name]
    if odd:
        what = f"class names that cannot be folders ({', '.join(map(repr, odd))}); they are changed"
        findings.append(lost(dataset, "an image folder", what, len(odd)))
    unplaced = sum(not _placeable(record, dataset) for record in dataset.records if record.label is not None)
    if unplaced:
        what = f"images outside the splits train, val and test beside those in them ({unplaced})"
        findings.append(lost(dataset, "an image folder", what, unplaced))
    return findings


def _folder_name(name: str) -> str:
    changed = "".join("_" if character in _UNSAFE else character for character in name.strip())
    return "_" + changed[1:] if changed.startswith(".") else changed or "_"


def _placeable(record: Record, dataset: Dataset) -> bool:
    return record.split in {None} if _no_splits(dataset) else record.split in ("train", "val", "test")


def _no_splits(dataset: Dataset) -> bool:
    return all(record.split is None for record in dataset.records)


def write(dataset: Dataset, out: Path) -> list[Finding]:
    """Write `[SPLIT/]CLASS/NAME` below `out`, and `classes.txt` where the label order is not the folders' own.

    Returns:
        What was lost, and images that could not be placed.
    """
    findings = loses(dataset)
    folders = [_folder_name(name) for name in dataset.classes]
    groups: dict[Path, list[Record]] = defaultdict(list)
    for record in dataset.records:
        if record.label is not None and _placeable(record, dataset):
            groups[Path(record.split or "", folders[record.label])].append(record)
    for split in sorted({record.split or "" for record in dataset.records}):
        for folder in folders:
            (out / split / folder).mkdir(parents=True, exist_ok=True)
    if folders != sorted(folders):
        write_text(out / "classes.txt", "".join(f"{name}\n" for name in folders))
    for folder, records in groups.items():
        for record, name in zip(records, output_names(records, dataset.root), strict=True):
            try:
                place_image(record.image, out / folder / name)
            except OSError as err:
                findings.append(not_placed(record, err))
    return findings
