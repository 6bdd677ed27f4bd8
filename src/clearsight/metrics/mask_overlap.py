"""Overlaps of masks that are kept as outlines: counted from runs of pixels, no mask is ever drawn."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from clearsight.errors import RangeError
from clearsight.metrics.overlaps import Overlap
from clearsight.types import Instances

__all__ = ["mask_iou", "mask_overlap"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

_CHUNK = 1_000_000  # runs looked up at once


class _Runs(NamedTuple):
    """Pixels of many masks as runs along their rows, on one tape: mask after mask, row after row.

    A row takes one place more than it has pixels, so that a run that ends at the border ends within its row.

    Args:
        start: `(k,)` places on the tape, ascending.
        stop: `(k,)` one past the last pixel.
        first: `(n + 1,)` the first run of each mask, and k.
        length: of the tape of one mask.
    """

    start: Ints
    stop: Ints
    first: Ints
    length: int

    @property
    def area(self) -> Floats:
        """`(n,)` pixels."""
        total = np.concatenate([[0], np.cumsum(self.stop - self.start)])
        return (total[self.first[1:]] - total[self.first[:-1]]).astype(np.float64)


def mask_overlap(found: Instances, truth: Instances, size: tuple[int, int]) -> Overlap:
    """Pixels that the masks of predictions and objects have, and have in common.

    A mask is what `ops.outlines.polygons_to_mask` draws from the rings of its object, by the even-odd rule and cut to
    the image: an object without rings, with a vertex that is no finite number, or outside the image has no pixel.

    Args:
        found: predictions with contours.
        truth: objects with contours.
        size: `(height, width)` of the image that both lie in.

    Returns:
        Intersections and areas, whole numbers.

    Raises:
        RangeError: there are objects but no contours.

    Cost: of the order of the outlines' heights, for pairs whose boxes meet; independent of the masks' areas.
    """
    runs_f, runs_t = _runs(found, size), _runs(truth, size)
    shared = np.zeros((len(found), len(truth)))
    pair_f, pair_t = np.nonzero(_boxes_meet(runs_f, runs_t, size[1] + 1))
    if len(pair_f):
        many = (runs_f.first[1:] - runs_f.first[:-1])[pair_f]
        portion = np.cumsum(many) // _CHUNK
        parts = np.split(np.arange(len(pair_f)), np.flatnonzero(np.diff(portion)) + 1)
        shared[pair_f, pair_t] = np.concatenate([_shared(runs_f, runs_t, pair_f[p], pair_t[p]) for p in parts])
    return Overlap(shared, runs_f.area, runs_t.area)


def mask_iou(
    found: Instances, truth: Instances, size: tuple[int, int], *, crowd: NDArray[np.bool_] | None = None
) -> Floats:
    """Intersection over union of every prediction's mask with every object's, as `pycocotools.mask.iou` gives it.

    Args:
        found: n predictions with contours; see `mask_overlap`.
        truth: m objects with contours.
        size: `(height, width)` of the image.
        crowd: `(m,)` objects that the overlap with is measured by the prediction's area alone; None for none.

    Returns:
        `(n, m)`; 0 where both are empty.
    """
    return mask_overlap(found, truth, size).iou(crowd)


def _runs(instances: Instances, size: tuple[int, int]) -> _Runs:
    """Where even-odd masks begin and end in each row: the crossings of `polygons_to_mask`, for all objects at once."""
    count, (height, width) = len(instances), size
    length = height * (width + 1)
    if instances.contours is None or instances.ring_object is None:
        if count:
            raise RangeError(f"{count} instances have no contours; expected the outlines of their masks")
        return _Runs(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(1, np.int64), length)
    rings = instances.contours.detach().cpu().numpy()
    owner, low, high = _edges(rings, instances.ring_object.cpu().numpy().astype(np.int64), count)
    first = np.clip(np.ceil(low[:, 1] - 0.5), 0, height).astype(np.int64)
    rows_each = np.clip(np.ceil(high[:, 1] - 0.5), 0, height).astype(np.int64) - first
    edge = np.repeat(np.arange(len(low)), rows_each)
    row = np.arange(len(edge)) - np.repeat(np.cumsum(rows_each) - rows_each, rows_each) + first[edge]
    slope = (high[:, 0] - low[:, 0]) / (high[:, 1] - low[:, 1])
    crossing = low[edge, 0] + (row + 0.5 - low[edge, 1]) * slope[edge]
    column = np.clip(np.ceil(crossing - 0.5), 0, width).astype(np.int64)
    # Closed rings cross the middle of a row an even number of times: every second stretch between crossings is inside.
    place = np.sort(owner[edge] * length + row * (width + 1) + column)
    start, stop = place[::2], place[1::2]
    kept = stop > start
    start, stop = start[kept], stop[kept]
    return _Runs(start, stop, np.searchsorted(start, np.arange(count + 1) * length), length)


def _edges(rings: np.ndarray, owner: Ints, count: int) -> tuple[Ints, Floats, Floats]:
    """The object of each edge that is not horizontal, and its upper and lower end, `(e, 2)` each."""
    broken = np.zeros(count, bool)
    broken[owner[~np.isfinite(rings).all(axis=(1, 2))]] = True
    rings, owner = rings[~broken[owner]], owner[~broken[owner]]
    ends = np.roll(rings, -1, axis=1)
    ring, vertex = np.nonzero(rings[..., 1] != ends[..., 1])
    starts, stops = rings[ring, vertex].astype(np.float64), ends[ring, vertex].astype(np.float64)
    down = (starts[:, 1] < stops[:, 1])[:, None]
    return owner[ring], np.where(down, starts, stops), np.where(down, stops, starts)


def _boxes_meet(found: _Runs, truth: _Runs, stride: int) -> Bools:
    """`(n, m)` whether the smallest boxes around two masks have a pixel in common."""
    a, b = _run_boxes(found, stride), _run_boxes(truth, stride)
    low, high = np.maximum(a[:, None, :2], b[None, :, :2]), np.minimum(a[:, None, 2:], b[None, :, 2:])
    return np.asarray((low < high).all(axis=2))


def _run_boxes(runs: _Runs, stride: int) -> Ints:
    """`(n, 4)` left, top, right, bottom; zeros for an empty mask."""
    boxes = np.zeros((len(runs.first) - 1, 4), np.int64)
    some = np.flatnonzero(runs.first[1:] > runs.first[:-1])
    if len(some):
        begin, end = runs.first[some], runs.first[some + 1] - 1
        boxes[some, 0] = np.minimum.reduceat(runs.start % stride, begin)
        boxes[some, 2] = np.maximum.reduceat(runs.stop % stride, begin)
        boxes[some, 1] = (runs.start[begin] - some * runs.length) // stride
        boxes[some, 3] = (runs.start[end] - some * runs.length) // stride + 1
    return boxes


def _shared(found: _Runs, truth: _Runs, pair_f: Ints, pair_t: Ints) -> Floats:
    """Pixels in common of pairs of masks that have runs both.

    Each run of the one is laid on the tape of the other: the pixels of the other up to its end, less those up to its
    start.
    """
    begin, many = found.first[pair_f], (found.first[1:] - found.first[:-1])[pair_f]
    offset = np.cumsum(many) - many
    run = np.arange(many.sum()) + np.repeat(begin - offset, many)
    shift = np.repeat((pair_t - pair_f) * found.length, many)
    before = np.concatenate([[0], np.cumsum(truth.stop - truth.start)])
    counts = _pixels_up_to(truth, before, found.stop[run] + shift) - _pixels_up_to(
        truth, before, found.start[run] + shift
    )
    return np.add.reduceat(counts, offset).astype(np.float64)


def _pixels_up_to(runs: _Runs, before: Ints, place: Ints) -> Ints:
    """Pixels of all runs that lie before a place on the tape; `before` counts those of earlier runs."""
    last = np.searchsorted(runs.start, place, side="right") - 1
    inside = np.minimum(place - runs.start[last], runs.stop[last] - runs.start[last])
    return np.where(last < 0, 0, before[last] + inside)
