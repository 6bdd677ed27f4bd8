"""Whether batches are drawn at random: how often two labels of one batch are alike, against a shuffled order."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import special, stats

from clearsight.doctor.rule import Rule
from clearsight.errors import ShapeError
from clearsight.types import Finding

__all__ = ["LabelOrder", "Likeness", "Unshuffled", "label_likeness"]


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelOrder:
    """Labels as a loader gives them.

    Args:
        batches: label indices of each batch, in order; of images with several objects one each, as its commonest class.
        counts: of each class in the data set, by label; None takes those seen, and then sorted data of which only the
            first class was seen cannot be told.
    """

    batches: Sequence[np.ndarray]
    counts: Sequence[int] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Likeness:
    """Pairs of equal labels within batches.

    Args:
        alike: pairs that were counted.
        expected: pairs if the order is random.
        deviation: of those, its standard deviation.
        excess: `(alike − expected) / (pairs − expected)`: 0 for a random order, 1 where each batch has one class.
        z: of a normal variable with the same probability, negative where more pairs are alike than expected.
    """

    alike: int
    expected: float
    deviation: float
    excess: float
    z: float


class Unshuffled(Rule[LabelOrder]):
    """Batches that hold more of one class than chance would put there: an order that is not shuffled.

    Method: the join-count statistic (Cliff and Ord 1981, Spatial processes, chapter 2) on the pairs of each batch, its
    moments exact under drawing without replacement.

    Args:
        z: below which an order is not random.
        excess: from which on it is a warning; less is `info`.
        batches: that must be seen.
    """

    id = "unshuffled"
    source = "Cliff and Ord 1981, Spatial processes (join counts); cleanlab's non-iid check"

    def __init__(self, *, z: float = -4.0, excess: float = 0.05, batches: int = 10) -> None:
        self.z, self.excess, self.batches = z, excess, batches

    def lacks(self, evidence: LabelOrder) -> str:
        """Enough batches of two labels or more, and two classes."""
        if len([batch for batch in evidence.batches if len(batch) > 1]) < self.batches:
            return f"{self.batches} batches of two labels or more"
        return "" if label_likeness(evidence.batches, evidence.counts) is not None else "labels of two classes"

    def check(self, evidence: LabelOrder) -> Iterable[Finding]:
        """One finding for the order."""
        found = label_likeness(evidence.batches, evidence.counts)
        if found is None or found.z >= self.z:
            return
        times = found.alike / max(found.expected, 1e-9)
        yield Finding(
            id=self.id,
            severity="warning" if found.excess >= self.excess else "info",
            where="loader",
            explanation=(
                f"In {len(evidence.batches)} batches {found.alike} pairs of labels are equal, {times:.2g} times what a "
                f"shuffled order gives ({found.expected:.0f} ± {found.deviation:.0f}): data come sorted, or in runs. "
                "Gradients and batch statistics then follow one class after the other; shuffle each epoch "
                "(`shuffle=True`, or a larger shuffle buffer), unless the sampler does it on purpose"
            ),
            evidence={
                "row": "D9",
                "alike": found.alike,
                "expected": round(found.expected, 2),
                "deviation": round(found.deviation, 3),
                "excess": round(found.excess, 4),
                "z": round(found.z, 2),
                "threshold": self.z,
                "batches": len(evidence.batches),
            },
            source=self.source,
        )


def label_likeness(batches: Sequence[np.ndarray], counts: Sequence[int] | None = None) -> Likeness | None:
    """How many pairs of labels of one batch are equal, against any order being as likely as any other.

    The tail is that of a gamma distribution with the exact mean and variance, which starts where each batch has the
    classes in proportion: pair counts are skewed, and a normal tail would give false alarms.

    Args:
        batches: label indices, of any lengths.
        counts: of each class in the whole data set; None takes those in the batches.

    Returns:
        None where nothing can be told: no two labels in a batch, or no two classes.

    Raises:
        ShapeError: `counts` has fewer of a class than the batches; labels that are drawn with replacement have none.

    Example:
        >>> sorted_labels = np.repeat([0, 1], 50).reshape(10, 10)
        >>> label_likeness(list(sorted_labels)).excess
        1.0
    """
    seen = [np.asarray(batch, dtype=np.int64).reshape(-1) for batch in batches]
    inside = np.bincount(np.concatenate(seen)) if seen else np.zeros(0, dtype=np.int64)
    whole = inside if counts is None else np.asarray(counts, dtype=np.int64)
    if len(whole) < len(inside) or np.any(whole[: len(inside)] < inside):
        raise ShapeError("counts: expected at least as many of each class as the batches have")
    sizes = np.array([len(batch) for batch in seen], dtype=np.float64)
    pairs = float((sizes * (sizes - 1)).sum() / 2)
    if not pairs or np.count_nonzero(whole) < 2:
        return None
    tables = np.stack([np.bincount(batch, minlength=len(whole)) for batch in seen])
    alike = int((tables * (tables - 1)).sum() // 2)
    expected, variance = _moments(sizes, whole.astype(np.float64))
    if variance <= 1e-9 * max(expected, 1.0):
        return None
    share = whole / whole.sum()
    proportional = float((sizes[:, None] * share * (sizes[:, None] * share - 1)).sum() / 2)
    above = expected - proportional  # more than zero: counts that vary have more pairs than their means
    shape, scale = above**2 / variance, variance / above
    return Likeness(
        alike=alike,
        expected=expected,
        deviation=math.sqrt(variance),
        excess=(alike - expected) / (pairs - expected) if pairs > expected else 0.0,
        z=_z_of_tail(max(alike - proportional, 0.0) / scale, shape),
    )


def _moments(sizes: np.ndarray, counts: np.ndarray) -> tuple[float, float]:
    """Mean and variance of the number of equal pairs within batches of `sizes`, drawn without replacement."""
    total = counts.sum()
    pairs = float((sizes * (sizes - 1)).sum() / 2)
    touching = float((sizes * (sizes - 1) * (sizes - 2)).sum())  # ordered pairs of pairs that share one member

    def equal(members: int) -> float:
        """Probability that so many given places have one class."""
        chosen = np.ones_like(counts)
        below = 1.0
        for taken in range(members):
            chosen = chosen * np.maximum(counts - taken, 0)
            below *= total - taken
        return float(chosen.sum() / below) if below > 0 else 0.0

    two, three = equal(2), equal(3)
    doubles = counts * (counts - 1)
    below = total * (total - 1) * (total - 2) * (total - 3)
    apart = (doubles.sum() ** 2 - (doubles**2).sum()) / below if below > 0 else 0.0
    four = equal(4) + apart  # two given pairs of places, each of one class
    mean = pairs * two
    square = pairs * two + touching * three + (pairs**2 - pairs - touching) * four
    return mean, max(square - mean**2, 0.0)


def _z_of_tail(value: float, shape: float) -> float:
    """Quantile of a normal variable at the probability that a gamma variable exceeds `value`."""
    tail = float(special.gammaincc(shape, value))
    if tail > 1e-300:
        return float(stats.norm.ppf(tail))
    return -38.0  # as far as floating point tells
