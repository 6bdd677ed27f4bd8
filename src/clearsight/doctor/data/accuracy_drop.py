"""What a classifier of simple features loses when images are replaced by changed copies of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.model_selection import StratifiedKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

__all__ = ["FOLDS", "Drop", "accuracy_drop", "known_classes"]

FOLDS = 5
"""Of the cross-validation; each class needs as many examples."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Drop:
    """What a classifier loses on augmented copies.

    Args:
        raw: cross-validated accuracy on the images as they are.
        augmented: on their copies, of a classifier that was trained on images and copies.
        chance: accuracy of always naming the most frequent class.
        half: half the width of the 95 % interval of the difference.
    """

    raw: float
    augmented: float
    chance: float
    half: float

    @property
    def known(self) -> float:
        """Share that is known of the images, of what guessing leaves to know."""
        return (self.raw - self.chance) / (1 - self.chance)

    @property
    def lost(self) -> float:
        """Share of what is known of the images that is not known of the copies; not for images that are not known."""
        return (self.raw - self.augmented) / (self.raw - self.chance)

    @property
    def least(self) -> float:
        """Lower end of the 95 % interval of `lost`."""
        return (self.raw - self.augmented - self.half) / (self.raw - self.chance)


def accuracy_drop(raw: np.ndarray, copies: np.ndarray, labels: np.ndarray) -> Drop:
    """Accuracy on images against that on their copies, by cross-validation over images.

    The classifier of the copies has learned from images and copies, so that a change that keeps classes apart costs
    little; that of the images from images.

    Args:
        raw: `(n, d)` features of the images.
        copies: `(c, n, d)` features of c copies of each.
        labels: `(n,)` int64, at least `FOLDS` of each class.
    """
    right, right_copies = known_classes(raw, labels), np.zeros(copies.shape[:2])
    for train, test in StratifiedKFold(FOLDS, shuffle=True, random_state=0).split(raw, labels):
        both = np.concatenate([raw[train], *copies[:, train]])
        model = _classifier().fit(both, np.tile(labels[train], len(copies) + 1))
        right_copies[:, test] = [model.predict(copy) == labels[test] for copy in copies[:, test]]
    difference = right - right_copies.mean(axis=0)
    return Drop(
        raw=float(right.mean()),
        augmented=float(right_copies.mean()),
        chance=float(np.unique(labels, return_counts=True)[1].max() / len(labels)),
        half=float(1.96 * difference.std() / np.sqrt(len(labels))),
    )


def known_classes(raw: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Of which images a classifier that was trained on other ones finds the class; `(n,)` bool.

    Args:
        raw: `(n, d)` features.
        labels: `(n,)` int64, at least `FOLDS` of each class.
    """
    right = np.zeros(len(labels), dtype=bool)
    for train, test in StratifiedKFold(FOLDS, shuffle=True, random_state=0).split(raw, labels):
        right[test] = _classifier().fit(raw[train], labels[train]).predict(raw[test]) == labels[test]
    return right


def _classifier() -> Any:  # noqa: ANN401 - a pipeline of scikit-learn's, which has no types
    return make_pipeline(StandardScaler(), SVC(C=10.0))
