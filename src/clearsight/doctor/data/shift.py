"""Whether validation and test images look like those that are trained on."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from clearsight.data.dataset import Dataset
from clearsight.doctor.data.evidence import DataEvidence
from clearsight.doctor.data.image_properties import PROPERTIES, image_properties
from clearsight.doctor.data.split_rows import distinct_rows, split_rows
from clearsight.doctor.rule import Rule
from clearsight.metrics.bootstrap import percentile_interval, resample_counts
from clearsight.metrics.curves import auc_rank
from clearsight.types import Finding, Severity

__all__ = ["Separability", "SplitDrift", "natural_drift", "separability", "split_units"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
_MOST = 1500  # images of a split that are looked at
_FOLDS = 5
_RESAMPLES = 200


class SplitDrift(Rule[DataEvidence]):
    """A classifier can tell the images of another split from the training images.

    Where the splits are drawn at random it cannot do better than chance. Images of one group (a patient, a film) are
    kept together when it is trained and judged, so that it is not praised for knowing a group again. A picture that is
    listed many times would be known again as well, so of copies one is looked at; `near-duplicate` names them.

    Args:
        auc: area under its ROC curve from which the drift is worth saying; the interval must lie above it.
        strong: lower end of the interval from which it is a warning.
        images: fewest images, or groups, of a split that allow a judgement.
    """

    id = "split-drift"
    source = (
        "Lopez-Paz and Oquab 2017, arXiv:1610.06545 (classifier two-sample tests); Rabanser et al. 2019, "
        "arXiv:1810.11953"
    )

    def __init__(self, *, auc: float = 0.6, strong: float = 0.75, images: int = 15) -> None:
        self.auc, self.strong, self.images = auc, strong, images

    def lacks(self, evidence: DataEvidence) -> str:
        """Two splits of enough images."""
        parts = (evidence.train, evidence.val, evidence.test)
        enough = [part is not None and len(part) >= self.images for part in parts]
        return "" if enough[0] and any(enough[1:]) else f"a training and another split of {self.images} images"

    def check(self, evidence: DataEvidence) -> Iterable[Finding]:
        """One finding for each split that differs."""
        for name, part in (("val", evidence.val), ("test", evidence.test)):
            yield from self._compare(evidence, name, part)

    def _compare(self, evidence: DataEvidence, name: str, part: Dataset | None) -> Iterable[Finding]:
        train = split_rows(evidence, evidence.train)
        other = distinct_rows(evidence, np.setdiff1d(split_rows(evidence, part), train))
        train = distinct_rows(evidence, train)
        rng = np.random.default_rng(0)
        train, other = (rng.permutation(rows)[:_MOST] for rows in (train, other))
        units = split_units(evidence)
        if min(len(np.unique(units[train])), len(np.unique(units[other]))) < self.images:
            return
        rows = np.concatenate([train, other])
        positive = np.arange(len(rows)) >= len(train)
        properties = image_properties(evidence.scan, rows)
        seen = np.concatenate([properties, evidence.scan.features[rows].astype(np.float64)], axis=1)
        # A change of one property is lost among hundreds of features, so the properties have a classifier of their own.
        both = [separability(features, positive, units[rows]) for features in (properties, seen)]
        found = max(both, key=lambda one: one.low)
        if found.low > self.auc:
            yield self._finding(evidence, name, found, _telling(properties, positive))

    def _finding(
        self, evidence: DataEvidence, name: str, found: Separability, telling: list[dict[str, object]]
    ) -> Finding:
        reason = natural_drift(evidence)
        severity: Severity = "warning" if found.low > self.strong and not reason else "info"
        most = f" They differ most in {telling[0]['property']}." if telling else ""
        advice = (
            f" {reason}"
            if reason
            else " Scores on it say how the model does on other images than it learned from;"
            " split anew at random, or accept that on purpose."
        )
        return Finding(
            id=self.id,
            severity=severity,
            where=f"data.{name}",
            explanation=(
                f"The images of {name} can be told from the training images: a classifier ranks them with an area of "
                f"{found.auc:.2f} under its ROC curve (95 % between {found.low:.2f} and {found.high:.2f}); 0.5 is "
                f"chance.{most}{advice}"
            ),
            evidence={
                "row": "D7",
                "split": name,
                "auc": round(found.auc, 4),
                "interval": [round(found.low, 4), round(found.high, 4)],
                "threshold": self.auc,
                "warning": self.strong,
                "images": found.images,
                "properties": telling,
                "natural": reason,
            },
            source=self.source,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Separability:
    """How well two sets of images can be told apart.

    Args:
        auc: area under the ROC curve on images that were not learned from; 0.5 is chance.
        low: lower end of its 95 % interval.
        high: upper end.
        images: in the first set and in the second.
    """

    auc: float
    low: float
    high: float
    images: tuple[int, int]


def separability(features: Floats, positive: NDArray[np.bool_], units: Ints) -> Separability:
    """Train a classifier to tell two sets apart, and judge it by cross-validation.

    Method: Lopez-Paz and Oquab 2017, arXiv:1610.06545, by the area under the ROC curve in place of accuracy, which
        suits sets of different sizes. The classifier is Fisher's discriminant with a ridge, on the features and their
        squares, so that a change of spread is seen as well as one of the mean. The interval is a percentile bootstrap
        over units.

    Args:
        features: `(n, d)`.
        positive: `(n,)` whether an image is of the second set.
        units: `(n,)` what is independent: numbers of groups, or of images. A unit is learned from or judged, not both.

    Returns:
        The same for the same arguments. Each set needs two units.
    """
    design = _design(features)
    fold = _folds(positive, units)
    score = np.empty(len(design))
    for number in range(fold.max() + 1):
        held = fold == number
        direction = _discriminant(design[~held], positive[~held])
        score[held] = design[held] @ direction
    names, unit = np.unique(units, return_inverse=True)
    weights = resample_counts(len(names), _RESAMPLES, seed=0)[:, unit]
    low, high = percentile_interval(auc_rank(score, positive, weights))
    return Separability(
        auc=float(auc_rank(score, positive)[0]),
        low=low,
        high=high,
        images=(int((~positive).sum()), int(positive.sum())),
    )


def _design(features: Floats) -> Floats:
    """Standardised features and, of the same scale, their squares; constant ones are left out."""
    spread = features.std(axis=0)
    kept = spread > 1e-9 * (1 + np.abs(features).max(axis=0))
    scaled = np.clip((features[:, kept] - features[:, kept].mean(axis=0)) / spread[kept], -5, 5)
    squares = np.square(scaled)
    squares = (squares - squares.mean(axis=0)) / np.maximum(squares.std(axis=0), 1e-9)
    return np.concatenate([scaled, np.clip(squares, -5, 5)], axis=1)


def _discriminant(design: Floats, positive: NDArray[np.bool_]) -> Floats:
    """The direction that parts the two sets best, drawn towards the difference of their means by a ridge."""
    up, down = design[positive], design[~positive]
    gap = up.mean(axis=0) - down.mean(axis=0)
    centred = np.concatenate([up - up.mean(axis=0), down - down.mean(axis=0)])
    ridge = 0.01 + 0.03 * design.shape[1] / len(design)
    if len(centred) < centred.shape[1]:  # the same by the smaller matrix
        inner = centred @ centred.T / len(centred) + ridge * np.eye(len(centred))
        return (gap - centred.T @ np.linalg.solve(inner, centred @ gap) / len(centred)) / ridge
    return np.linalg.solve(centred.T @ centred / len(centred) + ridge * np.eye(centred.shape[1]), gap)


def _folds(positive: NDArray[np.bool_], units: Ints) -> Ints:
    """The fold of each image: units are dealt out, those of each set in turn."""
    rng = np.random.default_rng(0)
    fold = np.zeros(len(units), np.int64)
    sides = [np.unique(units[positive]), np.unique(units[~positive])]
    folds = min(_FOLDS, *(len(side) for side in sides))
    for side in sides:
        of = dict(zip(rng.permutation(side).tolist(), (np.arange(len(side)) % folds).tolist(), strict=True))
        for at in np.flatnonzero(np.isin(units, side)):
            fold[at] = of[int(units[at])]
    return fold


def _telling(properties: Floats, positive: NDArray[np.bool_]) -> list[dict[str, object]]:
    """The three properties that differ most, each with its own area and its medians."""
    areas = np.array([auc_rank(column, positive)[0] for column in properties.T])
    order = np.argsort(-np.abs(areas - 0.5), kind="stable")[:3]
    return [
        {
            "property": PROPERTIES[i],
            "auc": round(float(areas[i]), 4),
            "train": round(float(np.median(properties[~positive, i])), 4),
            "other": round(float(np.median(properties[positive, i])), 4),
        }
        for i in order
        if abs(areas[i] - 0.5) > 0.05
    ]


def split_units(evidence: DataEvidence) -> Ints:
    """A number for each record: the same for those of one group, a number of its own for one that has none."""
    number: dict[object, int] = {}
    keys = (("group", r.group) if r.group is not None else row for row, r in enumerate(evidence.dataset.records))
    return np.array([number.setdefault(key, len(number)) for key in keys], np.int64)


def natural_drift(evidence: DataEvidence) -> str:
    """Why splits of this data differ without anything being wrong; empty where they should not."""
    method = "auto" if evidence.recipe is None else evidence.recipe.data.split.method
    if method == "ordered":
        return "The splits are stretches of one order (`data.split.method: ordered`), which drift apart by nature."
    if method == "grouped" or any(record.group is not None for record in evidence.dataset.records):
        return "Groups are kept whole here, and groups differ: such a split is the honest one."
    return ""
