"""Examples that look like none of their class: far from their nearest neighbours in it."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from sklearn.neighbors import NearestNeighbors

from clearsight.doctor.data.evidence import DataEvidence
from clearsight.doctor.data.labelled import condense, labelled_examples, place
from clearsight.doctor.rule import Rule
from clearsight.types import Finding

__all__ = ["LabelOutliers", "outlyingness"]

_LISTED = 20
_MAD = 1.4826  # times the median absolute deviation is a normal distribution's standard deviation


class LabelOutliers(Rule[DataEvidence]):
    """Images, or boxes, that are far from all others of their class: another subject, a bad crop, a wrong label.

    Method: the mean distance to the k nearest neighbours (Ramaswamy et al. 2000, "Efficient algorithms for mining
    outliers from large data sets", SIGMOD), here within the class and as a robust z of its logarithm.

    Args:
        z: robust deviations above the class's median from which on an example is named.
        times: as many times the median distance it must also be away.
        neighbours: that are looked at.
        least: examples that a class needs.
        most: examples that are looked at.
    """

    id = "label-outlier"
    source = "Ramaswamy et al. 2000, Efficient algorithms for mining outliers from large data sets"

    def __init__(
        self, *, z: float = 6.0, times: float = 1.5, neighbours: int = 5, least: int = 20, most: int = 10_000
    ) -> None:
        self.z, self.times, self.neighbours, self.least, self.most = z, times, neighbours, least, most

    def lacks(self, evidence: DataEvidence) -> str:
        """A class with enough examples."""
        if evidence.dataset.task == "semantic":
            return "classes of images or objects"
        if not len(labelled_examples(evidence).of_classes_with(self.least)):
            return f"a class with {self.least} examples"
        return ""

    def check(self, evidence: DataEvidence) -> Iterable[Finding]:
        """One finding that lists them, the farthest first."""
        dataset = evidence.dataset
        examples = labelled_examples(evidence).sample(self.most).of_classes_with(self.least)
        if not len(examples):
            return
        z, times = outlyingness(condense(examples.features), examples.labels, neighbours=self.neighbours)
        found = np.flatnonzero((z > self.z) & (times > self.times))
        if not len(found):
            return
        found = found[np.argsort(-z[found], kind="stable")]
        what = "images" if examples.item[0] < 0 else "objects"
        yield Finding(
            id=self.id,
            severity="info",
            where=place(dataset, int(examples.record[found[0]]), int(examples.item[found[0]])),
            explanation=(
                f"{len(found)} of {len(examples)} {what} look like none of their class: they are farther from their "
                f"{self.neighbours} nearest neighbours in it than {self.z:g} robust deviations; look whether they "
                "belong there"
            ),
            action="kept",
            evidence={
                "row": "D2",
                "examples": len(examples),
                "outliers": len(found),
                "threshold": self.z,
                "first": [
                    {
                        "where": place(dataset, int(examples.record[at]), int(examples.item[at])),
                        "class": dataset.classes[examples.labels[at]],
                        "z": round(float(z[at]), 2),
                        "times_median": round(float(times[at]), 2),
                    }
                    for at in found[:_LISTED].tolist()
                ],
            },
            source=self.source,
        )


def outlyingness(features: np.ndarray, labels: np.ndarray, *, neighbours: int = 5) -> tuple[np.ndarray, np.ndarray]:
    """How far each example is from its nearest neighbours of the same class.

    Args:
        features: `(n, d)`.
        labels: `(n,)` int64.
        neighbours: whose mean distance counts; fewer where a class has fewer others, and a class of one has none.

    Returns:
        `(n,)` robust z of the logarithm of the distance within the class, and `(n,)` distance by the class's median;
        zeros and ones where a class has fewer than three examples.
    """
    z, times = np.zeros(len(labels)), np.ones(len(labels))
    for label in np.unique(labels):
        own = np.flatnonzero(labels == label)
        near = min(neighbours, len(own) - 1)
        if near < 2:
            continue
        distances, _ = NearestNeighbors(n_neighbors=near).fit(features[own]).kneighbors()
        mean = np.maximum(distances.mean(axis=1), 1e-12)
        logs = np.log(mean)
        middle = np.median(logs)
        spread = max(_MAD * float(np.median(np.abs(logs - middle))), 0.05)  # classes of copies have none
        z[own], times[own] = (logs - middle) / spread, np.exp(logs - middle)
    return z, times
