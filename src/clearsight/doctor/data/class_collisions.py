"""Copies of images that look like ordinary members of another class: a mirrored 2 among the 5s."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from sklearn.metrics import pairwise_distances
from sklearn.model_selection import StratifiedKFold
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from clearsight.doctor.data.accuracy_drop import FOLDS

__all__ = ["Collisions", "class_collisions"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Collisions:
    """How often a changed image passes for another class.

    Args:
        accuracy: cross-validated, on the images as they are.
        raw: share of these that are taken for another class and lie amid it.
        copies: the same share of their copies.
        least: lower end of the 95 % interval of the difference.
    """

    accuracy: float
    raw: float
    copies: float
    least: float

    @property
    def excess(self) -> float:
        """What the change adds."""
        return self.copies - self.raw


def class_collisions(raw: np.ndarray, copies: np.ndarray, labels: np.ndarray, *, typical: float = 75.0) -> Collisions:
    """Whether copies become another class, by a classifier that knows the images alone.

    Copies that look like nothing that is known are no collision, however they are classified: they need not confuse
    whoever learns from them. A copy lies amid a class where its nearest neighbour there is as near as that of
    `typical` % of the class's own members.

    Args:
        raw: `(n, d)` features of the images.
        copies: `(c, n, d)` features of c copies of each.
        labels: `(n,)` int64, at least `FOLDS` of each class.
        typical: percentile.
    """
    right, taken = np.zeros(len(labels)), np.zeros((len(copies) + 1, len(labels)))
    for train, test in StratifiedKFold(FOLDS, shuffle=True, random_state=0).split(raw, labels):
        scaler = StandardScaler().fit(raw[train])
        known, own = np.asarray(scaler.transform(raw[train])), labels[train]
        model = SVC(C=10.0).fit(known, own)
        limits = {label: _nearest_among(known[own == label], typical) for label in np.unique(own)}
        for number, features in enumerate((raw, *copies)):
            asked = np.asarray(scaler.transform(features[test]))
            predicted = model.predict(asked)
            if number == 0:
                right[test] = predicted == labels[test]
            other = predicted != labels[test]
            for label in np.unique(predicted[other]):
                some = np.flatnonzero(other & (predicted == label))
                near = pairwise_distances(asked[some], known[own == label]).min(axis=1)
                taken[number, test[some]] = near <= limits[label]
    difference = taken[1:].mean(axis=0) - taken[0]
    half = 1.96 * difference.std() / np.sqrt(len(labels))
    return Collisions(
        accuracy=float(right.mean()),
        raw=float(taken[0].mean()),
        copies=float(taken[1:].mean()),
        least=float(difference.mean() - half),
    )


def _nearest_among(members: np.ndarray, percentile: float) -> float:
    """Percentile of the distances of members to their nearest other."""
    distances = pairwise_distances(members)
    np.fill_diagonal(distances, np.inf)
    return float(np.percentile(distances.min(axis=1), percentile))
