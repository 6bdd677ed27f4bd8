"""Examples with a class: whole images, or the boxes that are marked in them, as points in a space of features."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from sklearn.decomposition import PCA
from sklearn.preprocessing import StandardScaler

from clearsight.data.dataset import Dataset
from clearsight.doctor.data.evidence import DataEvidence

__all__ = ["Labelled", "condense", "labelled_examples", "place"]

_LEAST_SIDE = 4.0  # pixels of a box below which its crop shows nothing


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Labelled:
    """Examples with one class each.

    Args:
        features: `(n, d)` float64.
        labels: `(n,)` int64, index into the data set's classes.
        record: `(n,)` int64, the record each lies in.
        item: `(n,)` int64, its position in the record's objects; −1 for whole images.
    """

    features: np.ndarray
    labels: np.ndarray
    record: np.ndarray
    item: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)

    def select(self, kept: np.ndarray) -> Labelled:
        """Those at `kept`, a mask or positions."""
        return Labelled(
            features=self.features[kept], labels=self.labels[kept], record=self.record[kept], item=self.item[kept]
        )

    def of_classes_with(self, least: int) -> Labelled:
        """Those of classes that have at least so many examples."""
        counts = np.bincount(self.labels, minlength=1)
        return self.select(counts[self.labels] >= least)

    def sample(self, most: int, *, seed: int = 0) -> Labelled:
        """At most so many, drawn at random, in the same order."""
        if len(self) <= most:
            return self
        return self.select(np.sort(np.random.default_rng(seed).choice(len(self), most, replace=False)))


def labelled_examples(evidence: DataEvidence) -> Labelled:
    """Images with a class of their own for classification, else boxes; none where there is neither.

    Crowds, objects that are marked as difficult, boxes below four pixels and images that cannot be read are left out.
    """
    dataset, scan = evidence.dataset, evidence.scan
    if dataset.task == "classification":
        labels = np.array([-1 if record.label is None else record.label for record in dataset.records], dtype=np.int64)
        kept = np.flatnonzero(scan.readable & (labels >= 0))
        features = scan.features[kept].astype(np.float64)
        return Labelled(features=features, labels=labels[kept], record=kept, item=np.full(len(kept), -1))
    pairs = zip(scan.object_record.tolist(), scan.object_index.tolist(), strict=True)
    items = [dataset.records[record].objects[index] for record, index in pairs]
    corners = np.array([item.box for item in items], dtype=np.float64).reshape(-1, 2, 2)
    sides = corners[:, 1] - corners[:, 0]
    counted = np.array([not (item.crowd or item.difficult) for item in items], dtype=bool)
    kept = np.flatnonzero(counted & (sides >= _LEAST_SIDE).all(axis=1))
    return Labelled(
        features=scan.object_features[kept].astype(np.float64),
        labels=scan.object_label[kept],
        record=scan.object_record[kept],
        item=scan.object_index[kept],
    )


def condense(features: np.ndarray, *, most: int = 64) -> np.ndarray:
    """Features of mean 0 and deviation 1, on their main axes; `(n, e)` with e up to `most`."""
    scaled = StandardScaler().fit_transform(features)
    axes = min(most, *scaled.shape)
    return PCA(axes, random_state=0).fit_transform(scaled)


def place(dataset: Dataset, record: int, item: int) -> str:
    """Where an example is, for messages: its file, and which of its objects, as the annotation says or by number."""
    found = dataset.records[record]
    if item < 0:
        return str(found.image)
    return found.objects[item].where or f"{found.image}#{item}"
