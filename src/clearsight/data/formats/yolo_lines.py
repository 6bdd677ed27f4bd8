"""One YOLO label file to objects in pixels, and objects to lines."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from clearsight.data.files import read_text
from clearsight.data.object_rings import object_rings
from clearsight.ops.contours import join_rings, polygon_box
from clearsight.types import Finding, Object

__all__ = ["line_of", "one_ring", "parse_labels"]

# Twelve decimals of a width of 65,000 pixels are 1e-7 pixels: what lies closer to a whole pixel was one.
_DECIMALS = 12
_SNAP = 1e-7


def parse_labels(
    path: Path,
    size: tuple[int, int],
    labels: Mapping[int, int | None],
    findings: list[Finding],
    *,
    key_points: bool = False,
) -> list[Object]:
    """Objects of one label file.

    A line is `class cx cy w h`, or `class x1 y1 x2 y2 x3 y3 …` for the one ring of a polygon, all as shares of the
    image's width and height. Coordinates within 1e-7 pixels of a whole pixel become whole.

    Args:
        path: the label file.
        size: `(height, width)` of the image.
        labels: label of each class number of the file; None for a class that is not wanted (reported elsewhere).
        findings: lines that cannot be used are added here.
        key_points: the lines go on with key points after the box; these are passed over.
    """
    try:
        lines = read_text(path, findings).splitlines()
    except OSError as err:
        findings.append(_unreadable(str(path), f"cannot be read: {err}"))
        return []
    objects = []
    for number, line in enumerate(lines, 1):
        where, columns = f"{path}:{number}", line.split()
        if not columns:
            continue
        try:
            values = [float(column) for column in columns]
        except ValueError:
            findings.append(_unreadable(where, f"{line.strip()[:60]!r} has something that is no number"))
            continue
        values = values[:5] if key_points else values
        if len(values) != 5 and (len(values) < 7 or len(values) % 2 == 0):
            text = f"{len(values)} columns, expected 5 (class cx cy w h) or an odd number from 7 on (class x1 y1 …)"
            findings.append(_unreadable(where, text))
            continue
        if not values[0].is_integer() or int(values[0]) not in labels:
            findings.append(_unknown(where, columns[0], len(labels)))
            continue
        label = labels[int(values[0])]
        if label is not None:
            objects.append(_object(label, values[1:], size, where))
    return objects


def _object(label: int, shares: list[float], size: tuple[int, int], where: str) -> Object:
    height, width = size
    if len(shares) == 4:
        x, y, w, h = shares
        corners = [(x - w / 2) * width, (y - h / 2) * height, (x + w / 2) * width, (y + h / 2) * height]
        left, top, right, bottom = _whole(np.array(corners)).tolist()
        return Object(label=label, box=(left, top, right, bottom), where=where)
    ring = _whole(np.array(shares).reshape(-1, 2) * [width, height])
    return Object(label=label, box=polygon_box(ring), polygons=[ring], where=where)


def _whole(values: np.ndarray) -> np.ndarray:
    nearest = np.round(values)
    near = np.isclose(values, nearest, rtol=0, atol=_SNAP)
    return np.where(near, nearest, values) + 0.0  # + 0.0: no negative zero


def one_ring(item: Object, size: tuple[int, int]) -> np.ndarray | None:
    """The outline of an object as one ring, holes and further parts joined by bridges; None if it has no mask."""
    if item.rle is None and not item.polygons:
        return None
    return join_rings(object_rings(item, size))


def line_of(item: Object, number: int, size: tuple[int, int]) -> str:
    """The line of an object: its outline where it has one, else its box.

    Args:
        item: the object.
        number: its class number in the file.
        size: `(height, width)` of the image.
    """
    height, width = size
    ring = one_ring(item, size)
    if ring is not None and len(ring) >= 3:
        shares = (ring / [width, height]).ravel().tolist()
    else:
        left, top, right, bottom = item.box
        shares = [
            (left + right) / 2 / width,
            (top + bottom) / 2 / height,
            (right - left) / width,
            (bottom - top) / height,
        ]
    return " ".join([str(number), *map(_text, shares)])


def _text(share: float) -> str:
    text = f"{share:.{_DECIMALS}f}".rstrip("0").rstrip(".") if np.isfinite(share) else str(share)
    return "0" if text in ("-0", "") else text


def _unreadable(where: str, text: str) -> Finding:
    return Finding(id="unreadable-annotation", severity="error", where=where, explanation=text, action="object dropped")


def _unknown(where: str, number: str, count: int) -> Finding:
    return Finding(
        id="unknown-class",
        severity="error",
        where=where,
        explanation=f"class {number} is not one of the {count} that are named; they count from 0",
        action="object dropped",
        evidence={"class": number, "classes": count},
    )
