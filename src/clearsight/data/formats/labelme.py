"""LabelMe: one JSON file an image, with polygons, rectangles, circles and masks.

The image is the file that `imagePath` names, relative to the JSON file, else one of the same name beside it, else what
`imageData` embeds: that is taken out into the cache folder. Shapes of one label and one `group_id` are parts of one
object. Lines and points enclose nothing and are dropped with a finding. Folders called train, val and test are splits.
`classes.txt` gives the label order; else the names are sorted.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

from clearsight.data.class_names import ClassNames, names_found
from clearsight.data.dataset import Dataset
from clearsight.data.files import encodable, list_files, list_images, printable, read_text
from clearsight.data.formats.coco_shape import rings_overlap
from clearsight.data.formats.folder_names import SPLIT_FOLDERS, listed_classes
from clearsight.data.formats.labelme_shapes import UnsupportedShape, decoded, parse_shape
from clearsight.data.formats.labelme_write import loses, write
from clearsight.data.image_header import MAX_PIXELS, parse_header
from clearsight.errors import DataError
from clearsight.ops.contours import polygon_box
from clearsight.types import Finding, Object, Record, Severity

__all__ = ["loses", "read", "sniff", "write"]

_FILE_KEYS = frozenset({"group", "imageData", "imageHeight", "imagePath", "imageWidth", "shapes", "split", "version"})
_SUFFIX = {"JPEG": ".jpg", "PNG": ".png", "BMP": ".bmp", "GIF": ".gif", "WEBP": ".webp", "TIFF": ".tif"}


def sniff(path: Path) -> bool:
    """Whether a JSON file has LabelMe's keys near its beginning and its end."""
    if path.is_file():
        return path.suffix.lower() == ".json" and _has_keys(path)
    return any(_has_keys(file) for file in list_files(path, {".json"})[:3])


def _has_keys(path: Path, window: int = 1 << 15) -> bool:
    with path.open("rb") as file:
        text = file.read(window)
        file.seek(max(0, path.stat().st_size - window))
        text += file.read(window)
    return b'"shapes"' in text and (b'"imagePath"' in text or b'"imageHeight"' in text)


class _File(NamedTuple):
    """One JSON file, with its values checked."""

    path: Path
    shapes: list[tuple[dict[str, Any], str]]  # and file#shapes[i]
    size: tuple[int, int] | None
    content: dict[str, Any]


def read(path: Path, *, classes: tuple[str, ...] | None = None) -> Dataset:
    """Read every JSON file below a folder, or one.

    Args:
        path: folder or file.
        classes: class names in label order.

    Returns:
        Task `instance` where any object has a polygon or mask, else `detection`.
    """
    findings: list[Finding] = []
    root = path if path.is_dir() else path.parent
    files = [one for one in (_load(file, findings) for file in _json_files(path)) if one is not None]
    names = classes or _class_names(files, root, findings)
    known = ClassNames(names)
    records, used = [], set()
    for file in files:
        image = _image_of(file, findings)
        if image is None:
            continue
        used.add(image)
        records.append(_record(file, image, known, root, findings))
    if path.is_dir():
        _without_json(list_images(root), used, files, findings)
    masks = any(item.polygons or item.rle for record in records for item in record.objects)
    task = "instance" if masks else "detection"
    return Dataset(records=records, classes=names, task=task, root=root, format="labelme", findings=findings)


def _json_files(path: Path) -> list[Path]:
    return [path] if path.is_file() else list_files(path, {".json"})


def _finding(fault: str, severity: Severity, where: str, text: str, action: str) -> Finding:
    return Finding(id=fault, severity=severity, where=where, explanation=text, action=action)


# ------------------------------------------------------------------------------------------------ the file
def _load(path: Path, findings: list[Finding]) -> _File | None:
    where, fault = printable(path), "unreadable-annotation"
    try:
        text = read_text(path, findings)
        content = json.loads(text) if text.strip() else None
    except json.JSONDecodeError as err:
        where, problem = f"{where}:{err.lineno}", f"no valid JSON: {err.msg} (column {err.colno}); write it again"
    except (OSError, RecursionError, ValueError) as err:  # ValueError: a number of thousands of digits
        problem = f"cannot be read: {err}"
    else:
        if isinstance(content, dict) and isinstance(content.get("shapes"), list):
            return _checked(path, content, findings)
        fault, problem = "json-type", "expected an object with a list 'shapes'; remove the file if it is something else"
        if content is None:
            fault, problem = "empty-file", "the file is empty; annotate the image again, or remove it"
    findings.append(_finding(fault, "error", where, problem, "image dropped"))
    return None


def _checked(path: Path, content: dict[str, Any], findings: list[Finding]) -> _File:
    shapes = []
    for number, shape in enumerate(content["shapes"]):
        where = f"{printable(path)}#shapes[{number}]"
        if isinstance(shape, dict) and isinstance(shape.get("label"), str) and shape["label"].strip():
            shapes.append((shape, where))
            continue
        what = "the shape is no object" if not isinstance(shape, dict) else "label is missing or no text"
        findings.append(_finding("json-type", "error", where, f"{what}; correct it", "object dropped"))
    sides = content.get("imageHeight"), content.get("imageWidth")
    size = None
    if all(isinstance(side, int) and not isinstance(side, bool) and side > 0 for side in sides):
        size = (int(sides[0] or 0), int(sides[1] or 0))
    elif sides != (None, None):
        text = f"imageHeight {sides[0]!r} and imageWidth {sides[1]!r}, expected whole numbers of pixels"
        findings.append(_finding("json-type", "warning", printable(path), text, "the image's own size is used"))
    return _File(path, shapes, size, content)


def _class_names(files: Iterable[_File], root: Path, findings: list[Finding]) -> tuple[str, ...]:
    names = names_found(shape["label"] for file in files for shape, _ in file.shapes)
    listed = listed_classes(root, findings)
    there = {name.casefold() for name in listed}
    return (*listed, *(name for name in names if name.casefold() not in there))


# ------------------------------------------------------------------------------------------------ the image
def _image_of(file: _File, findings: list[Finding]) -> Path | None:
    said = file.content.get("imagePath")
    if isinstance(said, str) and said.strip():
        named = file.path.parent / said.replace("\\", "/")
        if named.is_file():
            return named
    beside = [image for image in list_images(file.path.parent, recursive=False) if image.stem == file.path.stem]
    if len(beside) == 1:
        return beside[0]
    where = printable(file.path)
    if isinstance(file.content.get("imageData"), str):
        try:
            return _taken_out(file.content["imageData"], file.path, findings)
        except (DataError, OSError) as err:
            text = f"the embedded image cannot be used: {err}"
    elif beside:
        text = f"{len(beside)} images could be meant ({', '.join(image.name for image in beside)}); keep one"
    else:
        text = f"imagePath says {said!r}, no such file nor one named {file.path.stem}.* exists, and none is embedded"
    findings.append(_finding("missing-image", "error", where, text, "image dropped"))
    return None


def _taken_out(text: str, path: Path, findings: list[Finding]) -> Path:
    """The embedded image as a file in the cache folder, named by its content."""
    from clearsight.data.digit_scenes import cache_folder  # which imports other formats

    data = decoded(text, "imageData")
    header, _ = parse_header(BytesIO(data), path, max_pixels=MAX_PIXELS)
    name = f"{path.stem}-{hashlib.sha256(data).hexdigest()[:16]}{_SUFFIX.get(header.format, '.img')}"
    target = cache_folder() / "labelme" / name
    if not target.is_file():
        target.parent.mkdir(parents=True, exist_ok=True)
        part = target.with_name(f".{name}.{os.getpid()}.part")
        part.write_bytes(data)
        part.replace(target)
    said = f"the image is embedded and no file; it was written to {target}"
    findings.append(_finding("embedded-image", "info", printable(path), said, "read from there"))
    return target


def _without_json(images: list[Path], used: set[Path], files: list[_File], findings: list[Finding]) -> None:
    stems = {file.path.with_suffix("") for file in files}
    there = {image.resolve() for image in used}
    for image in images:
        if image.resolve() not in there and image.with_suffix("") not in stems and encodable(image):
            text = f"there is no {image.stem}.json for this image; an image without objects needs one too"
            findings.append(_finding("image-without-label", "warning", str(image), text, "not used"))


# ------------------------------------------------------------------------------------------------ the objects
def _record(file: _File, image: Path, known: ClassNames, root: Path, findings: list[Finding]) -> Record:
    objects = []
    for shape, where in file.shapes:
        label = known.label(shape["label"], where, findings)
        if label is None:
            continue
        try:
            objects.append(parse_shape(shape, label, file.size, where))
        except UnsupportedShape as err:
            findings.append(_finding("unsupported-shape", "error", where, str(err), "object dropped"))
        except DataError as err:
            findings.append(_finding("json-type", "error", where, f"{err}; correct it", "object dropped"))
    parts = file.path.relative_to(root).parts
    group = file.content.get("group")
    return Record(
        image=image,
        size=file.size,
        objects=_merged(objects, findings),
        split=SPLIT_FOLDERS.get(parts[0].lower()) if len(parts) > 1 else None,
        group=group if isinstance(group, str) and group else None,
        where=printable(file.path),
        attributes={
            key: value for key, value in file.content.items() if key not in _FILE_KEYS and value not in (None, {})
        },
    )


def _merged(objects: list[Object], findings: list[Finding]) -> list[Object]:
    """Polygons of one label and group as one object, at the place of the first."""
    groups: dict[tuple[int, object], list[Object]] = defaultdict(list)
    for item in objects:
        if item.attributes.get("group_id") is not None:
            groups[item.label, str(item.attributes["group_id"])].append(item)
    merged: dict[int, Object] = {}
    dropped: set[int] = set()
    for parts in groups.values():
        first = parts[0]
        alike = all(item.polygons and item.attributes == first.attributes for item in parts)
        if len(parts) < 2:
            continue
        if not alike or any((item.crowd, item.difficult) != (first.crowd, first.difficult) for item in parts):
            text = (
                f"{len(parts)} shapes share group_id {first.attributes['group_id']!r} and label, but are not all "
                "polygons with the same flags; give them different groups, or make them alike"
            )
            findings.append(_finding("group-not-merged", "warning", first.where, text, "kept as objects of their own"))
            continue
        rings = [ring for item in parts for ring in item.polygons]
        attributes = first.attributes | ({"fill": "union"} if rings_overlap(rings) else {})
        box = first.box if all(item.box == first.box for item in parts) else polygon_box(rings)
        merged[id(first)] = replace(first, polygons=rings, box=box, attributes=attributes)
        dropped |= {id(item) for item in parts[1:]}
    return [merged.get(id(item), item) for item in objects if id(item) not in dropped]
