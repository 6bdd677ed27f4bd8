"""Curves of a classifier: precision–recall, ROC and its area, calibration. One class against the rest, ties handled."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["Calibration", "auc_pairs", "auc_rank", "calibration", "pr_curve", "precision_average", "roc_curve"]

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]


class Calibration(NamedTuple):
    """How far confidence is from accuracy.

    Args:
        confidence: `(bins,)` mean of the top probability; NaN in an empty bin.
        accuracy: `(bins,)` share of right answers; NaN in an empty bin.
        images: `(bins,)` number of images.
        error: expected calibration error in [0, 1]; NaN without images.
    """

    confidence: Floats
    accuracy: Floats
    images: Ints
    error: float


def auc_rank(score: Floats, positive: Bools, weights: Ints | None = None) -> Floats:
    """Area under the ROC curve by ranks (Mann–Whitney), ties counting one half.

    Args:
        score: `(n,)` of the class.
        positive: `(n,)` whether the image is of the class.
        weights: `(b, n)` how often each image counts; None counts each once (b = 1).

    Returns:
        `(b,)` in [0, 1]; NaN where there is no positive or no negative.
    """
    counts = np.ones((1, len(score)), np.int64) if weights is None else weights
    if not len(score):
        return np.full(len(counts), np.nan)
    order = np.argsort(score, kind="stable")
    start = np.flatnonzero(np.diff(score[order], prepend=np.nan) != 0)  # first of each run of equal scores
    ordered = counts[:, order].astype(np.float64)
    up = np.add.reduceat(ordered * positive[order], start, axis=1)  # b runs
    down = np.add.reduceat(ordered * ~positive[order], start, axis=1)
    below = np.cumsum(down, axis=1) - down
    won = (up * (below + down / 2)).sum(axis=1)
    pairs = up.sum(axis=1) * down.sum(axis=1)
    return np.divide(won, pairs, out=np.full(len(counts), np.nan), where=pairs > 0)


def auc_pairs(score: Floats, positive: Bools) -> float:
    """The same area by its meaning: the share of (positive, negative) pairs in the right order. O(n²) memory."""
    up, down = score[positive][:, None], score[~positive][None, :]
    if not up.size or not down.size:
        return float("nan")
    return float(((up > down) + 0.5 * (up == down)).mean())


def _cumulative(score: Floats, positive: Bools) -> tuple[Floats, Ints, Ints]:
    """Thresholds from high to low, with the positives and negatives at or above each; one entry per distinct score."""
    order = np.argsort(-score, kind="stable")
    last = np.append(np.diff(score[order]) != 0, True)[: len(order)]
    up, down = np.cumsum(positive[order], dtype=np.int64), np.cumsum(~positive[order], dtype=np.int64)
    return score[order][last], up[last], down[last]


def roc_curve(score: Floats, positive: Bools, *, points: int = 400) -> dict[str, list[float]]:
    """False- and true-positive rates from (0, 0) to (1, 1), thinned to `points`; empty without both kinds of image."""
    threshold, up, down = _cumulative(score, positive)
    if not len(up) or not up[-1] or not down[-1]:
        return {"fpr": [], "tpr": [], "score": []}
    pick = _thin(len(up), points)
    return {
        "fpr": [0.0, *(down[pick] / down[-1]).tolist()],
        "tpr": [0.0, *(up[pick] / up[-1]).tolist()],
        "score": [float("nan"), *threshold[pick].tolist()],
    }


def pr_curve(score: Floats, positive: Bools, *, points: int = 400) -> dict[str, list[float]]:
    """Recall and precision from the highest threshold down, thinned to `points`; empty without a positive."""
    threshold, up, down = _cumulative(score, positive)
    if not len(up) or not up[-1]:
        return {"recall": [], "precision": [], "score": []}
    pick = _thin(len(up), points)
    precision = up[pick] / (up[pick] + down[pick])
    return {"recall": (up[pick] / up[-1]).tolist(), "precision": precision.tolist(), "score": threshold[pick].tolist()}


def precision_average(score: Floats, positive: Bools) -> float:
    """Average precision, without interpolation: the precision at each threshold, weighted by the recall it adds."""
    _, up, down = _cumulative(score, positive)
    if not len(up) or not up[-1]:
        return float("nan")
    return float((np.diff(up, prepend=0) / up[-1] * up / (up + down)).sum())


def _thin(count: int, points: int) -> Ints:
    return np.unique(np.linspace(0, count - 1, min(count, points)).round().astype(np.int64))


def calibration(probs: Floats, labels: Ints, *, bins: int = 15) -> Calibration:
    """Expected calibration error of the top class in equal bins of confidence (Guo et al. 2017, equation 3).

    Args:
        probs: `(n, k)`.
        labels: `(n,)`.
        bins: number of bins; each holds its upper end.
    """
    if not len(labels):
        nothing = np.full(bins, np.nan)
        return Calibration(nothing, nothing.copy(), np.zeros(bins, np.int64), float("nan"))
    top, right = probs.max(axis=1), probs.argmax(axis=1) == labels
    place = np.clip(np.ceil(top * bins).astype(np.int64) - 1, 0, bins - 1)
    count = np.bincount(place, minlength=bins)
    safe = np.where(count, count, np.nan)
    confidence = np.bincount(place, top, bins) / safe
    accuracy = np.bincount(place, right, bins) / safe
    error = float(np.nansum(count * np.abs(confidence - accuracy)) / len(labels))
    return Calibration(confidence, accuracy, count.astype(np.int64), error)
