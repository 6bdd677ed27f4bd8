"""Maps of instance numbers to objects and back; 0 is background."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from clearsight.ops.masks import rle_to_mask
from clearsight.ops.outlines import polygons_to_mask
from clearsight.types import Object, Rle

__all__ = ["Instance", "draw_instances", "split_instances"]

Instance = tuple[int, tuple[float, float, float, float], Rle]
"""Its number in the map, its box (xyxy, half-open) and its mask."""


def split_instances(numbers: np.ndarray) -> list[Instance]:
    """Every instance of a map, by ascending number.

    Args:
        numbers: `(h, w)` integers; 0 is background.

    Cost: one sort of the map's runs; no mask of the whole image is made for each instance.
    """
    height, width = numbers.shape
    flat = np.ascontiguousarray(numbers.T).ravel()  # down the columns, as run lengths go
    begins = np.flatnonzero(np.diff(flat, prepend=flat[:1])) if flat.size else np.zeros(0, np.int64)
    begins = np.concatenate([np.zeros(min(1, flat.size), np.int64), begins])
    lengths = np.diff(begins, append=flat.size)
    values = flat[begins]
    order = np.argsort(values, kind="stable")
    order = order[values[order] != 0]
    found = []
    for runs in np.split(order, np.flatnonzero(np.diff(values[order])) + 1):
        if len(runs):
            start, length = begins[runs], lengths[runs]
            box = _box(start, length, height)
            found.append((int(values[runs[0]]), box, _rle(start, length, (height, width))))
    return found


def _rle(start: np.ndarray, length: np.ndarray, size: tuple[int, int]) -> Rle:
    ends = start + length
    gaps = start - np.concatenate([[0], ends[:-1]])
    counts = np.stack([gaps, length], axis=1).ravel().tolist()
    rest = size[0] * size[1] - int(ends[-1])
    return Rle(size=size, counts=tuple(counts + ([rest] if rest else [])))


def _box(start: np.ndarray, length: np.ndarray, height: int) -> tuple[float, float, float, float]:
    last = start + length - 1
    left, right = int(start[0] // height), int(last[-1] // height) + 1
    if (start // height != last // height).any():  # a run that goes on in the next column touches both borders
        return float(left), 0.0, float(right), float(height)
    return float(left), float((start % height).min()), float(right), float((last % height).max() + 1)


def draw_instances(objects: Sequence[Object], size: tuple[int, int], numbers: Sequence[int]) -> tuple[np.ndarray, int]:
    """A map of instance numbers from masks or polygons; later objects cover earlier ones.

    Args:
        objects: those without a mask and without polygons are passed over.
        size: `(height, width)`.
        numbers: the number of each object, 1 to 65535.

    Returns:
        `(h, w)` uint16, and how many pixels more than one object claimed.
    """
    drawn = np.zeros(size, np.uint16)
    claimed = 0
    for item, number in zip(objects, numbers, strict=True):
        mask = object_mask(item, size)
        if mask is not None:
            claimed += int(np.count_nonzero(drawn[mask]))
            drawn[mask] = number
    return drawn, claimed


def object_mask(item: Object, size: tuple[int, int]) -> np.ndarray | None:
    """`(h, w)` bool of one object; None where it has only a box."""
    if item.rle is not None:
        return rle_to_mask(item.rle) if item.rle.size == size else None
    if not item.polygons:
        return None
    if item.attributes.get("fill") == "union":
        return polygons_to_mask(item.polygons, size, fill="union")
    return polygons_to_mask(item.polygons, size)
