"""What every score of found objects has, whether boxes or masks are matched: tables, curves, mistakes, intervals."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from clearsight.errors import RangeError
from clearsight.metrics.average_precision import (
    ApTable,
    Ranking,
    average_precision,
    class_ranking,
    voc_average_precision,
)
from clearsight.metrics.bootstrap import percentile_interval, resample_counts
from clearsight.metrics.match import COCO_AREAS, COCO_IOUS, Flat, Matches, flatten, match_coco, match_voc
from clearsight.metrics.mistakes import KINDS, ImageMistakes, confusion_matrix, find_mistakes, rank_worst
from clearsight.metrics.overlaps import Overlap
from clearsight.metrics.results import ImageResult
from clearsight.metrics.scores import Scores
from clearsight.types import Task

__all__ = ["LIMIT", "ObjectScores", "finite_mean", "ignored_objects", "score_objects"]

LIMIT = 100
"""Detections an image and class, as COCO has it."""

_CURVE_POINTS = 400
_MIN_GROUP = 5  # objects a size group
_HAIR = 1e-9


class _Size(NamedTuple):
    """A range of object sizes: sides of squares of the same area, pixels."""

    group: str
    name: str
    low: float
    high: float


class ObjectScores(NamedTuple):
    """Scores whose summary is still to be written, and what it is written from.

    Args:
        scores: all but the summary.
        table: average precision; its size ranges are all, then COCO's small, medium and large, then others.
        images: what went right and wrong in each image.
        least: score from which predictions count in `images`.
    """

    scores: Scores
    table: ApTable
    images: list[ImageMistakes]
    least: float


def score_objects(
    results: Sequence[ImageResult],
    classes: Sequence[str],
    *,
    task: Task,
    bootstrap: int,
    seed: int,
    threshold: float | None,
    worst: int,
    overlaps: Sequence[Overlap] | None = None,
) -> ObjectScores:
    """Match, rank and explain.

    Args:
        results: one an image, in any order.
        classes: class names in label order.
        task: for the scores.
        bootstrap: resamples of the images for the intervals; 0 gives none.
        seed: of the resamples.
        threshold: score from which predictions count in the confusion matrix and the worst images; None takes the one
            with the best F1 over all classes together.
        worst: number of worst images to list.
        overlaps: one an image, of its predictions and objects as given; None measures the boxes.

    Raises:
        RangeError: a label lies outside the classes, predictions lack scores, or `threshold` lies outside [0, 1].
    """
    if threshold is not None and not 0 <= threshold <= 1:
        raise RangeError(f"threshold: expected a score in [0, 1], got {threshold}")
    count, names = len(results), tuple(classes)
    areas_f = None if overlaps is None else [one.found for one in overlaps]
    areas_t = None if overlaps is None else [one.truth for one in overlaps]
    found = flatten(results, len(names), predicted=True, limit=LIMIT, areas=areas_f)
    truth = flatten(results, len(names), predicted=False, areas=areas_t)
    sizes = _size_groups(truth)
    areas = [COCO_AREAS["all"], *((size.low**2, size.high**2) for size in sizes)]
    by_coco = None if overlaps is None else [o.iou(ignored_objects(r)) for o, r in zip(overlaps, results, strict=True)]
    by_voc = None if overlaps is None else [one.iou() for one in overlaps]
    matches = match_coco(found, truth, images=count, classes=len(names), areas=areas, overlaps=by_coco)
    voc = match_voc(found, truth, images=count, classes=len(names), overlaps=by_voc)
    table = average_precision(matches)
    rankings = [class_ranking(matches, label) for label in range(len(names))]
    chosen = _best_f1(class_ranking(matches, None))["threshold"] if threshold is None else threshold
    least = 0.0 if math.isnan(chosen) else chosen
    each = itertools.repeat(None, count) if overlaps is None else overlaps
    images = [find_mistakes(r, names, threshold=least, overlap=o) for r, o in zip(results, each, strict=True)]
    kinds = Counter(m["kind"] for image in images for m in image.mistakes)
    scores = Scores(
        task=task,
        classes=names,
        images=count,
        per_class=[_class_row(name, label, table, rankings[label], voc) for label, name in enumerate(names)],
        curves={"pr": {name: _curve(rankings[label]) for label, name in enumerate(names)}},
        confusion=confusion_matrix(images, len(names)),
        by_size=_size_rows(sizes, matches, table),
        worst=rank_worst(results, images, limit=worst),
        mistakes={kind: kinds[kind] for kind in KINDS},
        settings={"threshold": chosen, "iou": 0.5, "bootstrap": bootstrap, "seed": seed, "level": 0.95},
    )
    if bootstrap:
        _add_intervals(scores, matches, resample_counts(count, bootstrap, seed=seed))
    return ObjectScores(scores, table, images, least)


def ignored_objects(result: ImageResult) -> np.ndarray:
    """`(m,)` which objects of an image are crowds (or otherwise ignored)."""
    ignore = result.truth.ignore
    return np.zeros(len(result.truth), bool) if ignore is None else ignore.cpu().numpy().astype(bool)


def finite_mean(values: Sequence[float] | np.ndarray) -> float:
    """The mean of those that are numbers; NaN where none is."""
    kept = np.asarray(values, np.float64)
    kept = kept[np.isfinite(kept)]
    return float(kept.mean()) if kept.size else math.nan


def _class_row(name: str, label: int, table: ApTable, ranking: Ranking, voc: Matches) -> dict[str, Any]:
    ap = table.ap[0, 0, :, label]
    return {
        "class": name,
        "objects": ranking.truth,
        "ap": finite_mean(ap),
        "ap_low": math.nan,
        "ap_high": math.nan,
        "ap_50": float(ap[0]),
        "ap_75": float(ap[5]),
        "voc_ap_50": voc_average_precision(class_ranking(voc, label)),
        **_best_f1(ranking),
    }


def _best_f1(ranking: Ranking) -> dict[str, Any]:
    """The threshold with the highest F1 and what it gives; NaN where there is nothing to find or nothing found."""
    if not ranking.truth or not len(ranking.score):
        nothing = 0.0 if ranking.truth else math.nan  # nothing found: recall and F1 are 0, precision does not exist
        return {"threshold": math.nan, "predictions": 0, "precision": math.nan, "recall": nothing, "f1": nothing}
    found = ranking.hit + ranking.false
    f1 = 2 * ranking.hit / (found + ranking.truth)
    best = int(f1.argmax())
    return {
        "threshold": float(ranking.score[best]),
        "predictions": int(found[best]),
        "precision": float(ranking.hit[best] / found[best]),
        "recall": float(ranking.hit[best] / ranking.truth),
        "f1": float(f1[best]),
    }


def _curve(ranking: Ranking) -> dict[str, list[float]]:
    """Precision against recall at IoU 0.5, thinned evenly along the ranking to a size that a page can carry."""
    if not ranking.truth:
        return {"recall": [], "precision": [], "score": []}
    count = len(ranking.score)
    pick = np.unique(np.linspace(0, count - 1, min(count, _CURVE_POINTS)).round().astype(int)) if count else slice(0)
    hit, false = ranking.hit[pick], ranking.false[pick]
    return {
        "recall": (hit / ranking.truth).tolist(),
        "precision": (hit / np.maximum(hit + false, 1)).tolist(),
        "score": ranking.score[pick].tolist(),
    }


# ------------------------------------------------------------------------------------------------ object sizes
def _size_groups(truth: Flat) -> list[_Size]:
    """COCO's three ranges, then quarters of the objects at hand (halves or thirds of few)."""
    groups = [
        _Size("coco", name, math.sqrt(COCO_AREAS[name][0]), math.sqrt(COCO_AREAS[name][1]))
        for name in ("small", "medium", "large")
    ]
    side = np.sqrt(np.clip(truth.area[~truth.ignore], 0, None))
    parts = min(4, len(side) // _MIN_GROUP)
    if parts < 2:
        return groups
    edges = np.unique(np.quantile(side, np.linspace(0, 1, parts + 1))).tolist()
    for low, high in itertools.pairwise(edges):
        # Ranges include both ends: all but the last end a hair lower, so that no object stands in two groups.
        top = high * (1 + _HAIR) if high == edges[-1] else high * (1 - _HAIR)
        groups.append(_Size("quantile", f"{low:.0f} – {high:.0f} px", low * (1 - _HAIR), top))
    return groups


def _size_rows(sizes: list[_Size], matches: Matches, table: ApTable) -> list[dict[str, Any]]:
    rows = []
    for index, size in enumerate(sizes, start=1):
        objects = matches.truth[index].sum(axis=0)  # k
        total = int(objects.sum())
        found = np.nansum(table.recall[0, index, 0] * objects)
        rows.append(
            {
                "group": size.group,
                "size": size.name,
                "low": size.low,
                "high": size.high if size.high < 1e5 else math.nan,
                "objects": total,
                "ap": finite_mean([finite_mean(table.ap[0, index, :, k]) for k in range(len(objects))]),
                "ap_50": finite_mean(table.ap[0, index, 0]),
                "recall": float(found / total) if total else math.nan,
            }
        )
    return rows


# ------------------------------------------------------------------------------------------------ intervals
def _add_intervals(scores: Scores, matches: Matches, counts: np.ndarray) -> None:
    """Fill in the intervals: images are drawn anew, detections are not matched anew."""
    if scores.images < 2:
        return
    ap = average_precision(matches, weights=counts, areas=slice(0, 1)).ap[:, 0]  # b t k
    with np.errstate(invalid="ignore"):
        per_class = ap.mean(axis=1)  # b k
    wanted = {"map": per_class, "map_50": ap[:, 0], "map_75": ap[:, list(COCO_IOUS.round(2)).index(0.75)]}
    for name, values in wanted.items():
        scores.intervals[name] = percentile_interval(_class_mean(values))
    for label, row in enumerate(scores.per_class):
        row["ap_low"], row["ap_high"] = percentile_interval(per_class[:, label])


def _class_mean(values: np.ndarray) -> np.ndarray:
    """`(b, k)` to `(b,)`: the mean over the classes that a resample has; NaN where it has none."""
    known = np.isfinite(values)
    total = np.where(known, values, 0.0).sum(axis=1)
    return np.divide(total, known.sum(axis=1), out=np.full(len(values), np.nan), where=known.any(axis=1))
