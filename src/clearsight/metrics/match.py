"""Which detections hit which objects, once an image: everything else about a detector is counted from this.

Method: the greedy matching of Lin et al. 2014, arXiv:1405.0312, as pycocotools does it, including crowds, objects
outside a size range, and ties. All images, classes, size ranges and IoU thresholds are matched together: the loop runs
over the rank of a detection within its image and class (at most 100 turns), never over images.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from clearsight.errors import RangeError
from clearsight.metrics.overlaps import (
    Pairs,
    Places,
    find_places,
    join_pairs,
    padded_box_iou,
    padded_pairs,
    rank_in_group,
)
from clearsight.metrics.results import ImageResult

__all__ = ["COCO_AREAS", "COCO_IOUS", "Flat", "Matches", "flatten", "match_coco", "match_voc"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

COCO_IOUS: Floats = np.linspace(0.5, 0.95, 10)
COCO_AREAS: dict[str, tuple[float, float]] = {
    "all": (0.0, 1e10),
    "small": (0.0, 32.0**2),
    "medium": (32.0**2, 96.0**2),
    "large": (96.0**2, 1e10),
}
"""Areas in px², both ends included, as COCO has it."""

_CHUNK = 4_000_000  # elements of the largest intermediate array


@dataclass(frozen=True, slots=True, kw_only=True)
class Flat:
    """Objects of many images in a row, ordered by image, class and falling score.

    Args:
        image: `(m,)` position of the image.
        label: `(m,)` class.
        boxes: `(m, 4)` xyxy.
        score: `(m,)`; zeros for annotated objects.
        ignore: `(m,)`; never set for detections.
        origin: `(m,)` position among the objects of the same image as given.
        area: `(m,)` px², of the boxes or of what else is matched.
    """

    image: Ints
    label: Ints
    boxes: Floats
    score: Floats
    ignore: Bools
    origin: Ints
    area: Floats

    def __len__(self) -> int:
        return len(self.image)


@dataclass(frozen=True, slots=True, kw_only=True)
class Matches:
    """What became of each detection, for each size range (a) and IoU threshold (t).

    Args:
        image: `(m,)` image of a detection.
        label: `(m,)` its class.
        score: `(m,)` its score.
        hit: `(a, t, m)` it found an object that counts.
        skip: `(a, t, m)` it counts neither way: it found an ignored object, or is itself outside the size range.
        truth: `(a, n, k)` objects that count, by image and class.
    """

    image: Ints
    label: Ints
    score: Floats
    hit: Bools
    skip: Bools
    truth: Ints


def flatten(
    results: Sequence[ImageResult],
    num_classes: int,
    *,
    predicted: bool,
    limit: int | None = None,
    least: float | None = None,
    areas: Sequence[Floats] | None = None,
) -> Flat:
    """The predicted or annotated objects of all images in a row.

    Args:
        results: one an image.
        num_classes: labels must lie below it.
        predicted: the predictions, else the truth.
        limit: keep this many of the highest scores an image and class.
        least: keep scores of at least this.
        areas: `(n,)` px² of each image's objects; None takes those of the boxes.

    Raises:
        RangeError: a label lies outside the classes, or a prediction has no score.
    """
    columns: list[tuple[np.ndarray, ...]] = []
    for position, result in enumerate(results):
        found = result.predicted if predicted else result.truth
        count = len(found)
        if predicted and count and found.scores is None:
            raise RangeError(f"{result.path}: predicted instances have no scores; expected one in [0, 1] each")
        score = found.scores if predicted and found.scores is not None else None
        columns.append(
            (
                np.full(count, position),
                found.labels.cpu().numpy(),
                found.boxes.reshape(-1, 4).cpu().numpy(),
                np.zeros(count) if score is None else score.float().cpu().numpy(),
                np.zeros(count, bool) if predicted or found.ignore is None else found.ignore.cpu().numpy(),
                np.arange(count),
                np.zeros(count) if areas is None else areas[position],
            )
        )
        if count and not 0 <= int(columns[-1][1].min()) <= int(columns[-1][1].max()) < num_classes:
            raise RangeError(f"{result.path}: labels {sorted(set(columns[-1][1].tolist()))} with {num_classes} classes")
    empty = (np.zeros(0), np.zeros(0), np.zeros((0, 4)), np.zeros(0), np.zeros(0), np.zeros(0), np.zeros(0))
    image, label, boxes, score, ignore, origin, area = (np.concatenate(c) for c in zip(empty, *columns, strict=True))
    group = image.astype(np.int64) * num_classes + label.astype(np.int64)
    order = np.lexsort((-score, group))  # stable: equal scores stay in the order given, as pycocotools has it
    if limit is not None:
        order = order[rank_in_group(group[order]) < limit]
    if least is not None:
        order = order[score[order] >= least]
    boxes = boxes[order].astype(np.float64)
    return Flat(
        image=image[order].astype(np.int64),
        label=label[order].astype(np.int64),
        boxes=boxes,
        score=score[order].astype(np.float64),
        ignore=ignore[order].astype(bool),
        origin=origin[order].astype(np.int64),
        area=(boxes[:, 2:] - boxes[:, :2]).prod(axis=1) if areas is None else area[order].astype(np.float64),
    )


def match_coco(
    found: Flat,
    truth: Flat,
    *,
    images: int,
    classes: int,
    areas: Sequence[tuple[float, float]],
    ious: Floats = COCO_IOUS,
    overlaps: Sequence[Floats] | None = None,
) -> Matches:
    """Match by COCO's rules.

    Args:
        found: detections, already limited to 100 an image and class.
        truth: objects; ignored ones are crowds: their overlap is measured by the detection's area, any number of
            detections may fall on one, and none of those counts.
        images: number of images.
        classes: number of classes.
        areas: size ranges in px², both ends included.
        ious: `(t,)` thresholds.
        overlaps: `(n, m)` of each image's predictions and objects as given (by `origin`), crowds by their own rule;
            None measures the boxes.
    """
    pairs = None if overlaps is None else join_pairs(overlaps)
    limits = np.asarray(areas, np.float64).reshape(-1, 2)
    hit = np.zeros((len(limits), len(ious), len(found)), bool)
    skip = np.zeros_like(hit)
    out_of_range = _outside(truth.area, limits) | truth.ignore  # a m
    group_f, group_t = found.image * classes + found.label, truth.image * classes + truth.label
    for part_f, part_t in _parts(group_f, group_t, len(limits) * len(ious)):
        hit[..., part_f], skip[..., part_f] = _match_part(
            found, truth, part_f, part_t, (group_f, group_t), out_of_range, np.minimum(ious, 1 - 1e-10), pairs
        )
    missed_outside = _outside(found.area, limits)[:, None, :] & ~hit
    counts = np.zeros((len(limits), images * classes), np.int64)
    for a, ignored in enumerate(out_of_range):
        counts[a] = np.bincount(group_t[~ignored], minlength=images * classes)
    return Matches(
        image=found.image,
        label=found.label,
        score=found.score,
        hit=hit,
        skip=skip | missed_outside,
        truth=counts.reshape(len(limits), images, classes),
    )


def match_voc(
    found: Flat,
    truth: Flat,
    *,
    images: int,
    classes: int,
    iou: float = 0.5,
    overlaps: Sequence[Floats] | None = None,
) -> Matches:
    """Match by Pascal VOC's rules (Everingham et al. 2010): a detection stands for the object it overlaps most.

    The first to claim an object hits it, later ones are false; claims on a difficult (ignored) object do not count.
    `overlaps` as for `match_coco`, without a rule for crowds.
    """
    pairs = None if overlaps is None else join_pairs(overlaps)
    group_f, group_t = found.image * classes + found.label, truth.image * classes + truth.label
    best = np.full(len(found), -1, np.int64)
    for part_f, part_t in _parts(group_f, group_t, 1):
        row_f, row_t, shape = places = find_places(group_f[part_f], group_t[part_t])
        overlap = _padded(found, truth, part_f, part_t, None, places, pairs)
        index = np.full((shape[0], shape[2]), -1, np.int64)
        index[row_t] = part_t
        top = overlap.argmax(axis=2)  # g d
        enough = np.take_along_axis(overlap, top[:, :, None], 2)[:, :, 0] >= iou
        claimed = np.where(enough, np.take_along_axis(index, top, 1), -1)
        best[part_f] = claimed[row_f]
    skip = (best >= 0) & truth.ignore[best] if len(truth) else np.zeros(len(found), bool)
    first = np.zeros(len(found), bool)
    first[np.unique(best, return_index=True)[1]] = True  # detections stand in order of score within a group
    counts = np.bincount(group_t[~truth.ignore], minlength=images * classes).reshape(1, images, classes)
    return Matches(
        image=found.image,
        label=found.label,
        score=found.score,
        hit=(first & (best >= 0) & ~skip)[None, None],
        skip=skip[None, None],
        truth=counts,
    )


def _outside(area: Floats, limits: Floats) -> Bools:
    return (area < limits[:, :1]) | (area > limits[:, 1:])


def _parts(group_f: Ints, group_t: Ints, states: int) -> list[tuple[Ints, Ints]]:
    """Groups that have both detections and objects, in portions of like size, so that padding stays small."""
    groups, many_f = np.unique(group_f, return_counts=True)
    groups_t, many_t = np.unique(group_t, return_counts=True)
    both, at_f, at_t = np.intersect1d(groups, groups_t, assume_unique=True, return_indices=True)
    order = np.lexsort((many_f[at_f], many_t[at_t]))
    parts: list[tuple[Ints, Ints]] = []
    start = 0
    while start < len(order):
        stop, width_t, width_f = start, 0, 0
        while stop < len(order):
            width_t = max(width_t, int(many_t[at_t[order[stop]]]))
            width_f = max(width_f, int(many_f[at_f[order[stop]]]))
            if stop > start and (stop - start + 1) * width_t * max(states, width_f) > _CHUNK:
                break
            stop += 1
        chosen = np.sort(both[order[start:stop]])
        parts.append((np.flatnonzero(np.isin(group_f, chosen)), np.flatnonzero(np.isin(group_t, chosen))))
        start = stop
    return parts


def _padded(
    found: Flat, truth: Flat, part_f: Ints, part_t: Ints, crowd: Bools | None, places: Places, pairs: Pairs | None
) -> Floats:
    """`(groups, detections, objects)` overlaps; -1 where a place is empty."""
    if pairs is None:
        return padded_box_iou(found.boxes[part_f], truth.boxes[part_t], crowd, places)
    return padded_pairs(pairs, found.image[part_f], found.origin[part_f], truth.origin[part_t], places)


def _match_part(
    found: Flat,
    truth: Flat,
    part_f: Ints,
    part_t: Ints,
    groups: tuple[Ints, Ints],
    out_of_range: Bools,
    ious: Floats,
    pairs: Pairs | None,
) -> tuple[Bools, Bools]:
    """Greedy matching of one portion: `(a, t, part)` hits and skips."""
    row_f, row_t, shape = places = find_places(groups[0][part_f], groups[1][part_t])
    crowd = truth.ignore[part_t]
    overlap = _padded(found, truth, part_f, part_t, crowd, places, pairs)
    number, width_f, width_t = shape
    ignored = np.ones((number, len(out_of_range), 1, width_t), bool)
    ignored[row_t[0], :, 0, row_t[1]] = out_of_range[:, part_t].T
    again = np.zeros((number, 1, 1, width_t), bool)  # crowds may be found again and again
    again[row_t[0], 0, 0, row_t[1]] = crowd
    # Best first: objects that count, then overlap, then (for equal overlaps) the later object. Ranks are exact where
    # adding a bonus to the overlap would round it.
    rank = overlap.argsort(axis=2, kind="stable").argsort(axis=2, kind="stable")
    free = np.ones((number, len(out_of_range), len(ious), width_t), bool)
    hit = np.zeros((number, width_f, len(out_of_range), len(ious)), bool)
    skip = np.zeros_like(hit)
    for d in range(width_f):
        able = (free | again) & (overlap[:, d, None, None, :] >= ious[:, None])
        preference = rank[:, d, None, None, :] + width_t * ~ignored
        best = np.where(able, preference, -1).argmax(axis=3)[..., None]
        matched = np.take_along_axis(able, best, 3)
        is_ignored = np.take_along_axis(np.broadcast_to(ignored, able.shape), best, 3)
        hit[:, d], skip[:, d] = (matched & ~is_ignored)[..., 0], (matched & is_ignored)[..., 0]
        np.put_along_axis(free, best, np.take_along_axis(free, best, 3) & ~matched, 3)
    return hit[row_f].transpose(1, 2, 0), skip[row_f].transpose(1, 2, 0)
