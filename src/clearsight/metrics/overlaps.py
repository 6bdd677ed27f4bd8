"""How far what was found covers what is there: intersections and areas, an image at a time or padded for matching."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "Overlap",
    "Pairs",
    "Places",
    "box_overlap",
    "find_places",
    "join_pairs",
    "padded_box_iou",
    "padded_pairs",
    "rank_in_group",
]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]


class Overlap(NamedTuple):
    """Every prediction of an image against every object, areas in px².

    Args:
        intersection: `(n, m)`.
        found: `(n,)` areas of the predictions.
        truth: `(m,)` areas of the objects.
    """

    intersection: Floats
    found: Floats
    truth: Floats

    def iou(self, crowd: Bools | None = None) -> Floats:
        """`(n, m)` intersection over union, 0 where both are empty; columns of a crowd are measured as `covered`."""
        union = self.found[:, None] + self.truth[None, :] - self.intersection
        if crowd is not None:
            union = np.where(crowd[None, :], self.found[:, None], union)
        return _ratio(self.intersection, union)

    def covered(self) -> Floats:
        """`(n, m)` share of the prediction that lies on the object, 0 for an empty prediction."""
        return _ratio(self.intersection, np.broadcast_to(self.found[:, None], self.intersection.shape))


def _ratio(part: Floats, whole: Floats) -> Floats:
    return np.divide(part, whole, out=np.zeros_like(part), where=whole > 0)


def box_overlap(found: Floats, truth: Floats) -> Overlap:
    """The overlap of `(n, 4)` and `(m, 4)` xyxy boxes."""
    low, high = np.maximum(found[:, None, :2], truth[None, :, :2]), np.minimum(found[:, None, 2:], truth[None, :, 2:])
    areas = ((boxes[:, 2:] - boxes[:, :2]).prod(-1) for boxes in (found, truth))
    return Overlap(np.clip(high - low, 0, None).prod(-1), *areas)


# ------------------------------------------------------------------------------------------------ many images
class Places(NamedTuple):
    """Where detections and objects of many groups stand in padded arrays.

    Args:
        found: `(row, column)` of each detection in `(groups, detections)`.
        truth: `(row, column)` of each object in `(groups, objects)`.
        shape: `(groups, detections, objects)`.
    """

    found: tuple[Ints, Ints]
    truth: tuple[Ints, Ints]
    shape: tuple[int, int, int]


def rank_in_group(group: Ints) -> Ints:
    """Position of each element within its run of equal values; `group` is sorted."""
    _, start, count = np.unique(group, return_index=True, return_counts=True)
    return np.arange(len(group)) - np.repeat(start, count)


def find_places(group_f: Ints, group_t: Ints) -> Places:
    """Where each object stands in padded arrays `(groups, detections)` and `(groups, objects)`."""
    names, row_f = np.unique(group_f, return_inverse=True)
    row_t = np.searchsorted(names, group_t)
    column_f, column_t = rank_in_group(group_f), rank_in_group(group_t)
    shape = (len(names), int(column_f.max()) + 1, int(column_t.max()) + 1)
    return Places((row_f, column_f), (row_t, column_t), shape)


class Pairs(NamedTuple):
    """Matrices of many images in a row.

    Args:
        values: all of them, row by row.
        start: where each image begins.
        width: the columns of each image.
    """

    values: Floats
    start: Ints
    width: Ints


def join_pairs(matrices: Sequence[Floats]) -> Pairs:
    """One `(n, m)` matrix an image in a row."""
    sizes = np.array([matrix.size for matrix in matrices], np.int64)
    return Pairs(
        values=np.concatenate([np.zeros(0), *(matrix.ravel() for matrix in matrices)]),
        start=np.cumsum(sizes) - sizes,
        width=np.array([matrix.shape[1] for matrix in matrices], np.int64),
    )


def padded_box_iou(found: Floats, truth: Floats, crowd: Bools | None, places: Places) -> Floats:
    """Overlaps of boxes within their groups; crowds by the detection's area.

    Args:
        found: `(f, 4)` xyxy.
        truth: `(t, 4)` xyxy.
        crowd: `(t,)`, or None for none.
        places: of these boxes.

    Returns:
        `(groups, detections, objects)`; -1 where a place is empty.
    """
    row_f, row_t, (groups, width_f, width_t) = places
    f, t = np.full((groups, width_f, 4), np.nan), np.full((groups, width_t, 4), np.nan)
    f[row_f], t[row_t] = found, truth
    low = np.maximum(f[:, :, None, :2], t[:, None, :, :2])
    high = np.minimum(f[:, :, None, 2:], t[:, None, :, 2:])
    inter = np.clip(high - low, 0, None).prod(axis=-1)
    area_f, area_t = (f[..., 2:] - f[..., :2]).prod(-1)[:, :, None], (t[..., 2:] - t[..., :2]).prod(-1)[:, None, :]
    union = area_f + area_t - inter
    if crowd is not None:
        is_crowd = np.zeros((groups, 1, width_t), bool)
        is_crowd[row_t[0], 0, row_t[1]] = crowd
        union = np.where(is_crowd, area_f, union)
    return np.where(np.isnan(inter), -1.0, _ratio(inter, union))


def padded_pairs(pairs: Pairs, image: Ints, origin_f: Ints, origin_t: Ints, places: Places) -> Floats:
    """Overlaps that are known already, within their groups.

    Args:
        pairs: of all images.
        image: `(f,)` image of each detection; a group lies in one image.
        origin_f: `(f,)` row of each detection in its image's matrix.
        origin_t: `(t,)` column of each object.
        places: of these detections and objects.

    Returns:
        `(groups, detections, objects)`; -1 where a place is empty.
    """
    row_f, row_t, (groups, width_f, width_t) = places
    f, t = np.full((groups, width_f), -1, np.int64), np.full((groups, width_t), -1, np.int64)
    f[row_f], t[row_t] = origin_f, origin_t
    where = np.zeros(groups, np.int64)
    where[row_f[0]] = image
    rows = pairs.start[where][:, None] + f * pairs.width[where][:, None]
    empty = (f < 0)[:, :, None] | (t < 0)[:, None, :]
    return np.where(empty, -1.0, pairs.values[np.where(empty, 0, rows[:, :, None] + t[:, None, :])])
