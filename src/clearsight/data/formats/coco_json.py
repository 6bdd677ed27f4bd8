"""One COCO JSON file to plain, checked values; every fault becomes a finding and costs just the item it is in."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeGuard

from clearsight.data.files import read_text
from clearsight.types import Finding, Severity

__all__ = ["CocoFile", "load_coco"]

Id = int | str


@dataclass(kw_only=True)
class CocoFile:
    """What one file says, with everything unusable taken out.

    Args:
        path: the file.
        images: by id, in file order; `file_name` is text, `height` and `width` are whole numbers or absent.
        annotations: in file order; `image_id` is known; whether `category_id` is remains to be seen.
        categories: by id, in file order; `name` is text.
        extra: the other keys at the top (`info`, `licenses`, …).
    """

    path: Path
    images: dict[Id, dict[str, Any]] = field(default_factory=dict)
    annotations: list[dict[str, Any]] = field(default_factory=list)
    categories: dict[Id, dict[str, Any]] = field(default_factory=dict)
    extra: dict[str, Any] = field(default_factory=dict)


def load_coco(path: Path, findings: list[Finding]) -> CocoFile | None:
    """Read one file; None where nothing of it can be used."""
    content = _load(path, findings)
    if content is None:
        return None
    tables: dict[str, list[Any]] = {}
    for key in ("images", "annotations", "categories"):
        value = content.get(key, [] if key == "annotations" else None)
        if not isinstance(value, list):
            text = f"{key!r} is {_kind(value)}, expected a list"
            findings.append(_finding("json-type", "error", str(path), text, "file dropped"))
            return None
        tables[key] = value
    extra = {key: value for key, value in content.items() if key not in tables}
    file = CocoFile(path=path, extra=extra)
    _take_categories(file, tables["categories"], findings)
    _take_images(file, tables["images"], findings)
    _take_annotations(file, tables["annotations"], findings)
    return file


def _load(path: Path, findings: list[Finding]) -> dict[str, Any] | None:
    where, problem, id_ = str(path), "", "unreadable-annotation"
    try:
        text = read_text(path, findings)
        if text.strip():
            content = json.loads(text)
            if isinstance(content, dict):
                return content
            id_, problem = (
                "json-type",
                f"the file is {_kind(content)}, expected an object with images, categories",
            )
        else:
            id_, problem = "empty-file", "the file is empty"
    except json.JSONDecodeError as err:
        where, problem = f"{path}:{err.lineno}", f"no valid JSON: {err.msg} (line {err.lineno}, column {err.colno})"
    except (OSError, RecursionError, ValueError) as err:  # ValueError: a number of thousands of digits
        problem = f"cannot be read: {err}"
    findings.append(_finding(id_, "error", where, problem, "file dropped"))
    return None


def _take_categories(file: CocoFile, table: list[Any], findings: list[Finding]) -> None:
    for number, entry in enumerate(table):
        where = f"{file.path}#categories[{number}]"
        id_ = _id_of(entry, where, findings)
        if id_ is None:
            continue
        if not isinstance(entry.get("name"), str):
            findings.append(_wrong_type(where, "name", entry.get("name"), "text", "category dropped"))
        elif id_ in file.categories:
            text = f"category id {id_!r} is given twice, for {file.categories[id_]['name']!r} and {entry['name']!r}"
            findings.append(_finding("duplicate-id", "error", where, text, "the first one is used"))
        else:
            file.categories[id_] = entry
    numbers = sorted(id_ for id_ in file.categories if isinstance(id_, int))
    gaps = sorted(set(range(numbers[0], numbers[-1] + 1)).difference(numbers)) if numbers else []
    if gaps:
        shown = ", ".join(map(str, gaps[:12])) + ("…" if len(gaps) > 12 else "")
        text = f"category ids {numbers[0]} to {numbers[-1]} skip {shown}; labels count on from 0 in file order"
        findings.append(_finding("id-gap", "info", str(file.path), text, "renumbered; the ids come back on writing"))


def _take_images(file: CocoFile, table: list[Any], findings: list[Finding]) -> None:
    for number, entry in enumerate(table):
        where = f"{file.path}#images[{number}]"
        id_ = _id_of(entry, where, findings)
        if id_ is None:
            continue
        if not isinstance(entry.get("file_name"), str) or not entry["file_name"].strip():
            findings.append(_wrong_type(where, "file_name", entry.get("file_name"), "text", "image dropped"))
            continue
        if id_ in file.images:
            text = f"image id {id_!r} is given twice, for {file.images[id_]['file_name']!r} and {entry['file_name']!r}"
            findings.append(_finding("duplicate-id", "error", where, text, "the first one is used"))
            continue
        entry = dict(entry)
        for side in ("height", "width"):
            value = entry.get(side)
            if value is not None and not (isinstance(value, int) and not isinstance(value, bool) and value > 0):
                wanted = "a whole number of pixels"
                findings.append(_wrong_type(where, side, value, wanted, "the image's own size is used", "warning"))
                entry.pop(side)
        file.images[id_] = entry


def _take_annotations(file: CocoFile, table: list[Any], findings: list[Finding]) -> None:
    seen: set[Id] = set()
    for number, entry in enumerate(table):
        where = f"{file.path}#annotations[{number}]"
        if not isinstance(entry, dict):
            findings.append(_wrong_type(where, "", entry, "an object", "object dropped"))
            continue
        id_ = entry.get("id")
        if _is_id(id_):
            where = f"{file.path}#{id_}"
            if id_ in seen:
                text = f"annotation id {id_!r} is given twice"
                findings.append(_finding("duplicate-id", "warning", where, text, "both are used"))
            seen.add(id_)
        if not _is_id(entry.get("image_id")):
            findings.append(_wrong_type(where, "image_id", entry.get("image_id"), "a number", "object dropped"))
        elif entry["image_id"] not in file.images:
            text = f"image_id {entry['image_id']!r} is the id of no image in this file"
            findings.append(_finding("annotation-without-image", "error", where, text, "object dropped"))
        else:
            file.annotations.append({**entry, "@where": where})


def _id_of(entry: object, where: str, findings: list[Finding]) -> Id | None:
    if not isinstance(entry, dict):
        findings.append(_wrong_type(where, "", entry, "an object", "dropped"))
        return None
    if not _is_id(entry.get("id")):
        findings.append(_wrong_type(where, "id", entry.get("id"), "a whole number", "dropped"))
        return None
    return entry["id"]


def _is_id(value: object) -> TypeGuard[Id]:
    return isinstance(value, int | str) and not isinstance(value, bool)


def _wrong_type(
    where: str, key: str, value: object, expected: str, action: str, severity: Severity = "error"
) -> Finding:
    text = f"{key or 'the entry'} is {_kind(value)}, expected {expected}"
    return _finding("json-type", severity, where, text, action)


def _kind(value: object) -> str:
    if value is None:
        return "missing or null"
    names = {dict: "an object", list: "a list", str: "text", bool: "a truth value", int: "a number", float: "a number"}
    text = repr(value)
    return f"{names.get(type(value), type(value).__name__)} ({text if len(text) <= 40 else text[:37] + '…'})"


def _finding(id_: str, severity: Severity, where: str, text: str, action: str) -> Finding:
    return Finding(id=id_, severity=severity, where=where, explanation=text, action=action)
