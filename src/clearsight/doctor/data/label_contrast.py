"""Whether a classifier contradicts the labels of one split more than those of another, of images of the same kind."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from clearsight.data.dataset import Dataset
from clearsight.doctor.data.evidence import DataEvidence
from clearsight.doctor.data.label_drift import total_variation
from clearsight.doctor.data.labelled import Labelled
from clearsight.doctor.data.picture_pairs import find_picture_pairs, varied_rows
from clearsight.doctor.data.shift import SplitDrift, split_units
from clearsight.doctor.data.split_rows import split_rows

__all__ = ["Contrast", "label_contrast", "same_kind"]

_MIXTURE = 0.15  # total variation of labels up to which two splits have one mixture; as `label-drift`
_COPIES = 0.01  # of a split's images that may be nearly in the other one


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Contrast:
    """How much more the labels of a split are contradicted than those of another.

    Args:
        worse: the split whose labels are contradicted more.
        better: the other one.
        shares: of contradicted labels, of the worse and of the better.
        z: the difference by its standard error, if both had one share.
        members: `(n,)` which examples are of the worse.
    """

    worse: str
    better: str
    shares: tuple[float, float]
    z: float
    members: np.ndarray

    @property
    def excess(self) -> float:
        """Difference of the shares."""
        return self.shares[0] - self.shares[1]


def label_contrast(
    evidence: DataEvidence, examples: Labelled, contradicted: np.ndarray, *, least: int = 30
) -> Contrast | None:
    """The most certain contrast between the training split and another one.

    Splits that were drawn from one set at random have the same share of wrong labels and are as hard to classify, so
    whatever the classifier errs in, it errs in both alike: only labels that were made otherwise, or images of another
    kind (see `same_kind`), make a difference.

    Args:
        evidence: with its splits.
        examples: as they were classified.
        contradicted: `(n,)` float64, 1 where a label is not what a classifier that has not seen it says; NaN where it
            is not to be counted.
        least: images, or groups, of a split that are needed.

    Returns:
        None where there are no two splits with so many.
    """
    units = split_units(evidence)[examples.record]
    members = {name: _members(evidence, examples, part) for name, part in evidence.splits.items()}
    counted = {name: rows & ~np.isnan(contradicted) for name, rows in members.items()}
    enough = [name for name, rows in counted.items() if len(np.unique(units[rows])) >= least]
    found = [
        _between(("train", name), members, counted, contradicted, units)
        for name in enough
        if name != "train" and "train" in enough
    ]
    return max(found, key=lambda one: one.z, default=None)


def _members(evidence: DataEvidence, examples: Labelled, part: Dataset | None) -> np.ndarray:
    return np.isin(examples.record, split_rows(evidence, part))


def _between(
    names: tuple[str, str],
    members: dict[str, np.ndarray],
    counted: dict[str, np.ndarray],
    contradicted: np.ndarray,
    units: np.ndarray,
) -> Contrast:
    shares = {name: float(contradicted[counted[name]].mean()) for name in names}
    worse, better = sorted(names, key=shares.__getitem__, reverse=True)
    both = np.concatenate([contradicted[counted[name]] for name in names]).mean()
    error = np.sqrt(sum(_variance(contradicted[counted[name]] - both, units[counted[name]]) for name in names))
    return Contrast(
        worse=worse,
        better=better,
        shares=(shares[worse], shares[better]),
        z=(shares[worse] - shares[better]) / max(float(error), 1e-9),
        members=members[worse],
    )


def _variance(rest: np.ndarray, units: np.ndarray) -> float:
    """Of a mean, where what is of one unit goes together."""
    _, unit = np.unique(units, return_inverse=True)
    return float(np.square(np.bincount(unit, rest)).sum() / len(rest) ** 2)


def same_kind(evidence: DataEvidence, examples: Labelled, names: Sequence[str]) -> bool:
    """Whether nothing but labels can make a contrast of two splits: no other mixture, copies or other images.

    Args:
        evidence: with its splits.
        examples: whose labels are compared.
        names: of the two splits.
    """
    classes = int(examples.labels.max()) + 1
    members = [_members(evidence, examples, evidence.splits[name]) for name in names]
    counts = [np.bincount(examples.labels[rows], minlength=classes) for rows in members]
    if total_variation(*counts) > _MIXTURE:
        return False
    rows = [varied_rows(evidence.scan, split_rows(evidence, evidence.splits[name])) for name in names]
    digests = [np.array(evidence.scan.md5)[part] for part in rows]
    pairs = find_picture_pairs(evidence.scan, np.unique(np.concatenate(rows))).rows
    across = pairs[np.isin(pairs, rows[0]).sum(axis=1) == 1]
    small = min(rows, key=len)
    copies = int(np.isin(digests[0], digests[1]).sum()) + int(np.isin(small, across).sum())
    if copies > _COPIES * max(1, len(small)):
        return False
    drift = SplitDrift()
    other = next(name for name in names if name != "train")
    found = (one for one in drift.check(evidence) if one.evidence["split"] == other)
    return not any(one.evidence["interval"][0] > drift.strong for one in found)
