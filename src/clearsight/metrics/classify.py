"""Scores of a classifier: accuracy and its relatives, areas under curves, calibration, and the worst images."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from clearsight.errors import RangeError, ShapeError
from clearsight.metrics.bootstrap import percentile_interval, resample_counts
from clearsight.metrics.curves import auc_rank, calibration, pr_curve, precision_average, roc_curve
from clearsight.metrics.scores import Scores

__all__ = ["score_classification"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

_BINS = 15
_CHUNK = 8_000_000  # elements of the largest intermediate array


def score_classification(
    probs: Tensor,
    labels: Tensor,
    classes: Sequence[str],
    *,
    bootstrap: int = 0,
    seed: int = 0,
    paths: Sequence[Path | str] | None = None,
    worst: int = 24,
) -> Scores:
    """All figures of a classifier on one split.

    Averages over classes leave out classes without images in this split, as their figures do not exist. `auc` is the
    mean over classes of one against the rest.

    Args:
        probs: `(n, k)` float, each row sums to one.
        labels: `(n,)` int64.
        classes: k class names in label order.
        bootstrap: resamples of the images for the intervals; 0 gives none.
        seed: of the resamples.
        paths: image files, one a row, for the worst images; None leaves their paths empty.
        worst: number of worst images to list.

    Returns:
        Scores, NaN where a figure does not exist. Intervals are given for `accuracy`, `balanced_accuracy`, `macro_f1`
        and `auc`.

    Raises:
        ShapeError: the shapes do not fit each other or the classes.
        RangeError: a label lies outside the classes, or a row is no distribution.
    """
    p, y = _checked(probs, labels, classes, paths)
    count, number = p.shape
    confusion = _confusions(p, y, np.ones((1, count), np.int64))
    figures = _figures(confusion)
    aucs = np.array([auc_rank(p[:, k], y == k)[0] for k in range(number)])
    measured = calibration(p, y, bins=_BINS)
    loss = -np.log(np.clip(p[np.arange(count), y], 1e-12, None))
    scores = Scores(
        task="classification",
        classes=tuple(classes),
        images=count,
        summary={
            **{name: float(figures[name][0]) for name in ("accuracy", "balanced_accuracy", "macro_f1")},
            "auc": _mean(aucs),
            "calibration_error": measured.error,
            "loss": float(loss.mean()) if count else math.nan,
        },
        per_class=[_class_row(name, k, p, y, figures, aucs) for k, name in enumerate(classes)],
        curves=_curves(p, y, classes),
        confusion=confusion[0].tolist(),
        worst=_worst(p, y, loss, classes, paths, worst),
        mistakes={"wrong class": int(confusion[0].sum() - np.trace(confusion[0]))},
        settings={"bootstrap": bootstrap, "seed": seed, "level": 0.95, "bins": _BINS},
    )
    if bootstrap and count > 1:
        scores.intervals = _intervals(p, y, resample_counts(count, bootstrap, seed=seed))
    return scores


def _checked(
    probs: Tensor, labels: Tensor, classes: Sequence[str], paths: Sequence[Path | str] | None
) -> tuple[Floats, Ints]:
    if probs.ndim != 2 or probs.shape[1] != len(classes) or labels.shape != probs.shape[:1]:
        raise ShapeError(
            f"probs and labels: expected (n, {len(classes)}) and (n,), got {tuple(probs.shape)} and "
            f"{tuple(labels.shape)}; one column a class, one row an image"
        )
    if paths is not None and len(paths) != len(labels):
        raise ShapeError(f"paths: expected one an image ({len(labels)}), got {len(paths)}")
    p, y = probs.detach().double().cpu().numpy(), labels.detach().long().cpu().numpy()
    if len(y) and not 0 <= y.min() <= y.max() < len(classes):
        raise RangeError(f"labels: expected 0 to {len(classes) - 1}, found {int(y.min())} to {int(y.max())}")
    if len(y) and not (np.isfinite(p).all() and (p >= 0).all() and np.allclose(p.sum(axis=1), 1, atol=1e-2)):
        row = int(np.argmax(~(np.isfinite(p).all(1) & (p >= 0).all(1) & np.isclose(p.sum(1), 1, atol=1e-2))))
        raise RangeError(f"probs: row {row} sums to {p[row].sum():.4g}; expected probabilities, not logits")
    return p, y


def _mean(values: Floats) -> float:
    kept = values[np.isfinite(values)]
    return float(kept.mean()) if kept.size else math.nan


def _confusions(p: Floats, y: Ints, counts: Ints) -> Ints:
    """`(b, k, k)` confusion matrices, rows the truth, one a weighting `(b, n)` of the images."""
    number, rows = p.shape[1], len(counts)
    cell = y * number + p.argmax(axis=1) if len(y) else y
    flat = np.zeros((rows, number * number), np.int64)
    step = max(1, _CHUNK // max(1, len(y)))
    for start in range(0, rows, step):
        part = counts[start : start + step]
        place = cell + np.arange(len(part))[:, None] * number * number
        # bincount adds doubles: exact for whole numbers below 2^53.
        total = np.bincount(place.ravel(), part.ravel(), len(part) * number * number)
        flat[start : start + step] = total.reshape(len(part), -1).astype(np.int64)
    return flat.reshape(rows, number, number)


def _figures(confusion: Ints) -> dict[str, Floats]:
    """Figures of `(b, k, k)` confusion matrices: `(b,)` each, and `(b, k)` for precision, recall and F1."""
    support, called = confusion.sum(axis=2), confusion.sum(axis=1)
    right = np.diagonal(confusion, axis1=1, axis2=2)
    recall = _ratio(right, support)
    f1 = np.where(support > 0, _ratio(2 * right, support + called), np.nan)
    return {
        "precision": _ratio(right, called),
        "recall": recall,
        "f1": f1,
        "accuracy": _ratio(right.sum(axis=1), support.sum(axis=1)),
        "balanced_accuracy": _row_mean(recall),
        "macro_f1": _row_mean(f1),
    }


def _ratio(top: np.ndarray, bottom: np.ndarray) -> Floats:
    return np.divide(top, bottom, out=np.full(top.shape, np.nan), where=bottom > 0)


def _row_mean(values: Floats) -> Floats:
    known = np.isfinite(values)
    return _ratio(np.where(known, values, 0.0).sum(axis=1), known.sum(axis=1))


def _class_row(name: str, k: int, p: Floats, y: Ints, figures: dict[str, Floats], aucs: Floats) -> dict[str, Any]:
    return {
        "class": name,
        "support": int((y == k).sum()),
        **{figure: float(figures[figure][0, k]) for figure in ("precision", "recall", "f1")},
        "auc": float(aucs[k]),
        "ap": precision_average(p[:, k], y == k),
    }


def _curves(p: Floats, y: Ints, classes: Sequence[str]) -> dict[str, dict[str, Any]]:
    measured = calibration(p, y, bins=_BINS)
    return {
        "pr": {name: pr_curve(p[:, k], y == k) for k, name in enumerate(classes)},
        "roc": {name: roc_curve(p[:, k], y == k) for k, name in enumerate(classes)},
        "calibration": {
            "all": {
                "confidence": measured.confidence.tolist(),
                "accuracy": measured.accuracy.tolist(),
                "count": measured.images.tolist(),
            }
        },
    }


def _worst(
    p: Floats, y: Ints, loss: Floats, classes: Sequence[str], paths: Sequence[Path | str] | None, limit: int
) -> list[dict[str, Any]]:
    """The images with the highest loss first: wrong answers, and right ones below one half."""
    rows = []
    for index in np.argsort(-loss, kind="stable")[:limit].tolist():
        truth, guess = int(y[index]), int(p[index].argmax())
        sure, share = float(p[index, guess]), float(p[index, truth])
        mistake = {"kind": "wrong class", "truth": classes[truth], "predicted": classes[guess], "score": sure}
        if guess != truth:
            why = f"{classes[truth]} taken for {classes[guess]} ({sure:.0%} sure, {share:.1%} for the truth)"
        elif share < 0.5:
            why = f"right ({classes[truth]}), but only {sure:.0%} sure"
        else:
            break
        path = "" if paths is None else str(paths[index])
        mistakes = [mistake] if guess != truth else []
        rows.append({"image": index, "path": path, "error": float(loss[index]), "why": why, "mistakes": mistakes})
    return rows


def _intervals(p: Floats, y: Ints, counts: Ints) -> dict[str, tuple[float, float]]:
    figures = _figures(_confusions(p, y, counts))
    values = {name: figures[name] for name in ("accuracy", "balanced_accuracy", "macro_f1")}
    step = max(1, _CHUNK // max(1, len(y)))
    aucs = np.stack(
        [
            np.concatenate([auc_rank(p[:, k], y == k, counts[s : s + step]) for s in range(0, len(counts), step)])
            for k in range(p.shape[1])
        ],
        axis=1,
    )
    values["auc"] = _row_mean(aucs)
    return {name: percentile_interval(value) for name, value in values.items()}
