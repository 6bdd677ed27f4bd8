"""What rules on curves read of a record: its loss, its score, how far it is, what guessing would give."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from clearsight.doctor.run.record import EMPTY, Curve, RunRecord

__all__ = [
    "chance_loss",
    "chance_score",
    "done",
    "label_smoothing",
    "learning_rate",
    "loss_floor",
    "score",
    "setting",
    "starting_loss",
    "training_loss",
    "training_score",
    "update_ratio",
    "weights_left",
]

# Names under which scores are logged, the most telling first; all of them grow as a model gets better.
SCORES = ("accuracy", "acc", "map", "miou", "dice", "balanced_accuracy", "macro_f1", "f1", "map_50", "top1")


def training_loss(record: RunRecord) -> Curve:
    """The loss of each training step, or of each epoch where that is all there is."""
    return record.loss if len(record.loss) else record.train.get("loss", EMPTY)


def starting_loss(record: RunRecord) -> float:
    """The first finite training loss; NaN where there is none."""
    values = training_loss(record).finite().values
    return float(values[0]) if len(values) else math.nan


def score(record: RunRecord) -> tuple[str, Curve]:
    """Name and curve of the score on the validation images, as a fraction; an empty name where there is none."""
    for name in SCORES:
        found = _fraction(record.val.get(name, EMPTY))
        if len(found):
            return name, found
    return "", EMPTY


def training_score(record: RunRecord) -> Curve:
    """The score that `score` gives, on training images; measured in eval mode where somebody did so."""
    name, _ = score(record)
    inside = _fraction(record.train_in_eval.get(name, EMPTY))
    return inside if len(inside) else _fraction(record.train.get(name, EMPTY))


def done(record: RunRecord) -> float | None:
    """Share of the planned steps that is done, 1 where the run is finished; None where no end is known."""
    if record.finished:
        return 1.0
    return min(record.steps / record.budget, 1.0) if record.budget else None


def chance_loss(record: RunRecord) -> float | None:
    """Cross-entropy of a classifier that looks at no image: the entropy of the class frequencies, else ln K.

    Labels are smoothed as the recipe says (`label_smoothing`). None where the run is no classification, or fewer than
    two classes are known.
    """
    shares = _shares(record)
    return None if shares is None else _entropy(_smoothed(shares, label_smoothing(record)))


def label_smoothing(record: RunRecord) -> float:
    """The share of a label that the recipe spreads evenly over all classes; 0 where it says nothing."""
    return min(max(setting(record, "model", "label_smoothing") or 0.0, 0.0), 1.0)


def loss_floor(record: RunRecord) -> float:
    """The least cross-entropy there is: the entropy of a smoothed label; 0 without smoothing or known classes."""
    shares, smoothing = _shares(record), label_smoothing(record)
    return 0.0 if shares is None or not smoothing else _entropy(_smoothed(np.eye(len(shares))[0], smoothing))


def chance_score(record: RunRecord) -> float | None:
    """Accuracy of always naming the most frequent class; None where `chance_loss` is."""
    shares = _shares(record)
    return None if shares is None else float(shares.max())


def update_ratio(record: RunRecord) -> Curve:
    """‖Δw‖ / ‖w‖ of a step, the median over the layers that are not exempt; empty where it was not measured."""
    layers = record.layers
    if layers is None or "update_ratio" not in layers.values:
        return EMPTY
    values = layers.values["update_ratio"][:, ~np.asarray(layers.exempt, dtype=bool)]
    known = np.isfinite(values).any(axis=1) if values.size else np.zeros(len(layers.steps), dtype=bool)
    return Curve(layers.steps[known], np.nanmedian(values[known], axis=1)) if known.any() else EMPTY


def weights_left(record: RunRecord) -> float:
    """The median layer's weight norm in shares of its first; infinite where it was not measured."""
    if record.layers is None or "weight_norm" not in record.layers.values:
        return math.inf
    norms = record.layers.values["weight_norm"]
    norms = norms[np.isfinite(norms).all(axis=1)]
    norms = norms[:, (norms > 0).all(axis=0)]
    return float(np.median(norms[-1] / norms[0])) if norms.size else math.inf


def setting(record: RunRecord, section: str, key: str) -> float | None:
    """A number that the recipe gives; None where it gives none."""
    part = record.recipe.get(section)
    given = part.get(key) if isinstance(part, Mapping) else None
    return float(given) if isinstance(given, (int, float)) and not isinstance(given, bool) else None


def learning_rate(record: RunRecord) -> float | None:
    """The rate that the recipe gives, else the largest that was logged."""
    given = setting(record, "optimizer", "lr")
    if given is not None:
        return given
    logged = record.lr.finite().values
    return float(logged.max()) if len(logged) else None


def _fraction(curve: Curve) -> Curve:
    """A score in per cent becomes a fraction."""
    curve = curve.finite()
    return Curve(curve.steps, curve.values / 100) if len(curve) and curve.values.max() > 1.5 else curve


def _shares(record: RunRecord) -> np.ndarray | None:
    if record.task != "classification":
        return None
    counts = np.asarray(record.class_counts, dtype=np.float64)
    if len(counts) >= 2 and counts.sum() > 0:
        return counts / counts.sum()
    return np.full(len(record.classes), 1 / len(record.classes)) if len(record.classes) >= 2 else None


def _smoothed(shares: np.ndarray, smoothing: float) -> np.ndarray:
    return (1 - smoothing) * shares + smoothing / len(shares)


def _entropy(shares: np.ndarray) -> float:
    return float(-(shares[shares > 0] * np.log(shares[shares > 0])).sum())
