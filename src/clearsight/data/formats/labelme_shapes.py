"""LabelMe's shapes as objects and back."""

from __future__ import annotations

import base64
import json
import math
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from clearsight.data.decode import read_bytes_as_index_map
from clearsight.data.formats.coco_shape import rings_overlap
from clearsight.errors import DataError
from clearsight.ops.contours import join_rings, polygon_box
from clearsight.ops.masks import mask_to_box, mask_to_rle, rle_to_mask
from clearsight.types import Object, Rle

__all__ = ["CIRCLE_POINTS", "UnsupportedShape", "decoded", "parse_shape", "shapes_of"]

CIRCLE_POINTS = 64
"""Vertices of the polygon that a circle becomes."""
_SHAPE_KEYS = frozenset({"flags", "group_id", "label", "mask", "points", "shape_type"})
_FLAGS = ("crowd", "difficult")

Box = tuple[float, float, float, float]


class UnsupportedShape(DataError):
    """A shape that encloses nothing (line, point), or is not known."""


# ------------------------------------------------------------------------------------------------ reading
def parse_shape(shape: dict[str, Any], label: int, size: tuple[int, int] | None, where: str) -> Object:
    """One shape as an object.

    Args:
        shape: with `points`; `shape_type` is `polygon` if it is missing.
        label: its class.
        size: `(height, width)` of the image, which masks need.
        where: for messages.

    Returns:
        A polygon or circle has `polygons`, a mask `rle`, a rectangle only its box. The flags `crowd` and `difficult`
        become the object's; `group_id`, other flags and unknown keys are in its attributes.

    Raises:
        UnsupportedShape: a line, a point, or another kind.
        DataError: wrong types or numbers of points; the message is for people.
    """
    kind = shape.get("shape_type") or "polygon"
    points = _points(shape.get("points"))
    attributes = {key: value for key, value in shape.items() if key not in _SHAPE_KEYS and value not in (None, "")}
    polygons: list[np.ndarray] = []
    rle = None
    if kind == "polygon" or (kind == "rectangle" and len(points) == 4):
        polygons = [_at_least(points, 3, kind)]
        box = polygon_box(polygons)
    elif kind == "rectangle":
        box = _corners(_exactly(points, 2, kind))
    elif kind == "circle":
        polygons = [_circle(_exactly(points, 2, kind))]
        box = polygon_box(polygons)
        attributes |= {"shape_type": "circle", "points": points.tolist()}
    elif kind == "mask":
        box, rle = _mask(shape.get("mask"), _exactly(points, 2, kind), size)
    else:
        raise UnsupportedShape(f"shape {kind!r} has no area; draw a polygon, rectangle, circle or mask instead")
    flags = _flags(shape.get("flags"))
    known = {name: bool(flags.pop(name)) for name in _FLAGS if flags.get(name) is True}
    if shape.get("group_id") is not None:
        attributes["group_id"] = shape["group_id"]
    if flags:
        attributes["flags"] = flags
    given = attributes.pop("box", None)
    if isinstance(given, list) and len(given) == 4 and all(_is_number(value) for value in given):
        box = (float(given[0]), float(given[1]), float(given[2]), float(given[3]))
    return Object(label=label, box=box, polygons=polygons, rle=rle, attributes=attributes, where=where, **known)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _points(value: object) -> np.ndarray:
    good = isinstance(value, list) and all(
        isinstance(point, list) and len(point) == 2 and all(map(_is_number, point)) for point in value
    )
    if not good:
        text = json.dumps(value)
        raise DataError(f"points is {text[:60]}{'…' if len(text) > 60 else ''}, expected a list of [x, y]")
    try:
        return np.array(value, dtype=np.float64).reshape(-1, 2)
    except OverflowError as err:
        raise DataError("points has a number too large for a coordinate") from err


def _at_least(points: np.ndarray, count: int, kind: str) -> np.ndarray:
    if len(points) < count:
        raise DataError(f"the {kind} has {len(points)} points, expected at least {count}")
    return points


def _exactly(points: np.ndarray, count: int, kind: str) -> np.ndarray:
    if len(points) != count:
        raise DataError(f"the {kind} has {len(points)} points, expected {count}")
    return points


def _corners(points: np.ndarray) -> Box:
    """A rectangle may have been drawn from any of its corners."""
    (left, top), (right, bottom) = points.min(axis=0).tolist(), points.max(axis=0).tolist()
    return left, top, right, bottom


def _circle(points: np.ndarray) -> np.ndarray:
    """Centre and a point on the rim, as LabelMe has it."""
    centre, rim = points
    radius = float(np.hypot(*(rim - centre)))
    angle = np.arange(CIRCLE_POINTS) * (2 * math.pi / CIRCLE_POINTS)
    return centre + radius * np.stack([np.cos(angle), np.sin(angle)], axis=1)


def _mask(text: object, points: np.ndarray, size: tuple[int, int] | None) -> tuple[Box, Rle]:
    """A PNG in base64 that covers the pixels from the first point to the second, both included."""
    if size is None:
        raise DataError("a mask needs imageHeight and imageWidth")
    if not isinstance(text, str):
        raise DataError("mask is missing, expected a PNG in base64")
    part = read_bytes_as_index_map(decoded(text, "mask"), Path("mask")) > 0
    if not np.isfinite(points).all():
        raise DataError("the mask's points are no numbers")
    left, top = (round(value) for value in points[0].tolist())
    if left < 0 or top < 0 or left + part.shape[1] > size[1] or top + part.shape[0] > size[0]:
        raise DataError(f"the mask of {part.shape[1]} × {part.shape[0]} at ({left}, {top}) reaches out of the image")
    whole = np.zeros(size, dtype=bool)
    whole[top : top + part.shape[0], left : left + part.shape[1]] = part
    box = mask_to_box(whole)
    if box is None:
        raise DataError("the mask is empty")
    return box, mask_to_rle(whole)


def decoded(text: str, key: str) -> bytes:
    """Bytes of a base64 text.

    Raises:
        DataError: it is none.
    """
    try:
        return base64.b64decode(text, validate=True)
    except ValueError as err:
        raise DataError(f"{key} is no base64 ({err})") from err


def _flags(value: object) -> dict[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise DataError(f"flags is {str(value)[:40]!r}, expected an object of truth values")
    return dict(value)


# ------------------------------------------------------------------------------------------------ writing
def shapes_of(item: Object, name: str, group: int) -> tuple[list[dict[str, Any]], int]:
    """An object as LabelMe's shapes: several with one `group_id` where it has several parts.

    Args:
        item: the object.
        name: its class.
        group: a `group_id` that is free in the file, for an object of several parts that has none.

    Returns:
        The shapes, and the next free `group_id`.
    """
    attributes = {key: value for key, value in item.attributes.items() if key not in ("fill", *_SHAPE_KEYS)}
    flags = {**item.attributes.get("flags", {}), **{flag: True for flag in _FLAGS if getattr(item, flag)}}
    common = {"label": name, "group_id": item.attributes.get("group_id"), **attributes, "flags": flags}
    drawn, box = _drawn(item)
    if box != item.box:
        common["box"] = list(item.box)
    if len(drawn) > 1 and common["group_id"] is None:
        common["group_id"], group = group, group + 1
    return [{**common, **one} for one in drawn], group


def _drawn(item: Object) -> tuple[list[dict[str, Any]], Box]:
    """Kind and points of each shape, and the box that a reader takes from them."""
    if item.rle is not None:
        return _drawn_mask(item.rle, item.box)
    if not item.polygons:
        left, top, right, bottom = item.box
        inverted = right < left or bottom < top  # the corners' order would be lost; `box` keeps it
        box = (min(left, right), min(top, bottom), max(left, right), max(top, bottom)) if inverted else item.box
        return [{"shape_type": "rectangle", "points": [[left, top], [right, bottom]]}], box
    rings = item.polygons
    circle = _circle_of(item)
    if circle is not None:
        return [{"shape_type": "circle", "points": circle}], polygon_box(rings)
    if len(rings) > 1 and item.attributes.get("fill") != "union" and rings_overlap(rings):
        rings = [join_rings(rings)]
    return [{"shape_type": "polygon", "points": ring.tolist()} for ring in rings], polygon_box(rings)


def _circle_of(item: Object) -> list[list[float]] | None:
    """Centre and rim of a circle that was read as one and is unchanged."""
    points = item.attributes.get("points")
    if item.attributes.get("shape_type") != "circle" or len(item.polygons) != 1:
        return None
    try:
        same = np.array_equal(_circle(_exactly(_points(points), 2, "circle")), item.polygons[0])
    except DataError:
        return None
    return points if same else None


def _drawn_mask(rle: Rle, box: Box) -> tuple[list[dict[str, Any]], Box]:
    mask = rle_to_mask(rle)
    tight = mask_to_box(mask)
    if tight is None:
        return [], box
    left, top, right, bottom = map(int, tight)
    buffer = BytesIO()
    Image.fromarray(mask[top:bottom, left:right]).save(buffer, "PNG")
    text = base64.b64encode(buffer.getvalue()).decode("ascii")
    points = [[left, top], [right - 1, bottom - 1]]
    return [{"shape_type": "mask", "points": points, "mask": text}], tight
