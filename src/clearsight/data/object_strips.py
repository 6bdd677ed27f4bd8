"""The masks of an image's objects, each in its own window, the windows one above the other in one long mask."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from clearsight.data.object_rings import is_union
from clearsight.ops.contours import polygon_box
from clearsight.ops.outlines import polygons_to_mask
from clearsight.types import Object, Rle

__all__ = ["Strip", "draw_strips"]

_PIXELS = 16_000_000

Window = tuple[int, int, int, int]
"""Left, top, right, bottom in the image; half-open."""


class Strip(NamedTuple):
    """Masks one above the other, with a row of False between them and a frame of False around.

    Args:
        pixels: `(rows, columns)` bool.
        objects: `(k,)` position of each object in the sequence that was given.
        windows: `(k, 4)` xyxy of each in its image, half-open; empty where an object has no pixel.
        rows: `(k,)` ascending, the row of each window's top; its left column is 1.
    """

    pixels: np.ndarray
    objects: np.ndarray
    windows: np.ndarray
    rows: np.ndarray

    def mask(self, number: int) -> np.ndarray:
        """The mask of the strip's object `number` within its window, `(h, w)`, a view."""
        left, top, right, bottom = self.windows[number].tolist()
        row = int(self.rows[number])
        return self.pixels[row : row + bottom - top, 1 : 1 + right - left]

    def owner(self, rows: np.ndarray) -> np.ndarray:
        """The strip's object that rows belong to."""
        return np.searchsorted(self.rows, rows, side="right") - 1


def draw_strips(objects: Sequence[Object], size: tuple[int, int] | None, *, pixels: int = _PIXELS) -> list[Strip]:
    """Draw the masks of objects, as training and scores do, without an image-sized mask for each.

    Args:
        objects: those without run lengths and polygons are left out.
        size: `(height, width)` of the image that windows are cut to; None leaves them as they are.
        pixels: of a strip at most, unless a single object has more.

    Raises:
        DataError: a vertex is NaN or infinite.
    """
    strips, waiting, windows = [], [], []
    rows = columns = 0
    for number, item in enumerate(objects):
        if item.rle is None and not item.polygons:
            continue
        window = _window(item, size)
        height, width = window[3] - window[1] + 1, window[2] - window[0] + 2
        if waiting and (rows + height) * max(columns, width) > pixels:
            strips.append(_draw(objects, waiting, windows))
            waiting, windows, rows, columns = [], [], 0, 0
        waiting.append(number)
        windows.append(window)
        rows, columns = rows + height, max(columns, width)
    return [*strips, _draw(objects, waiting, windows)] if waiting else strips


def _window(item: Object, size: tuple[int, int] | None) -> Window:
    if item.rle is not None:
        return _rle_window(item.rle)
    left, top, right, bottom = polygon_box(item.polygons)
    left, top, right, bottom = math.floor(left), math.floor(top), math.ceil(right), math.ceil(bottom)
    if size is not None:
        left, top, right, bottom = max(left, 0), max(top, 0), min(right, size[1]), min(bottom, size[0])
    return (left, top, right, bottom) if left < right and top < bottom else (0, 0, 0, 0)


def _rle_window(rle: Rle) -> Window:
    height = rle.size[0]
    ends = np.cumsum(np.asarray(rle.counts, dtype=np.int64))
    start, end = ends[:-1:2], ends[1::2]
    start, last = start[end > start], end[end > start] - 1
    if not len(start):
        return 0, 0, 0, 0
    left, right = int(start[0] // height), int(last[-1] // height) + 1
    if (start // height != last // height).any():  # a run that goes on in the next column touches both borders
        return left, 0, right, height
    return left, int((start % height).min()), right, int((last % height).max()) + 1


def _draw(objects: Sequence[Object], chosen: list[int], windows: list[Window]) -> Strip:
    box = np.array(windows, dtype=np.int64).reshape(-1, 4)
    heights = box[:, 3] - box[:, 1] + 1
    rows = np.cumsum(heights) - heights + 1
    size = int(heights.sum()) + 1, int((box[:, 2] - box[:, 0]).max()) + 2
    shapes: dict[bool, list[np.ndarray]] = {False: [], True: []}
    unpacked = []
    for number, (left, top, right, bottom), row in zip(chosen, windows, rows.tolist(), strict=True):
        item = objects[number]
        if item.rle is not None:
            unpacked.append((row, _unpack(item.rle, (left, top, right, bottom))))
        elif left < right:
            move = np.array((1 - left, row - top))
            shapes[is_union(item)] += [np.asarray(ring, dtype=np.float64) + move for ring in item.polygons]
    # Windows share no row, so that all objects can be drawn as if they were one.
    pixels = polygons_to_mask(shapes[False], size)
    if shapes[True]:
        pixels |= polygons_to_mask(shapes[True], size, fill="union")
    for row, mask in unpacked:
        pixels[row : row + mask.shape[0], 1 : 1 + mask.shape[1]] = mask
    return Strip(pixels, np.array(chosen), box, rows)


def _unpack(rle: Rle, window: Window) -> np.ndarray:
    """The part of run lengths that lies in a window, `(h, w)` bool."""
    left, top, right, bottom = window
    height = rle.size[0]
    ends = np.cumsum(np.asarray(rle.counts, dtype=np.int64))
    ends = np.clip(ends, left * height, right * height) - left * height
    inside = np.arange(len(ends)) % 2 == 1
    return np.repeat(inside, np.diff(ends, prepend=0)).reshape(right - left, height).T[top:bottom]
