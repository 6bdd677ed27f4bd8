"""The shape of an object in COCO JSON: boxes, polygons and run lengths, to plain values and back."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from clearsight.errors import DataError
from clearsight.ops.contours import polygon_box
from clearsight.ops.masks import mask_to_box, rle_from_string, rle_to_mask, rle_to_string
from clearsight.types import Object, Rle

__all__ = [
    "box_of_shape",
    "box_to_xywh",
    "needs_corners",
    "parse_box",
    "parse_segmentation",
    "rings_overlap",
    "segmentation_of",
]

Box = tuple[float, float, float, float]


def _all_numbers(values: list[Any]) -> bool:
    """Only ints and floats, NaN included; a truth value is no number here."""
    return {int, float}.issuperset(map(type, values))


def parse_box(value: object, corners: object = None) -> Box:
    """COCO's `[x, y, width, height]` as xyxy.

    Args:
        value: the list.
        corners: xyxy with all digits, where `needs_corners` made the writer add them; taken if they mean the same box.

    Raises:
        DataError: not four numbers.
    """
    if not isinstance(value, list) or len(value) != 4 or not _all_numbers(value):
        raise DataError(f"bbox is {_short(value)}, expected four numbers [x, y, width, height]")
    left, top, width, height = map(float, value)
    box = left, top, left + width, top + height
    if isinstance(corners, list) and len(corners) == 4 and _all_numbers(corners):
        x0, y0, x1, y1 = map(float, corners)
        exact = x0, y0, x1, y1
        if all(math.isclose(one, other, rel_tol=1e-12, abs_tol=1e-9) for one, other in zip(box, exact, strict=True)):
            return exact
    return box


def box_to_xywh(box: Box, given: object = None) -> list[float]:
    """COCO's form of a box.

    Args:
        box: xyxy.
        given: the list that the box was read from, if it is known: given back where it still means this very box,
            since a width that is added and subtracted again can differ in its last digit.
    """
    try:
        if parse_box(given) == box:
            return list(given)  # type: ignore[arg-type] - parse_box has seen that it is a list
    except DataError:
        pass
    left, top, right, bottom = box
    return [_plain(left), _plain(top), _plain(right - left), _plain(bottom - top)]


def needs_corners(box: Box) -> bool:
    """Whether no width and height, added to the left upper corner, give these very corners again.

    That is so for about no box that anyone drew, but for some of many digits: the sum lies halfway between two floats.
    Negative and non-finite coordinates are left to what a sum of floats gives.
    """
    left, top, right, bottom = box
    exact = left + (right - left) == right and top + (bottom - top) == bottom
    return not exact and all(map(math.isfinite, box))


def _plain(value: float) -> float:
    return int(value) if float(value).is_integer() else value


def parse_segmentation(value: object) -> tuple[list[np.ndarray], Rle | None]:
    """Polygons, or run lengths, or neither for `[]`, `[[]]` and null.

    Raises:
        DataError: another type, an odd number of coordinates, no ring of three vertices, or runs that do not fit their
            size. A shorter ring beside others is given as it is; `check_object` drops it.
    """
    if value is None:
        return [], None
    if isinstance(value, dict):
        return [], _parse_rle(value)
    if not isinstance(value, list):
        raise DataError(f"segmentation is {_short(value)}, expected a list of rings or an object with counts and size")
    rings = [value] if value and _all_numbers(value) else value  # one ring without its outer list
    parsed = [_parse_ring(ring) for ring in rings if ring != []]
    if parsed and all(len(ring) < 3 for ring in parsed):
        raise DataError(f"segmentation has a ring of {parsed[0].size} numbers, expected an even number of at least 6")
    return parsed, None


def _parse_ring(ring: object) -> np.ndarray:
    if not isinstance(ring, list) or not _all_numbers(ring):
        raise DataError(f"segmentation has the ring {_short(ring)}, expected numbers [x1, y1, x2, y2, …]")
    if len(ring) % 2:
        raise DataError(f"segmentation has a ring of {len(ring)} numbers, expected an even number of at least 6")
    return np.array(ring, dtype=np.float64).reshape(-1, 2)


def _parse_rle(value: dict[str, Any]) -> Rle:
    size, counts = value.get("size"), value.get("counts")
    if not isinstance(size, list) or len(size) != 2 or not all(isinstance(side, int) and side >= 0 for side in size):
        raise DataError(f"segmentation.size is {_short(size)}, expected [height, width]")
    shape = (size[0], size[1])
    if isinstance(counts, str):
        rle = rle_from_string(counts, shape)
    elif isinstance(counts, list) and all(isinstance(run, int) and run >= 0 for run in counts):
        rle = Rle(size=shape, counts=tuple(counts))
    else:
        raise DataError(f"segmentation.counts is {_short(counts)}, expected a string or a list of whole numbers")
    if sum(rle.counts) != shape[0] * shape[1]:
        raise DataError(f"segmentation.counts add up to {sum(rle.counts)}, expected {shape[0]} × {shape[1]}")
    return rle


def segmentation_of(item: Object) -> dict[str, Any] | list[list[float]]:
    """COCO's form of an object's mask: run lengths where it has them, else polygons; `[]` for neither."""
    if item.rle is not None:
        return {"size": list(item.rle.size), "counts": rle_to_string(item.rle)}
    return [np.asarray(ring, dtype=np.float64).ravel().tolist() for ring in item.polygons]


def box_of_shape(polygons: list[np.ndarray], rle: Rle | None) -> Box | None:
    """The box around a mask, for annotations without `bbox`; None where there is no mask either."""
    if rle is not None:
        return mask_to_box(rle_to_mask(rle))
    return polygon_box(polygons) if polygons else None


def rings_overlap(rings: list[np.ndarray]) -> bool:
    """Whether the boxes of any two rings overlap, so that the rule of filling may matter."""
    if len(rings) < 2:
        return False
    boxes = np.array([[*ring.min(axis=0), *ring.max(axis=0)] for ring in rings])
    low = np.maximum(boxes[:, None, :2], boxes[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], boxes[None, :, 2:])
    overlaps = (low < high).all(axis=2)
    return int(overlaps.sum()) > len(rings)


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "…"
