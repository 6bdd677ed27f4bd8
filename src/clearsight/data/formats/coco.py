"""COCO JSON: instances with boxes, polygons, run-length masks and crowds (Lin et al. 2014, arXiv:1405.0312).

A path may be one JSON file or a folder with several, each of them a split: `annotations/instances_train2017.json`,
`instances_val.json`, `train/_annotations.coco.json`. Images are found by `file_name`, relative to the file, else
anywhere below the root by name, in any case.

Boxes are `[x, y, width, height]` in pixels from the upper left corner and become xyxy. Several rings of one object are
parts of it that COCO's own tools unite; where they may overlap, the object's attribute `fill` says `union`. Category
ids may skip: labels are 0, 1, … in file order, and the ids come back on writing.
"""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath
from typing import Any

from clearsight.data.class_names import ClassNames
from clearsight.data.dataset import Dataset
from clearsight.data.files import ImageIndex, encodable, list_files, list_images, printable
from clearsight.data.formats.coco_json import CocoFile, load_coco
from clearsight.data.formats.coco_shape import box_of_shape, box_to_xywh, parse_box, parse_segmentation, rings_overlap
from clearsight.data.formats.coco_write import loses, write
from clearsight.errors import DataError
from clearsight.types import Finding, Object, Record, Rle, Severity

__all__ = ["loses", "read", "sniff", "write"]

_KEYS = (b'"images"', b'"annotations"', b'"categories"')
_SPLIT = re.compile(r"(?:^|[^a-z])(train|val|valid|validation|test)(?:20\d\d)?(?:[^a-z]|$)")
_OTHER_TASKS = ("captions_", "image_info_", "panoptic_", "person_keypoints_", "stuff_")
_READ_KEYS = frozenset(
    {"@where", "bbox", "bbox_corners", "category_id", "difficult", "image_id", "iscrowd", "segmentation"}
)


def sniff(path: Path) -> bool:
    """Whether a JSON file has COCO's keys near its beginning or its end."""
    if path.is_file():
        return path.suffix.lower() == ".json" and _has_keys(path)
    return any(_has_keys(file) for file in list_files(path, {".json"})[:20])


def _has_keys(path: Path, window: int = 1 << 16) -> bool:
    with path.open("rb") as file:
        text = file.read(window)
        file.seek(max(0, path.stat().st_size - window))
        text += file.read(window)
    return sum(key in text for key in _KEYS) >= 2


def read(path: Path, *, classes: tuple[str, ...] | None = None) -> Dataset:
    """Read one JSON file, or all of a folder as splits.

    Args:
        path: a JSON file, or a folder with some.
        classes: class names in label order; None takes the categories in file order.

    Returns:
        Task `instance` where any object has a mask, else `detection`. `Dataset.attributes` has `categories` and the
        other keys of the top; `Record.attributes` and `Object.attributes` have the ids and every key that is not read.
    """
    findings: list[Finding] = []
    paths = [path] if path.is_file() else _files_below(path, findings)
    files = [file for file in (load_coco(one, findings) for one in paths) if file is not None]
    root = path if path.is_dir() else path.parent.parent if path.parent.name.lower() == "annotations" else path.parent
    categories = _merge_categories(files, findings)
    names = classes if classes is not None else tuple(str(category["name"]).strip() for category in categories)
    index = ImageIndex(list_images(root)) if files else ImageIndex([])
    records: list[Record] = []
    for file, split in zip(files, _splits([file.path for file in files], root), strict=True):
        records += _records(file, split, ClassNames(names), index, findings)
    extra: dict[str, Any] = {"categories": categories}
    for file in files:
        extra = {**file.extra, **extra}
    masks = any(item.polygons or item.rle for record in records for item in record.objects)
    return Dataset(
        records=records,
        classes=names,
        task="instance" if masks else "detection",
        root=root,
        format="coco",
        findings=findings,
        attributes=extra,
    )


def _files_below(folder: Path, findings: list[Finding]) -> list[Path]:
    paths = [file for file in list_files(folder, {".json"}) if _has_keys(file)]
    others = [file for file in paths if file.name.startswith(_OTHER_TASKS)]
    if len(others) == len(paths):
        return paths
    for file in others:
        text = "the file is for another task of the same images; to read it, name the file itself"
        findings.append(_finding("unsupported-file", "info", str(file), text, "not read"))
    return [file for file in paths if file not in others]


def _splits(paths: list[Path], root: Path) -> list[str | None]:
    """The split that each file is; one file may be none, several are told apart by their names."""
    names: list[str | None] = []
    for path in paths:
        parts = path.relative_to(root).with_suffix("").parts if path.is_relative_to(root) else (path.stem,)
        found = [match[1] for part in reversed(parts) if (match := _SPLIT.search(part.lower()))]
        usual = found[0] if found else None
        names.append("val" if usual in ("valid", "validation") else usual)
    if len(paths) > 1:
        names = [name or path.stem.removeprefix("instances_") for name, path in zip(names, paths, strict=True)]
        names = [None if name == "instances" else name for name in names]
    return names


def _merge_categories(files: list[CocoFile], findings: list[Finding]) -> list[dict[str, Any]]:
    """One list of categories for all files, by name; the first file that has one says its id."""
    merged: dict[str, dict[str, Any]] = {}
    for file in files:
        for id_, category in file.categories.items():
            name = category["name"].strip()
            if merged.setdefault(name, category)["id"] != id_:
                text = f"category {name!r} has the ids {merged[name]['id']!r} and {id_!r}"
                findings.append(_finding("duplicate-class", "info", str(file.path), text, "read as one class"))
    return list(merged.values())


def _records(
    file: CocoFile, split: str | None, names: ClassNames, index: ImageIndex, findings: list[Finding]
) -> list[Record]:
    labels: dict[int | str, int | None] = {}
    for id_ in dict.fromkeys(entry.get("category_id") for entry in file.annotations):
        if isinstance(id_, int | str) and id_ in file.categories:
            where = f"{file.path}#category {id_}"
            labels[id_] = names.label(file.categories[id_]["name"], where, findings)
    objects: dict[int | str, list[Object]] = {id_: [] for id_ in file.images}
    for entry in file.annotations:
        item = _object(entry, labels, findings)
        if item is not None:
            objects[entry["image_id"]].append(item)
    records = []
    for id_, entry in file.images.items():
        where = f"{file.path}#image {id_}"
        image = _find(entry["file_name"], file.path, split, index, where, findings)
        if image is None:
            continue
        attributes = {k: v for k, v in entry.items() if k not in ("file_name", "height", "width", "group")}
        sides = entry.get("height"), entry.get("width")
        size = (sides[0], sides[1]) if sides[0] and sides[1] else None
        record = Record(image=image, size=size, objects=objects[id_], split=split, where=where, attributes=attributes)
        record.group = entry.get("group")
        records.append(record)
    return records


def _object(entry: dict[str, Any], labels: dict[int | str, int | None], findings: list[Finding]) -> Object | None:
    where, id_ = entry["@where"], entry.get("category_id")
    if not isinstance(id_, int | str) or id_ not in labels:
        text = f"category_id {id_!r} is the id of no category in this file"
        findings.append(_finding("unknown-class", "error", where, text, "object dropped"))
        return None
    label = labels[id_]
    polygons, rle = _masks(entry, where, findings)
    try:
        given = entry.get("bbox")
        box = box_of_shape(polygons, rle) if given in (None, []) else parse_box(given, entry.get("bbox_corners"))
        if box is None:
            raise DataError("there is neither a bbox nor a segmentation")
    except DataError as err:
        findings.append(_finding("json-type", "error", where, str(err), "object dropped"))
        return None
    if label is None:  # its class was reported once for all objects of the category
        return None
    attributes = {key: value for key, value in entry.items() if key not in _READ_KEYS}
    if given and box_to_xywh(box) != given:
        attributes["bbox"] = given
    if rings_overlap(polygons):
        attributes["fill"] = "union"
    return Object(
        label=label,
        box=box,
        polygons=polygons,
        rle=rle,
        crowd=bool(entry.get("iscrowd")),
        difficult=bool(entry.get("difficult")),
        attributes=attributes,
        where=where,
    )


def _masks(entry: dict[str, Any], where: str, findings: list[Finding]) -> tuple[list[Any], Rle | None]:
    try:
        return parse_segmentation(entry.get("segmentation"))
    except DataError as err:
        findings.append(_finding("json-type", "warning", where, str(err), "mask dropped, box kept"))
        return [], None


def _find(
    name: str, file: Path, split: str | None, index: ImageIndex, where: str, findings: list[Finding]
) -> Path | None:
    said = PurePosixPath(name.strip().replace("\\", "/"))
    id_, problem = "missing-image", f"no image {name!r} was found beside the file or below its folder"
    if not encodable(str(said)) or "\0" in name:
        id_, problem = "encoding-name", f"the file name {printable(name)!r} cannot be the name of a file"
    elif (direct := file.parent / said).is_file():
        return direct
    else:
        found = _closest(index.named(said.name), said, split)
        if len(found) == 1:
            return found[0]
        if found:
            several = ", ".join(map(str, found[:4]))
            id_, problem = "duplicate-file-name", f"{len(found)} images are named {said.name!r}: {several}"
    findings.append(_finding(id_, "error", where, problem, "dropped with its objects"))
    return None


def _closest(found: list[Path], said: PurePosixPath, split: str | None) -> list[Path]:
    """Of several images of one name: those in the folders that the annotation says, else in the split's folder."""
    if len(found) < 2:
        return found
    tail = [part.lower() for part in said.parts]
    same = [path for path in found if [part.lower() for part in path.parts[-len(tail) :]] == tail and len(tail) > 1]
    of_split = [
        path for path in found if split and any(part.lower().startswith(split) for part in path.parent.parts[-2:])
    ]
    return same or of_split or found


def _finding(id_: str, severity: Severity, where: str, text: str, action: str) -> Finding:
    return Finding(id=id_, severity=severity, where=where, explanation=text, action=action)
