"""Pascal VOC: one XML file an image, lists of names as splits (Everingham et al. 2010).

Layout: `Annotations/NAME.xml`, `JPEGImages/NAME.jpg`, `ImageSets/Main/SPLIT.txt`. XML files beside their images, and
one folder a split, are read too.

Coordinates are taken as written: `xmin ymin xmax ymax` become xyxy, half-open, with no shift. The original development
kit counts pixels from 1 and means the last pixel to be inside; nearly all tools since (labelImg, CVAT, torchvision's
users) write corners counted from 0. The files do not say which was meant, one pixel moves hardly any score, and a shift
would make values change on the way through; so there is no option that would have to be guessed.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from clearsight.data.class_names import ClassNames, names_found
from clearsight.data.dataset import Dataset
from clearsight.data.files import ImageIndex, encodable, list_files, list_images, printable
from clearsight.data.formats.voc_lists import apply_lists, read_lists
from clearsight.data.formats.voc_write import loses, write
from clearsight.data.formats.voc_xml import VocFile, parse_voc
from clearsight.types import Finding, Object, Record

__all__ = ["loses", "read", "sniff", "write"]

_FOLDER_SPLITS = {"train": "train", "valid": "val", "val": "val", "validation": "val", "test": "test"}


def sniff(path: Path) -> bool:
    """Whether there is an XML file whose first bytes name an annotation."""
    if path.is_file():
        return path.suffix.lower() == ".xml" and _is_voc(path)
    folder = _child(path, "annotations") or path
    return any(_is_voc(file) for file in list_files(folder, {".xml"})[:3])


def _is_voc(path: Path) -> bool:
    with path.open("rb") as file:
        return b"<annotation" in file.read(4096)


def read(path: Path, *, classes: tuple[str, ...] | None = None) -> Dataset:
    """Read every XML file below a folder, the lists of names, and the names of the images.

    Args:
        path: the folder that has `Annotations`, or any folder with XML files below it.
        classes: class names in label order; None takes `classes.txt` if there is one, then the files' own, sorted.

    Returns:
        Task `detection`. `Object.attributes` has the further elements of an object (`pose`, `truncated`, …),
        `Record.attributes` those of the file (`folder`, `source`, …); the file's `classes.txt` and lists are honoured.
    """
    findings: list[Finding] = []
    root = path.parent if path.is_file() else path
    root = root.parent if root.name.lower() == "annotations" else root
    if (found := _child(root, "annotations")) is None:
        inner = [folder for folder in sorted(root.iterdir()) if folder.is_dir() and _child(folder, "annotations")]
        if len(inner) == 1:  # the development kit's VOC2007 in its VOCdevkit
            root, found = inner[0], _child(inner[0], "annotations")
    images = _child(root, "jpegimages") or _child(root, "images") or root
    index = ImageIndex(_usable(list_images(images), findings))
    xml = list_files(found or root, {".xml"})
    files = [file for file in (parse_voc(one, findings) for one in xml) if file is not None]
    names = _class_names(root, files, classes)
    records, used = [], set()
    for file in files:
        image = _image_of(file, index, findings)
        if image is not None:
            used.add(image)
            records.append(_record(file, image, root, ClassNames(names), findings))
    known = {file.stem.lower() for file in xml}
    lists = read_lists(root, findings)
    apply_lists(records, lists, index, known, findings)
    _without_label(index, known, {name for one in lists for name in one.names}, findings)
    return Dataset(records=records, classes=names, task="detection", root=root, format="voc", findings=findings)


def _child(folder: Path, name: str) -> Path | None:
    """The folder of this name in any case."""
    if not folder.is_dir():
        return None
    return next((one for one in sorted(folder.iterdir()) if one.name.lower() == name and one.is_dir()), None)


def _usable(images: list[Path], findings: list[Finding]) -> list[Path]:
    for path in images:
        if not encodable(path):
            findings.append(
                Finding(
                    id="encoding-name",
                    severity="error",
                    where=printable(path),
                    explanation="the file name is not valid UTF-8, so no annotation or report can name it; rename it",
                    action="dropped",
                )
            )
    return [path for path in images if encodable(path)]


def _class_names(root: Path, files: list[VocFile], classes: tuple[str, ...] | None) -> tuple[str, ...]:
    if classes is not None:
        return classes
    used = [item.name for file in files for item in file.objects]
    listed = root / "classes.txt"
    if not listed.is_file():
        return names_found(used)
    names = [line.strip() for line in listed.read_text("utf-8", "replace").splitlines() if line.strip()]
    there = {name.casefold() for name in names}
    return (*names, *(name for name in names_found(used) if name.casefold() not in there))


def _image_of(file: VocFile, index: ImageIndex, findings: list[Finding]) -> Path | None:
    """The image of the XML file's own stem; only where there is none, the one that its `filename` names."""
    said = Path(file.filename.replace("\\", "/")).name
    by_stem = index.stemmed(file.path.stem)
    found = by_stem or (index.named(said) or index.stemmed(Path(said).stem) if said else [])
    beside = [image for image in found if image.parent == file.path.parent]
    same_name = [image for image in found if image.name == said]
    for choice in (found, beside, same_name):
        if len(choice) == 1:
            if by_stem and said and index.named(said) and choice[0].name.lower() != said.lower():
                findings.append(_name_mismatch(file, choice[0], said))
            elif said and choice[0].name != said and choice[0].name.lower() == said.lower():
                findings.append(_other_case(file, choice[0], said))
            return choice[0]
    where = str(file.path)
    if found:
        several = ", ".join(str(image) for image in found[:4])
        id_, text = "duplicate-file-name", f"{len(found)} images could be meant ({several}); give them different names"
    else:
        id_, text = "missing-image", f"no image {file.path.stem}.* and no {said or 'filename element'!r} was found"
    findings.append(Finding(id=id_, severity="error", where=where, explanation=text, action="dropped"))
    return None


def _name_mismatch(file: VocFile, image: Path, said: str) -> Finding:
    return Finding(
        id="name-mismatch",
        severity="warning",
        where=str(file.path),
        explanation=f"the file says it describes {said!r}, its own name says {image.name!r}, and both images exist",
        action=f"used for {image.name}, as the format demands",
    )


def _other_case(file: VocFile, image: Path, said: str) -> Finding:
    return Finding(
        id="file-name-case",
        severity="info",
        where=str(file.path),
        explanation=f"the annotation names {said!r}, the file is {image.name!r}",
        action="found whatever the case",
    )


def _record(file: VocFile, image: Path, root: Path, names: ClassNames, findings: list[Finding]) -> Record:
    objects = []
    for item in file.objects:
        label = names.label(item.name, item.where, findings)
        if label is not None:
            objects.append(
                Object(
                    label=label,
                    box=item.box,
                    crowd=False,
                    difficult=item.difficult,
                    attributes=item.attributes,
                    where=item.where,
                )
            )
    below = file.path.relative_to(root).parts if file.path.is_relative_to(root) else ()
    split = _FOLDER_SPLITS.get(below[0].lower()) if len(below) > 1 else None
    return Record(
        image=image,
        size=file.size,
        objects=objects,
        split=split,
        where=str(file.path),
        attributes=file.attributes,
    )


def _without_label(index: ImageIndex, known: set[str], listed: set[str], findings: list[Finding]) -> None:
    stems = Counter(image.stem for image in index.images)
    for image in index.images:
        if stems[image.stem] and image.stem.lower() not in known and image.stem not in listed:
            findings.append(
                Finding(
                    id="image-without-label",
                    severity="warning",
                    where=str(image),
                    explanation=f"there is no {image.stem}.xml for this image; an image without objects needs one too",
                    action="not used",
                )
            )
