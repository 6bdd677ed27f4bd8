"""One Pascal VOC file: XML to plain values, with line numbers, and nothing that an attacker could expand."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element, ParseError

from defusedxml import DefusedXmlException
from defusedxml.ElementTree import fromstring

from clearsight.types import Finding

__all__ = ["VocFile", "VocObject", "parse_voc", "plain_values", "scalar"]

_OBJECT_TAG = re.compile(rb"<object[\s>]")
_CORNERS = ("xmin", "ymin", "xmax", "ymax")


@dataclass(slots=True, kw_only=True)
class VocObject:
    """An `object` element; its class is still a name."""

    name: str
    box: tuple[float, float, float, float]
    difficult: bool
    attributes: dict[str, Any]
    where: str


@dataclass(slots=True, kw_only=True)
class VocFile:
    """An `annotation` element."""

    path: Path
    filename: str
    size: tuple[int, int] | None
    objects: list[VocObject]
    attributes: dict[str, Any] = field(default_factory=dict)


def parse_voc(path: Path, findings: list[Finding]) -> VocFile | None:
    """Read one file; None where nothing of it can be used. Faulty objects are dropped, each with a finding."""
    root = _root(path, findings)
    if root is None:
        return None
    if root.tag != "annotation":
        findings.append(_unreadable(path, f"the outermost element is <{root.tag}>, expected <annotation>"))
        return None
    lines = _object_lines(path, len(root.findall("object")))
    parsed = [_object(element, where, findings) for element, where in zip(root.findall("object"), lines, strict=True)]
    others = [child for child in root if child.tag not in ("object", "filename", "size")]
    attributes = plain_values(others)
    size, depth = _size(path, root.find("size"), findings)
    if depth is not None:
        attributes["depth"] = depth
    return VocFile(
        path=path,
        filename=(root.findtext("filename") or "").strip(),
        size=size,
        objects=[item for item in parsed if item is not None],
        attributes=attributes,
    )


def _root(path: Path, findings: list[Finding]) -> Element | None:
    try:
        raw = path.read_bytes()
        if not raw.strip():
            findings.append(_unreadable(path, "the file is empty", id_="empty-file"))
            return None
        try:
            return fromstring(raw)
        except ParseError:
            if b"encoding=" in raw[:200] or _is_utf8(raw):
                raise
            tree = fromstring(raw.decode("latin-1"))
            findings.append(
                Finding(
                    id="encoding-name",
                    severity="warning",
                    where=str(path),
                    explanation="the text is not UTF-8 and the file names no other encoding; save it as UTF-8",
                    action="read as Latin-1",
                )
            )
            return tree
    except DefusedXmlException:
        text = "the file defines XML entities, which can expand without bound; an annotation needs none"
        findings.append(_unreadable(path, text, id_="xml-entities"))
    except ParseError as err:
        line = err.position[0]
        findings.append(_unreadable(path, f"no valid XML: {err}", line=line))
    except (OSError, LookupError, ValueError) as err:  # unreadable file, unknown encoding, text that expat refuses
        findings.append(_unreadable(path, f"cannot be read: {err}"))
    return None


def _is_utf8(raw: bytes) -> bool:
    try:
        raw.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def _unreadable(path: Path, text: str, *, id_: str = "unreadable-annotation", line: int | None = None) -> Finding:
    where = str(path) if line is None else f"{path}:{line}"
    return Finding(id=id_, severity="error", where=where, explanation=text, action="dropped with its image")


def _object_lines(path: Path, count: int) -> list[str]:
    """`file:line` of each object, or its number where tags and elements do not match (comments, say)."""
    raw = path.read_bytes()
    starts = [match.start() for match in _OBJECT_TAG.finditer(raw)]
    if len(starts) != count:
        return [f"{path}#object {number}" for number in range(1, count + 1)]
    numbers = [raw.count(b"\n", 0, start) + 1 for start in starts]
    return [f"{path}:{number}" for number in numbers]


def _object(element: Element, where: str, findings: list[Finding]) -> VocObject | None:
    name, box = (element.findtext("name") or "").strip(), element.find("bndbox")
    corners, problem = ([], "the object has no <bndbox>") if box is None else _corners(box)
    if not name:
        problem = "the object has no <name>"
    if problem:
        findings.append(
            Finding(
                id="unreadable-annotation", severity="error", where=where, explanation=problem, action="object dropped"
            )
        )
        return None
    others = [child for child in element if child.tag not in ("name", "bndbox", "difficult")]
    difficult = (element.findtext("difficult") or "0").strip().lower() not in ("0", "", "false", "no")
    left, top, right, bottom = corners
    return VocObject(
        name=name,
        box=(left, top, right, bottom),
        difficult=difficult,
        attributes=plain_values(others),
        where=where,
    )


def _corners(box: Element) -> tuple[list[float], str]:
    """The four numbers, and what is wrong with them; NaN is a number here, the box checks tell of it."""
    corners = []
    for tag in _CORNERS:
        text = box.findtext(tag)
        try:
            corners.append(float(text or ""))
        except ValueError:
            return [], f"<{tag}> is {text!r}, expected a number"
    return corners, ""


def _size(path: Path, element: Element | None, findings: list[Finding]) -> tuple[tuple[int, int] | None, Any]:
    """Height and width, None where they are missing or zero (some tools write zeros); and the depth as it stands."""
    if element is None:
        return None, None
    depth = scalar(element.findtext("depth") or "")
    sides = []
    for tag in ("height", "width"):
        text = element.findtext(tag) or "0"
        try:
            side = float(text)
        except ValueError:
            side = math.nan
        if not side.is_integer() or side < 0:
            findings.append(
                Finding(
                    id="unreadable-annotation",
                    severity="warning",
                    where=str(path),
                    explanation=f"<{tag}> is {text!r}, expected a whole number of pixels",
                    action="the image's own size is used",
                )
            )
            return None, depth or None
        sides.append(int(side))
    size = (sides[0], sides[1]) if all(sides) else None
    return size, None if depth == "" else depth


def plain_values(elements: list[Element]) -> dict[str, Any]:
    """Elements as plain values: a tag that comes several times gives a list."""
    values: dict[str, Any] = {}
    for element in elements:
        value = _value(element)
        if element.tag not in values:
            values[element.tag] = value
        elif isinstance(values[element.tag], list):
            values[element.tag].append(value)
        else:
            values[element.tag] = [values[element.tag], value]
    return values


def _value(element: Element) -> int | float | str | dict[str, Any]:
    inner = plain_values(list(element)) if len(element) else None
    if inner is None and not element.attrib:
        return scalar(element.text or "")
    given = {f"@{key}": scalar(value) for key, value in element.attrib.items()}
    return {**given, **(inner or {"#text": scalar(element.text or "")})}


def scalar(text: str) -> int | float | str:
    """A number where writing it would give the same text again, else the text."""
    text = text.strip()
    for kind in (int, float):
        try:
            value = kind(text)
        except ValueError:
            continue
        if str(value) == text and math.isfinite(value):
            return value
    return text
