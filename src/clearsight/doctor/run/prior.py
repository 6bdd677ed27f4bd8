"""Runs that learn no more than class frequencies, or stop at the floor that a second softmax sets."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np

from clearsight.doctor.rule import Rule
from clearsight.doctor.run.divergence import LearningRateTooHigh
from clearsight.doctor.run.generalisation import ClassImbalance
from clearsight.doctor.run.rates import faster, slower
from clearsight.doctor.run.record import Curve, RunRecord
from clearsight.doctor.run.signals import (
    chance_loss,
    chance_score,
    done,
    loss_floor,
    score,
    starting_loss,
    training_loss,
    training_score,
)
from clearsight.doctor.run.slow import LearningRateTooLow
from clearsight.doctor.run.smoothing import calm, level, slope, thin
from clearsight.types import Finding

__all__ = ["ClassNeverPredicted", "DoubleSoftmax", "LabelsUnrelated", "StuckAtPrior"]


class StuckAtPrior(Rule[RunRecord]):
    """The training loss of a classifier is where class frequencies alone would put it, and does not leave.

    Losses are counted from the least there is, which smoothed labels put close to that of a guess. A model that is
    right on half of what a guess gets wrong is not stuck, whatever its loss.

    Args:
        share: of the budget before which nothing is said.
        within: relative distance to the entropy of the class frequencies.
        flat: fall of the loss over the last half, in losses of a guess, above which it does leave.
    """

    id = "stuck-at-prior"
    source = "Karpathy 2019, A recipe for training neural networks"

    def __init__(self, *, share: float = 0.3, within: float = 0.05, flat: float = 0.01) -> None:
        self.share, self.within, self.flat = share, within, flat
        self.causes = (LearningRateTooHigh(), LearningRateTooLow())

    def lacks(self, evidence: RunRecord) -> str:
        """A loss, the number of classes, and that the run is past its start."""
        return _lacks(evidence, self.share) or ("" if len(training_loss(evidence)) >= 20 else "20 training losses")

    def check(self, evidence: RunRecord) -> Iterable[Finding]:
        """A warning, at most one."""
        loss, guess = training_loss(evidence).finite(), chance_loss(evidence)
        if guess is None or len(loss) < 20:
            return
        last = loss.between(evidence.steps / 2, evidence.steps)
        blocks = thin(last, 8).values
        room = guess - loss_floor(evidence)
        if len(blocks) < 4 or np.abs(blocks - guess).max() > self.within * room:
            return
        half, blind = len(blocks) // 2, chance_score(evidence) or 0.0
        if np.median(blocks[:half]) - np.median(blocks[half:]) > self.flat * room:
            return
        if level(training_score(evidence), 5) > (1 + blind) / 2:
            return
        because = next((rule.id for rule in self.causes if any(True for _ in rule.check(evidence))), "")
        course = calm(loss)
        leaves = np.flatnonzero(np.abs(course.values - guess) > self.within * room)
        at = int(course.steps[min(leaves[-1] + 1, len(course) - 1)]) if len(leaves) else int(loss.steps[0])
        now = level(last)
        yield Finding(
            id=self.id,
            severity="warning",
            where=evidence.name,
            explanation=f"The training loss stays at {now:.3g}, where guessing by class frequencies gives {guess:.3g}: "
            "nothing of the images is learned. Look at a batch with its labels; then at frozen layers and the rate.",
            evidence={
                "row": "T11",
                "step": at,
                "loss": now,
                "guess": guess,
                "within": self.within,
                "plot": {"curves": ["loss", "val/loss"], "mark": at},
            },
            remedy=faster(evidence) if because == LearningRateTooLow.id else slower(evidence),
            source=self.source,
            because=because,
        )


class LabelsUnrelated(Rule[RunRecord]):
    """Training images are learned, the validation score stays at a guess: labels that the images do not decide.

    Where the score on training images is at a guess as well, nothing is learned by heart, and another rule knows it.

    Args:
        share: of the budget before which nothing is said.
        steps: before which nothing is said: until running statistics of norms have followed, validation is blind.
        factor: validation accuracy in shares of the most frequent class, below which it is a guess.
        learned: fall of the training loss, in losses of a guess, that counts as learning.
        apart: of the score on training images above that on others, where it is known.
    """

    id = "labels-unrelated"
    source = "Zhang et al. 2017, arXiv:1611.03530"

    def __init__(
        self, *, share: float = 0.5, steps: int = 60, factor: float = 1.5, learned: float = 0.03, apart: float = 0.05
    ) -> None:
        self.share, self.steps, self.factor, self.learned, self.apart = share, steps, factor, learned, apart

    def lacks(self, evidence: RunRecord) -> str:
        """A loss, a score on validation images, the number of classes, and that the run is past its start."""
        if "accuracy" not in score(evidence)[0] or len(score(evidence)[1]) < 3:
            return "three validation accuracies"
        if evidence.steps < self.steps:
            return f"{self.steps} steps, there are {evidence.steps}"
        return _lacks(evidence, self.share)

    def check(self, evidence: RunRecord) -> Iterable[Finding]:
        """A warning, at most one."""
        loss, guess, share = training_loss(evidence).finite(), chance_loss(evidence), chance_score(evidence)
        if guess is None or share is None or len(loss) < 20:
            return
        name, curve = score(evidence)
        best = float(curve.values[-3:].max())
        if best > self.factor * share or 2 * share > 1 or not self._blind(evidence):
            return
        reached = level(training_score(evidence), 5)
        if reached < max(self.factor * share, best + self.apart):
            return
        fallen = thin(loss, 20)
        below = np.flatnonzero(fallen.values < (1 - self.learned) * guess)
        now = level(loss, max(5, len(loss) // 10))
        validation = level(evidence.val["loss"], 3) if "loss" in evidence.val else math.inf
        if not len(below) or now > (1 - self.learned) * guess or guess - validation > 0.5 * (guess - now):
            return
        at = int(fallen.steps[below[0]])
        yield Finding(
            id=self.id,
            severity="warning",
            where=evidence.name,
            explanation=f"The training loss fell to {now:.3g}, below a guess's {guess:.3g}, yet the "
            f"validation {name} is {best:.3g}, where always naming one class gives {share:.3g}: training labels are "
            "learned by heart and tell nothing of other images. Look at images with their labels, and at how they are "
            "paired.",
            evidence={
                "row": "T11",
                "step": at,
                "loss": now,
                "guess": guess,
                "score": best,
                "guess_score": share,
                "plot": {"curves": ["loss", "val/loss", f"val/{name}"], "mark": at},
            },
            source=self.source,
        )

    def _blind(self, record: RunRecord) -> bool:
        """Whether the classes together score what any guess scores, one in K: uneven classes hide what is known."""
        curves = [curve for curve in record.class_scores.values() if len(curve.finite()) >= 3]
        if len(curves) < max(2, len(record.classes or record.class_counts)):
            return True
        return float(np.mean([level(curve, 3) for curve in curves])) <= self.factor / len(curves)


class DoubleSoftmax(Rule[RunRecord]):
    """Softmax before a cross-entropy that takes logits: the loss cannot fall below ln(1 + (K - 1) / e).

    Probabilities taken for logits lie in [0, 1], so that each image costs at least that floor, and a wrong one, named
    with certainty, one more. No healthy batch is bound by it: the best batch ever must have come close to the floor,
    and none below.

    Args:
        near: relative distance of the last losses to what accuracy and floor predict.
        close: relative distance of the least loss ever to the floor.
        least: accuracy below which the floor is not reached.
        classes: fewest classes; with fewer, healthy losses lie there as well.
        flat: change of the loss over the last two fifths, in differences between a guess and the floor.
    """

    id = "double-softmax"
    source = "Schoop et al. 2021, UMLAUT, CHI 2021"

    def __init__(
        self, *, near: float = 0.05, close: float = 0.1, least: float = 0.7, classes: int = 4, flat: float = 0.1
    ) -> None:
        self.near, self.close, self.least, self.classes, self.flat = near, close, least, classes, flat

    def lacks(self, evidence: RunRecord) -> str:
        """A loss, an accuracy, and the number of classes."""
        if chance_loss(evidence) is None or len(evidence.classes or evidence.class_counts) < self.classes:
            return f"a classification of {self.classes} classes or more"
        return _late(evidence, 0.3) or ("" if self._pairs(evidence) else "a loss with its accuracy")

    def check(self, evidence: RunRecord) -> Iterable[Finding]:
        """A warning, at most one."""
        classes = len(evidence.classes or evidence.class_counts)
        floor = math.log(1 + (classes - 1) / math.e)
        ever = [curve for curve in (training_loss(evidence), evidence.val.get("loss")) if curve is not None]
        least = min(float(values.min()) for curve in ever if len(values := curve.finite().values))
        if least < floor * (1 - 1e-3) or least > floor * (1 + self.close):
            return
        for place, loss, accuracy in self._pairs(evidence):
            reached, now = level(accuracy, 3), level(loss, max(3, len(loss) // 20))
            expected = floor + 1 - reached
            if reached < self.least or abs(now - expected) > self.near * expected:
                continue
            room, end = starting_loss(evidence) - floor, slope(loss.between(0.6 * evidence.steps, evidence.steps))
            if starting_loss(evidence) - now < 0.2 * room or not abs(end.change) < self.flat * room:
                continue
            course = calm(loss)
            near = np.flatnonzero(np.abs(course.values - expected) <= self.near * expected)
            at = int(course.steps[near[0] if len(near) else -1])
            yield Finding(
                id=self.id,
                severity="warning",
                where=evidence.name,
                explanation=f"The {place} loss stops at {now:.3g} with {reached:.1%} right, and none was ever below "
                f"{floor:.4g}: the floor ln(1 + (K - 1) / e) of softmax taken twice. Give the loss logits: remove the "
                "softmax from the model's end.",
                evidence={
                    "row": "T12",
                    "step": at,
                    "loss": now,
                    "expected": expected,
                    "floor": floor,
                    "least": least,
                    "accuracy": reached,
                    "plot": {"curves": ["loss", "val/loss"], "mark": at},
                },
                source=self.source,
            )
            return

    def _pairs(self, record: RunRecord) -> list[tuple[str, Curve, Curve]]:
        """Losses with the accuracy on the same images."""
        name, validated = score(record)
        if "acc" not in name:
            return []
        pairs = [("validation", record.val.get("loss"), validated)]
        pairs.append(("training", training_loss(record), training_score(record)))
        return [
            (place, loss, accuracy)
            for place, loss, accuracy in pairs
            if loss is not None and len(loss.finite()) and len(accuracy)
        ]


class ClassNeverPredicted(Rule[RunRecord]):
    """One class scores nothing in evaluation after evaluation, while the others do well.

    Args:
        share: of the budget before which nothing is said.
        evals: evaluations in a row.
        others: mean score of the other classes.
    """

    id = "class-never-predicted"
    source = "Google 2023, Deep learning tuning playbook"

    def __init__(self, *, share: float = 0.5, evals: int = 5, others: float = 0.6) -> None:
        self.share, self.evals, self.others = share, evals, others

    def lacks(self, evidence: RunRecord) -> str:
        """Scores of single classes, and that the run is past its start."""
        if len(evidence.class_scores) < 2:
            return "scores of single classes"
        return _late(evidence, self.share)

    def check(self, evidence: RunRecord) -> Iterable[Finding]:
        """A warning, at most one."""
        curves = {name: curve.finite() for name, curve in evidence.class_scores.items()}
        curves = {name: curve for name, curve in curves.items() if len(curve) >= self.evals}
        known = {name: level(curve, self.evals) for name, curve in curves.items()}
        never = [name for name, curve in curves.items() if not curve.values[-self.evals :].any()]
        rest = [value for name, value in known.items() if name not in never]
        if not never or len(never) > len(rest) or np.mean(rest) < self.others:
            return
        ends = {name: np.flatnonzero(curves[name].values) for name in never}
        steps = {
            name: int(curves[name].steps[min(at[-1] + 1, len(curves[name]) - 1) if len(at) else 0])
            for name, at in ends.items()
        }
        named = ", ".join(never[:20])
        yield Finding(
            id=self.id,
            severity="warning",
            where=evidence.name,
            explanation=f"Of {len(known)} classes, {len(never)} scored 0 in the last {self.evals} evaluations "
            f"({named}) while the others reach {np.mean(rest):.2g}: look for their images in the training part, "
            "and for their labels' numbers.",
            evidence={
                "row": "D1",
                "step": max(steps.values()),
                "classes": never[:20],
                "count": len(never),
                "others": float(np.mean(rest)),
                "plot": {"classes": never[:20], "mark": max(steps.values())},
            },
            source=self.source,
            because="class-imbalance" if any(True for _ in ClassImbalance().check(evidence)) else "",
        )


def _late(record: RunRecord, share: float) -> str:
    far = done(record)
    if far is None:
        return "the planned number of steps"
    return "" if far >= share else f"{share:.0%} of the run, {far:.0%} is done"


def _lacks(record: RunRecord, share: float) -> str:
    return "a classification with known classes" if chance_loss(record) is None else _late(record, share)
