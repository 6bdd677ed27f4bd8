"""Whether the classes have the same shares in validation and test as in training."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from clearsight.data.dataset import Dataset
from clearsight.doctor.data.evidence import DataEvidence
from clearsight.doctor.data.shift import natural_drift
from clearsight.doctor.rule import Rule
from clearsight.types import Finding, Record, Severity

__all__ = ["LabelDrift", "total_variation"]

Ints = NDArray[np.int64]
_LISTED = 20
_MOST = 20_000  # units of a split that the test permutes
_PERMUTATIONS = 499


class LabelDrift(Rule[DataEvidence]):
    """The classes have other shares in another split than in training; copies of a file count once.

    Args:
        distance: `total_variation` above which it is worth saying: the share of labels that would have to change.
        strong: above which it may be a warning.
        odds: by how many times the odds of two classes must differ between the splits for that. Up to ten times one
            class may outnumber another without harm (`class-imbalance`), so that is what a changed mixture may do, too.
        p: largest chance that a random split gives such a distance.
        images: fewest labelled images, or groups, of a split that allow a judgement.
    """

    id = "label-drift"
    source = (
        "deepchecks, label drift (threshold 0.15), with a permutation test over images, or groups, for its own; "
        "Saerens et al. 2002, doi:10.1162/089976602753284446 (what changed odds do to a classifier)"
    )

    def __init__(
        self, *, distance: float = 0.15, strong: float = 0.3, odds: float = 10.0, p: float = 0.005, images: int = 15
    ) -> None:
        self.distance, self.strong, self.odds, self.p, self.images = distance, strong, odds, p, images

    def lacks(self, evidence: DataEvidence) -> str:
        """Labels of two splits, of two classes."""
        if len(evidence.dataset.classes) < 2:
            return "two classes or more"
        parts = (evidence.train, evidence.val, evidence.test)
        enough = [part is not None and _units(part).shape[0] >= self.images for part in parts]
        return "" if enough[0] and any(enough[1:]) else f"two splits of {self.images} labelled images, or groups"

    def check(self, evidence: DataEvidence) -> Iterable[Finding]:
        """One finding for each split that differs."""
        for name, part in (("val", evidence.val), ("test", evidence.test)):
            if evidence.train is not None and part is not None:
                yield from self._compare(
                    evidence, name, _units(_distinct(evidence, evidence.train)), _units(_distinct(evidence, part))
                )

    def _compare(self, evidence: DataEvidence, name: str, train: Ints, other: Ints) -> Iterable[Finding]:
        if min(len(train), len(other)) < self.images:
            return
        distance = total_variation(train.sum(axis=0), other.sum(axis=0))
        if distance <= self.distance:
            return
        p = _chance(train, other)
        if p > self.p:
            return
        reason = natural_drift(evidence)
        odds = _odds(train.sum(axis=0), other.sum(axis=0))
        severity: Severity = "warning" if distance > self.strong and odds > self.odds and not reason else "info"
        shares = [counts.sum(axis=0) / counts.sum() for counts in (train, other)]
        order = np.argsort(-np.abs(shares[1] - shares[0]), kind="stable")[:_LISTED]
        worst = evidence.dataset.classes[order[0]]
        yield Finding(
            id=self.id,
            severity=severity,
            where=f"data.{name}",
            explanation=(
                f"Classes have other shares in {name} than in training: {distance:.0%} of its labels would have to "
                f"change (up to {self.distance:.0%} is common; by chance alone p = {p:.3f}). {worst!r} is "
                f"{shares[0][order[0]]:.1%} of the training labels and {shares[1][order[0]]:.1%} of {name}. "
                + (reason or "Split anew in proportion to the classes, or accept that scores are of another mixture.")
            ),
            evidence={
                "row": "D7",
                "split": name,
                "distance": round(distance, 4),
                "threshold": self.distance,
                "warning": self.strong,
                "odds": round(odds, 2),
                "odds_warning": self.odds,
                "p": p,
                "train": {evidence.dataset.classes[k]: round(float(shares[0][k]), 4) for k in order},
                "other": {evidence.dataset.classes[k]: round(float(shares[1][k]), 4) for k in order},
                "natural": reason,
            },
            remedy=_remedy(evidence),
            source=self.source,
        )


def total_variation(first: NDArray[np.generic], second: NDArray[np.generic]) -> float:
    """Half the sum of the differences between the shares of two histograms.

    Args:
        first: `(k,)` counts, not all 0.
        second: `(k,)` counts, not all 0.

    Returns:
        In [0, 1]: the share of one that would have to move to make it the other.
    """
    return float(np.abs(first / first.sum() - second / second.sum()).sum() / 2)


def _odds(train: Ints, other: Ints) -> float:
    """By how many times the odds of two classes differ at most; half an example more of each, for classes of none."""
    change = (other + 0.5) / (train + 0.5)
    return float(change.max() / change.min())


def _chance(train: Ints, other: Ints) -> float:
    """Share of random splits of the same units that differ as much; units, since labels of one image go together."""
    rng = np.random.default_rng(0)
    train, other = (rng.permutation(counts)[:_MOST] for counts in (train, other))
    both, cut = np.concatenate([train, other]), len(other)
    seen, total = total_variation(train.sum(axis=0), other.sum(axis=0)), both.sum(axis=0)
    as_far = 0
    for _ in range(_PERMUTATIONS):
        drawn = both[rng.permutation(len(both))[:cut]].sum(axis=0)
        as_far += total_variation(total - drawn, drawn) >= seen - 1e-12
    return (1 + as_far) / (1 + _PERMUTATIONS)


def _distinct(evidence: DataEvidence, part: Dataset) -> Dataset:
    """A split with one record of each file and labels: the others add no image."""
    digests = dict(zip((record.image for record in evidence.dataset.records), evidence.scan.md5, strict=True))
    kept: dict[object, Record] = {}
    for position, record in enumerate(part.records):
        digest = digests.get(record.image)
        kept.setdefault((digest, *_labels(record).tolist()) if digest else position, record)
    return replace(part, records=list(kept.values()))


def _units(part: Dataset) -> Ints:
    """`(u, k)` labels of each class in each group, or in each image without one; units without labels are left out."""
    rows: dict[object, Ints] = {}
    for position, record in enumerate(part.records):
        key = position if record.group is None else ("group", record.group)
        counts = np.bincount(_labels(record), minlength=len(part.classes))
        rows[key] = rows[key] + counts if key in rows else counts
    table = np.array(list(rows.values()), np.int64).reshape(-1, len(part.classes))
    return table[table.sum(axis=1) > 0]


def _labels(record: Record) -> Ints:
    image = [] if record.label is None else [record.label]
    return np.array(image + [item.label for item in record.objects if not item.crowd], np.int64)


def _remedy(evidence: DataEvidence) -> dict[str, str]:
    """A split in proportion, where the recipe names another; only files without splits are split by it."""
    method = "" if evidence.recipe is None else evidence.recipe.data.split.method
    return {"data.split.method": "stratified"} if method == "random" else {}
