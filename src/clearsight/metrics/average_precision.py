"""Average precision from matches, for many weightings of the images at once.

A bootstrap resample is a weighting: an image drawn twice counts twice. Copies of a detection have the same score, so
counting them in one step or one after the other gives the same interpolated precision; a resample therefore needs no
new matching and no new sorting, only cumulative sums.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from clearsight.metrics.match import Matches

__all__ = ["ApTable", "Ranking", "average_precision", "class_ranking", "voc_average_precision"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

_RECALLS: Floats = np.linspace(0.0, 1.0, 101)
_CHUNK = 4_000_000  # elements of the largest intermediate array


class ApTable(NamedTuple):
    """Average precision and highest recall, each `(b, a, t, k)`; NaN for a class that has no objects.

    The axes are weightings, size ranges, IoU thresholds and classes.
    """

    ap: Floats
    recall: Floats


class Ranking(NamedTuple):
    """The detections of one class by falling score, at one size range and IoU threshold.

    Args:
        score: `(m,)`.
        hit: `(m,)` cumulative number of objects found.
        false: `(m,)` cumulative number of false detections.
        truth: number of objects.
    """

    score: Floats
    hit: Ints
    false: Ints
    truth: int


def average_precision(matches: Matches, *, weights: Ints | None = None, areas: slice = slice(None)) -> ApTable:
    """COCO's average precision: the mean of the precision envelope at 101 recalls (Lin et al. 2014).

    Args:
        matches: what became of each detection.
        weights: `(b, n)` how often each image counts; None counts each once (b = 1).
        areas: the size ranges wanted.

    Returns:
        Two `(b, a, t, k)` arrays.
    """
    hit, skip, truth = matches.hit[areas], matches.skip[areas], matches.truth[areas]
    images, classes = truth.shape[1:]
    weights = np.ones((1, images), np.int64) if weights is None else weights
    ap = np.full((len(weights), len(hit), hit.shape[1], classes), np.nan)
    recall = ap.copy()
    for label in range(classes):
        here = np.flatnonzero(matches.label == label)
        order = here[np.argsort(-matches.score[here], kind="stable")]
        for area in range(len(hit)):
            objects = weights @ truth[area, :, label]
            good, counted = hit[area][:, order], ~skip[area][:, order]
            step = max(1, _CHUNK // max(1, good.size))
            for start in range(0, len(weights), step):
                rows = slice(start, start + step)
                count = weights[rows][:, matches.image[order]]
                ap[rows, area, :, label], recall[rows, area, :, label] = _interpolate(
                    good, counted, count, objects[rows]
                )
    return ApTable(ap, recall)


def _interpolate(
    good: NDArray[np.bool_], counted: NDArray[np.bool_], count: Ints, objects: Ints
) -> tuple[Floats, Floats]:
    """`(t, m)` outcomes and `(b, m)` counts to `(b, t)` average precision and recall."""
    thresholds, rows = len(good), len(count)
    undefined = objects == 0
    # Precision rises only at hits: the envelope, and where a recall is reached, need no other places.
    hit = np.flatnonzero(good.any(axis=0))
    if not len(hit):
        nothing = np.where(undefined, np.nan, 0.0)[:, None].repeat(thresholds, axis=1)
        return nothing, nothing.copy()
    hits = np.cumsum(count[:, None, hit] * good[:, hit], axis=2)  # b t hit
    if (counted == counted[0]).all():  # without ignored objects the same detections count at every threshold
        seen = np.cumsum(count * counted[0], axis=1)[:, None, hit]
    else:
        seen = np.cumsum(count[:, None, :] * counted, axis=2)[..., hit]
    precision = hits / (seen + np.spacing(1))
    envelope = np.maximum.accumulate(precision[..., ::-1], axis=2)[..., ::-1]
    total = np.where(undefined, 1, objects)
    place = _first_at_recall(hits, total)  # b t 101
    reached = place < len(hit)
    picked = np.take_along_axis(envelope, np.minimum(place, len(hit) - 1), axis=2)
    ap = np.where(reached, picked, 0.0).mean(axis=2)
    recall = hits[..., -1] / total[:, None]
    ap[undefined] = recall[undefined] = np.nan
    return ap.reshape(rows, thresholds), recall


def _first_at_recall(hits: Ints, total: Ints) -> Ints:
    """Index of the first place at which each of the 101 recalls is reached; the number of places if never."""
    rows, thresholds, width = hits.shape
    need = np.ceil(_RECALLS * total[:, None]).astype(np.int64)  # b 101
    # The fewest hits whose recall, as a float, is at least the level: ceil may be one off either way.
    need -= (need - 1) / total[:, None] >= _RECALLS
    need += need / total[:, None] < _RECALLS
    # One search over all rows: whole numbers, each row shifted above the one before it, so nothing is rounded.
    gap = int(max(hits[..., -1].max(), need.max())) + 2
    shift = np.arange(rows * thresholds).reshape(rows, thresholds, 1) * gap
    place = np.searchsorted((hits + shift).ravel(), (need[:, None, :] + shift).ravel())
    return place.reshape(rows, thresholds, -1) - np.arange(rows * thresholds).reshape(rows, thresholds, 1) * width


def class_ranking(matches: Matches, label: int | None, *, area: int = 0, iou: int = 0) -> Ranking:
    """The detections of a class by falling score; None ranks those of all classes together.

    Detections that count neither way are left out; of equal scores only the last stands, because a threshold cannot
    come between them.
    """
    chosen = ~matches.skip[area, iou]
    if label is not None:
        chosen &= matches.label == label
    index = np.flatnonzero(chosen)
    index = index[np.argsort(-matches.score[index], kind="stable")]
    hit = np.cumsum(matches.hit[area, iou, index], dtype=np.int64)
    score = matches.score[index]
    last = np.append(np.diff(score) != 0, True)[: len(score)]
    truth = matches.truth[area] if label is None else matches.truth[area, :, label]
    false = np.arange(1, len(score) + 1) - hit
    return Ranking(score[last], hit[last], false[last], int(truth.sum()))


def voc_average_precision(ranking: Ranking) -> float:
    """Pascal VOC's average precision: the whole area under the precision envelope (VOC 2010 and later)."""
    if not ranking.truth:
        return float("nan")
    recall = ranking.hit / ranking.truth
    precision = ranking.hit / np.maximum(ranking.hit + ranking.false, 1)
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    return float((np.diff(recall, prepend=0.0) * envelope).sum())
