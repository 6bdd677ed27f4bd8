"""Classes with many times the training examples of others, and classes with next to none."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from clearsight.data.class_pixels import ClassPixels, class_pixel_counts, class_weights
from clearsight.doctor.data.evidence import DataEvidence
from clearsight.doctor.rule import Rule
from clearsight.recipe.segment_sections import SegmenterSection
from clearsight.types import Finding, Task

__all__ = ["ClassImbalance", "FewExamples"]

_LISTED = 20


class ClassImbalance(Rule[DataEvidence]):
    """The largest class has many times the training examples of the smallest.

    Never more than information: whether an imbalance costs anything shows only in the recall of the rare classes, after
    training. Classes without any example are left out; the readers report them as `empty-class`. Examples are images
    in classification, objects in detection, pixels in semantic segmentation.

    Args:
        ratio: largest over smallest class up to which nothing is said.
        severe: ratio above which weights and samplers are no longer enough.
        share: a class is named as rare below this share of the mean class.
    """

    id = "class-imbalance"
    source = (
        "Amazon SageMaker Debugger, ClassImbalance; Buda et al. 2018, arXiv:1710.05381; Gupta et al. 2019, "
        "arXiv:1908.03195 (repeat-factor sampling)"
    )

    def __init__(self, *, ratio: float = 10.0, severe: float = 50.0, share: float = 0.1) -> None:
        self.ratio, self.severe, self.share = ratio, severe, share

    def lacks(self, evidence: DataEvidence) -> str:
        """Two classes."""
        return "two classes or more" if len(evidence.dataset.classes) < 2 else ""

    def check(self, evidence: DataEvidence) -> Iterable[Finding]:
        """One finding for the set."""
        train = evidence.train or evidence.dataset
        counts = _examples(evidence)
        there = np.flatnonzero(counts.pixels)
        if len(there) < 2:
            return
        numbers = counts.pixels[there]
        ratio = float(numbers.max() / numbers.min())
        remedy, advice = self._advice(evidence, ratio)
        if ratio <= self.ratio or not advice:
            return
        order = there[np.argsort(numbers, kind="stable")]
        few, many = train.classes[order[0]], train.classes[order[-1]]
        unit = _unit(evidence)
        rare = [train.classes[k] for k in order if counts.pixels[k] < self.share * numbers.mean()]
        weights = class_weights(counts, method="inverse_sqrt")
        yield Finding(
            id=self.id,
            severity="info",
            where=str(train.root),
            explanation=(
                f"Class {many!r} has {ratio:.0f} times the training {unit} of {few!r} ({numbers.max():,} and "
                f"{numbers.min():,}); up to {self.ratio:g} times seldom matters. {advice} Watch the recall of "
                f"{few!r}: the imbalance costs something only where that is far below the others'."
            ),
            evidence={
                "row": "D1",
                "unit": unit,
                "ratio": ratio,
                "threshold": self.ratio,
                "severe": self.severe,
                "counts": {train.classes[k]: int(counts.pixels[k]) for k in order[:_LISTED]},
                "classes": len(there),
                "rare": rare[:_LISTED],
                "rare_count": len(rare),
                "weights": {train.classes[k]: round(float(weights[k]), 4) for k in order[:_LISTED]},
            },
            remedy=remedy,
            source=self.source,
        )

    def _advice(self, evidence: DataEvidence, ratio: float) -> tuple[dict[str, str], str]:
        """A patch of the recipe and what to say; nothing where the recipe does all that can be done."""
        collect = "Collect more examples of the rare classes: no weight replaces images that were never seen."
        more = f" {collect}" if ratio > self.severe else ""
        section = None if evidence.recipe is None else evidence.recipe.model
        if isinstance(section, SegmenterSection):
            if section.class_weights != "none":
                return {}, more.strip()
            method = "median" if ratio > self.severe else "inverse_sqrt"
            return {"model.class_weights": method}, f"Weigh the classes in the loss.{more}"
        task = _task(evidence)
        if task == "classification":
            return {}, (
                "No key of a recipe balances classes: in code, weigh them in the loss (cross_entropy's `weight`; the "
                f"evidence has weights) or draw the rare ones more often (WeightedRandomSampler).{more}"
            )
        if task == "semantic":
            return {}, f"Weigh the classes in the loss (weights are in the evidence).{more}"
        return {}, (
            "No key of a recipe balances classes: list images that show the rare ones several times in the training "
            f"split (repeat-factor sampling).{more}"
        )


class FewExamples(Rule[DataEvidence]):
    """A class has too few training examples to be learned or to be judged.

    It is a warning where it is half of the classes or more, and where a class has next to nothing; one rare class of a
    set that is large enough is information.

    Args:
        examples: images, or objects, of a class that are enough; LVIS calls a class of up to ten images rare. Classes
            without any are reported as `empty-class`.
        hardly: examples below which a single class is a warning: the customary five shots of few-shot learning, and
            the fewest that each of five folds can be tested on.
        part: of the classes from which on it is a warning.
    """

    id = "few-examples"
    source = "Gupta et al. 2019, arXiv:1908.03195 (LVIS: rare classes); Vinyals et al. 2016, arXiv:1606.04080 (5 shots)"

    def __init__(self, *, examples: int = 10, hardly: int = 5, part: float = 0.5) -> None:
        self.examples, self.hardly, self.part = examples, hardly, part

    def lacks(self, evidence: DataEvidence) -> str:
        """Examples that can be counted one by one."""
        if _task(evidence) == "semantic":
            return "labels of images or objects"
        return "" if any((evidence.train or evidence.dataset).counts().values()) else "labels"

    def check(self, evidence: DataEvidence) -> Iterable[Finding]:
        """One finding for all such classes, the rarest first."""
        train = evidence.train or evidence.dataset
        counts = train.counts()
        few = sorted((count, name) for name, count in counts.items() if 0 < count < self.examples)
        if not few:
            return
        there = sum(count > 0 for count in counts.values())
        grave = few[0][0] < self.hardly or len(few) >= self.part * there
        unit = _unit(evidence)
        listed = ", ".join(f"{name!r} ({count})" for count, name in few[:5])
        others = f" and {len(few) - 5} more" if len(few) > 5 else ""
        yield Finding(
            id=self.id,
            severity="warning" if grave else "info",
            where=str(train.root),
            explanation=(
                f"{len(few)} of {len(counts)} classes have fewer than {self.examples} training {unit}: "
                f"{listed}{others}. "
                "They will hardly be learned, and no score of theirs means much. Collect more, join the class with a "
                "like one, or leave it out."
            ),
            evidence={
                "row": "D1",
                "unit": unit,
                "threshold": self.examples,
                "warning": self.hardly,
                "counts": {name: count for count, name in few[:_LISTED]},
                "count": len(few),
            },
            source=self.source,
        )


def _unit(evidence: DataEvidence) -> str:
    return {"classification": "images", "semantic": "pixels"}.get(_task(evidence), "objects")


def _task(evidence: DataEvidence) -> Task:
    """What is trained; the data may allow more."""
    return evidence.dataset.task if evidence.recipe is None else evidence.recipe.task


def _examples(evidence: DataEvidence) -> ClassPixels:
    """Training examples of each class; `pixels` holds whatever is counted."""
    train = evidence.train or evidence.dataset
    if _task(evidence) == "semantic":
        return class_pixel_counts(train)
    counts: NDArray[np.int64] = np.array(list(train.counts().values()), np.int64)
    return ClassPixels(pixels=counts, around=np.full_like(counts, counts.sum()), images=counts)
