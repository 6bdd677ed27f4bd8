"""Writing Pascal VOC."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element, SubElement, indent, tostring

from clearsight.data.carry import lost_by, not_placed
from clearsight.data.dataset import Dataset
from clearsight.data.decode import image_size
from clearsight.data.files import output_names, place_image, write_text
from clearsight.data.formats.voc_xml import plain_values
from clearsight.errors import DataError
from clearsight.types import Finding, Object, Record

__all__ = ["loses", "write"]

_TAG = re.compile(r"[A-Za-z_][\w.-]*", re.ASCII)
_RECORD_TAGS = frozenset({"annotation", "filename", "object", "size"})
_OBJECT_TAGS = frozenset({"bndbox", "difficult", "name"})
_UNPRINTABLE = re.compile(r"[\x00-\x1f\ufffe\uffff\ud800-\udfff]")


def loses(dataset: Dataset) -> list[Finding]:
    """Masks, polygons and the crowd flag; attributes that are no text, number or tree of them."""
    return lost_by(
        dataset,
        "Pascal VOC",
        carries={"boxes", "difficult", "splits", "lists"},
        object_key=lambda key, value: key not in _OBJECT_TAGS and _carries(key, value),
        record_key=lambda key, value: key not in _RECORD_TAGS and _carries(key, value),
    )


def write(dataset: Dataset, out: Path) -> list[Finding]:
    """Write `Annotations`, `JPEGImages`, `ImageSets/Main` and `classes.txt` (label order, empty classes) below `out`.

    Numbers are written with all their digits, whole ones without a point, so that reading gives the same values.

    Returns:
        What was lost, and images that could not be placed.
    """
    findings = loses(dataset)
    lists: dict[str, list[str]] = {}
    for record, name in zip(dataset.records, output_names(dataset.records, dataset.root), strict=True):
        stem = Path(name).stem
        try:
            size = record.size or image_size(record.image)
            place_image(record.image, out / "JPEGImages" / name)
        except (DataError, OSError) as err:
            findings.append(not_placed(record, err))
            continue
        tree = _annotation(record, name, size, dataset.classes)
        write_text(out / "Annotations" / f"{stem}.xml", tree)
        for split in filter(None, [record.split, *record.attributes.get("lists", ())]):
            lists.setdefault(split, []).append(stem)
    for split, stems in lists.items():
        write_text(out / "ImageSets" / "Main" / f"{split}.txt", "".join(f"{stem}\n" for stem in stems))
    write_text(out / "classes.txt", "".join(f"{name}\n" for name in dataset.classes))
    return findings


def _annotation(record: Record, name: str, size: tuple[int, int], classes: tuple[str, ...]) -> str:
    root = Element("annotation")
    attributes = dict(record.attributes)
    depth = attributes.pop("depth", None)
    if "folder" in attributes:
        _add(root, "folder", attributes.pop("folder"))
    _add(root, "filename", name)
    _add_all(root, attributes, _RECORD_TAGS | {"lists"})
    box = SubElement(root, "size")
    _add(box, "width", size[1])
    _add(box, "height", size[0])
    if depth is not None:
        _add(box, "depth", depth)
    for item in record.objects:
        _add_object(root, item, classes[item.label])
    indent(root, "\t")
    return tostring(root, encoding="unicode") + "\n"


def _add_object(root: Element, item: Object, name: str) -> None:
    element = SubElement(root, "object")
    _add(element, "name", name)
    _add_all(element, item.attributes, _OBJECT_TAGS)
    _add(element, "difficult", int(item.difficult))
    box = SubElement(element, "bndbox")
    for tag, value in zip(("xmin", "ymin", "xmax", "ymax"), item.box, strict=True):
        _add(box, tag, int(value) if float(value).is_integer() else value)


def _add_all(parent: Element, attributes: dict[str, Any], taken: frozenset[str]) -> None:
    for key, value in attributes.items():
        if key not in taken and _carries(key, value):
            _add(parent, key, value)


def _add(parent: Element, key: str, value: object) -> None:
    """A value as elements; the inverse of `plain_values`."""
    if isinstance(value, list):
        for one in value:
            _add(parent, key, one)
        return
    element = SubElement(parent, key)
    if not isinstance(value, dict):
        element.text = str(value)
        return
    for inner, one in value.items():
        if inner == "#text":
            element.text = str(one)
        elif inner.startswith("@"):
            element.set(inner[1:], str(one))
        else:
            _add(element, inner, one)


def _carries(key: str, value: object) -> bool:
    """Whether the value comes back the same from XML; True does not (it would be text), nor a list of lists."""
    if not _speakable(key, value):
        return False
    holder = Element("holder")
    _add(holder, key, value)
    back = plain_values(list(holder))
    return repr(back.get(key)) == repr(value)


def _speakable(key: str, value: object) -> bool:
    if not _TAG.fullmatch(key.removeprefix("@").replace("#text", "text")):
        return False
    if isinstance(value, dict):
        return all(isinstance(inner, str) and _speakable(inner, one) for inner, one in value.items())
    if isinstance(value, list):
        return all(_speakable(key, one) for one in value)
    return not (isinstance(value, str) and _UNPRINTABLE.search(value))
