"""Whether a property of the image that has nothing to do with what it shows gives its class away."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from clearsight.doctor.data.evidence import DataEvidence
from clearsight.doctor.data.image_properties import PROPERTIES, image_properties
from clearsight.doctor.data.shift import split_units
from clearsight.doctor.data.split_rows import split_rows
from clearsight.doctor.rule import Rule
from clearsight.types import Finding, Record, Severity

__all__ = ["SpuriousProperty", "predictive_power"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
_FOLDS = 5
_BINS = 20
_MOST = 20_000  # images that are looked at
_BACKGROUND = ("border brightness", "size", "aspect")
_FEW = 20  # different sizes


class SpuriousProperty(Rule[DataEvidence]):
    """One number of an image, such as its brightness, predicts the class far better than chance.

    A network then learns the number in place of the object. It may also be right to: a ripe fruit is red. Between two
    kinds of blood cells, or two handwritten digits, the colour, contrast, sharpness or size of a crop has a power of up
    to 0.98, and nothing is wrong. So these are information, however strong; a warning is what has nothing to do with
    the object: the brightness of the border (up to 0.52 there), and sizes, where a set has only a few, as of cameras.

    Args:
        power: `predictive_power` above which it is worth saying.
        strong: above which, by two standard errors, a property of the background is a warning.
        deviations: of chance, that the power lies above 0 by at least.
        images: fewest images of a class that allow a judgement; smaller classes are left out.
    """

    id = "spurious-property"
    source = (
        "Geirhos et al. 2020, arXiv:2004.07780 (shortcut learning); deepchecks and cleanlab, correlation of image "
        "properties with labels"
    )

    def __init__(self, *, power: float = 0.3, strong: float = 0.6, deviations: float = 4.0, images: int = 20) -> None:
        self.power, self.strong, self.deviations, self.images = power, strong, deviations, images

    def lacks(self, evidence: DataEvidence) -> str:
        """Two classes of enough images."""
        rows, _ = self._labelled(evidence)
        return "" if len(rows) else f"two classes of {self.images} training images each"

    def check(self, evidence: DataEvidence) -> Iterable[Finding]:
        """One finding for each property, the strongest first."""
        rows, labels = self._labelled(evidence)
        properties = image_properties(evidence.scan, rows)
        units = split_units(evidence)[rows]
        found = [(*predictive_power(column, labels, units), i) for i, column in enumerate(properties.T)]
        for power, error, i in sorted(found, reverse=True):
            if power > self.power and power > self.deviations * error:
                yield self._finding(evidence, (power, error), i, properties[:, i], labels)

    def _finding(
        self, evidence: DataEvidence, measured: tuple[float, float], number: int, values: Floats, labels: Ints
    ) -> Finding:
        power, error = measured
        name = PROPERTIES[number]
        outside = name in _BACKGROUND and (name == "border brightness" or len(np.unique(values.round(6))) <= _FEW)
        severity: Severity = "warning" if outside and power - 2 * error > self.strong else "info"
        of = {evidence.dataset.classes[k]: round(float(np.median(values[labels == k])), 4) for k in np.unique(labels)}
        middle = sorted(of.items(), key=lambda item: item[1])
        return Finding(
            id=self.id,
            severity=severity,
            where=str(evidence.dataset.root),
            explanation=(
                f"The {name} of an image alone predicts its class: {power:.0%} of the way from chance to certainty "
                f"(medians {middle[0][1]:.3g} for {middle[0][0]!r} to {middle[-1][1]:.3g} for {middle[-1][0]!r}). If "
                f"{name} comes from how the images were taken and not from what they show, a model learns that "
                "instead, and fails elsewhere: collect classes under the same conditions, or vary it in augmentation."
            ),
            evidence={
                "row": "D8",
                "property": name,
                "power": round(power, 4),
                "error": round(error, 4),
                "threshold": self.power,
                "warning": self.strong,
                "background": outside,
                "images": len(values),
                "medians": dict([*middle[:10], *middle[-10:]]),
                "classes": len(middle),
            },
            remedy=_remedy(evidence, name),
            source=self.source,
        )

    def _labelled(self, evidence: DataEvidence) -> tuple[Ints, Ints]:
        """Rows of the scan with a label of a large enough class, and the labels; empty where fewer than two are."""
        records = evidence.dataset.records
        label = np.array([_label(record) for record in records], np.int64)
        rows = np.arange(len(records)) if evidence.train is None else split_rows(evidence, evidence.train)
        rows = rows[(label[rows] >= 0) & evidence.scan.readable[rows]]
        classes, counts = np.unique(label[rows], return_counts=True)
        rows = rows[np.isin(label[rows], classes[counts >= self.images])]
        rows = np.random.default_rng(0).permutation(rows)[:_MOST]
        return (rows, label[rows]) if len(np.unique(label[rows])) > 1 else (rows[:0], label[:0])


def predictive_power(values: Floats, labels: Ints, units: Ints) -> tuple[float, float]:
    """How much one number tells of a class: balanced accuracy between chance, 0, and certainty, 1.

    Method: the predictive power score (Wetschoreck 2020) of a histogram: in each of 20 bins of equal count the class
        that is most frequent there, each class weighted as if all had the same number of images. Judged by 5-fold
        cross-validation.

    Args:
        values: `(n,)`.
        labels: `(n,)` of two classes or more.
        units: `(n,)` numbers of what is kept together in a fold.

    Returns:
        The power, which may be a little below 0, and its standard error.
    """
    names, label = np.unique(labels, return_inverse=True)
    classes, totals = len(names), np.bincount(label)
    bins = np.unique(np.quantile(values, np.linspace(0, 1, _BINS + 1)[1:-1]))
    at = np.searchsorted(bins, values, side="right")
    unit = np.unique(units, return_inverse=True)[1]
    fold = (np.random.default_rng(0).permutation(unit.max() + 1) % _FOLDS)[unit]
    right = np.zeros(len(values), bool)
    for number in range(_FOLDS):
        held = fold == number
        table = np.zeros((len(bins) + 1, classes))
        np.add.at(table, (at[~held], label[~held]), 1)
        right[held] = (table / np.maximum(table.sum(axis=0), 1)).argmax(axis=1)[at[held]] == label[held]
    recall = np.bincount(label, weights=right, minlength=classes) / totals
    chance = 1 / classes
    return float((recall.mean() - chance) / (1 - chance)), _error(recall, totals) / (1 - chance)


def _error(recall: Floats, totals: Ints) -> float:
    """Standard error of a mean of recalls; a recall of 0 or 1 counts as seen with one more of each kind."""
    smoothed = (recall * totals + 1) / (totals + 2)
    return float(np.sqrt((smoothed * (1 - smoothed) / totals).sum()) / len(recall))


def _label(record: Record) -> int:
    """The image's class, or that of most of its objects; -1 where it has none."""
    if record.label is not None:
        return record.label
    counts = Counter(item.label for item in record.objects if not item.crowd)
    return counts.most_common(1)[0][0] if counts else -1


def _remedy(evidence: DataEvidence, name: str) -> dict[str, float]:
    """More variation of the property, where the recipe's augmentation has it and does not use it."""
    if evidence.recipe is None:
        return {}
    key = {"brightness": "brightness", "border brightness": "brightness", "contrast": "contrast"}.get(name, "")
    return {f"augment.{key}": 0.4} if key and getattr(evidence.recipe.augment, key) < 0.4 else {}
