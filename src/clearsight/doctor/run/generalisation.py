"""What was learned and does not carry over: over-fitting, regularisation beyond use, classes left behind."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np

from clearsight.doctor.rule import Rule
from clearsight.doctor.run.record import Curve, RunRecord
from clearsight.doctor.run.signals import (
    chance_loss,
    done,
    score,
    setting,
    starting_loss,
    training_loss,
    training_score,
)
from clearsight.doctor.run.smoothing import level, noise, running_median, slope, thin
from clearsight.types import Finding

__all__ = ["ClassImbalance", "OverRegularised", "Overfitting"]


class Overfitting(Rule[RunRecord]):
    """The validation loss rises from its minimum, beyond its noise, while the training loss falls on.

    A gap alone is no fault: healthy runs have validation losses up to 180 times the training loss. Nor is a rise that
    costs no score: a net that is nearly always right grows certain of the few images that it gets wrong. The rise is
    a warning only where the score on training images is far above that on validation images, which has gained little
    against the gap, or where it is well below its best; or, where no score is known, where the rise is large.

    Args:
        rise: of the validation loss over its minimum, as a factor.
        evals: evaluations since the minimum.
        gap: between the scores on training and validation images.
        lost: of the best validation score.
        alone: rise that is a warning where no score is known.
    """

    id = "overfitting"
    source = "Prechelt 1998, Early stopping - but when?; Amazon SageMaker Debugger, Overfit rule"

    def __init__(
        self, *, rise: float = 1.1, evals: int = 5, gap: float = 0.15, lost: float = 0.03, alone: float = 2.0
    ) -> None:
        self.rise, self.evals, self.gap, self.lost, self.alone = rise, evals, gap, lost, alone

    def lacks(self, evidence: RunRecord) -> str:
        """A training loss, and a validation loss of some evaluations."""
        if len(training_loss(evidence).finite()) < 5:
            return "a training loss"
        found = len(evidence.val["loss"].finite()) if "loss" in evidence.val else 0
        least = self.evals + 1
        return "" if found >= least else f"a validation loss of {least} evaluations, there are {found}"

    def check(self, evidence: RunRecord) -> Iterable[Finding]:
        """A warning, at most one."""
        val = running_median(evidence.val["loss"], 3)
        at = int(val.values.argmin())
        least, now, since = float(val.values[at]), level(val, 3), int(val.steps[at])
        guess = chance_loss(evidence)
        numbers = self._scores(evidence, since)
        rise = 1 + (self.rise - 1) / (2 if numbers.get("lost", 0.0) >= self.lost else 1)
        if len(val) - 1 - at < self.evals or least <= 0 or now < rise * least or least > (guess or math.inf):
            return
        after = evidence.val["loss"].between(since - 1, evidence.steps)
        if now - least < 3 * noise(evidence.val["loss"]) / math.sqrt(3) or not slope(after).rises:
            return
        loss = training_loss(evidence)
        then, last = self._around(loss, since), level(loss, max(3, len(loss) // 20))
        if last > 0.98 * then and last > 0.05 * starting_loss(evidence):
            return
        sure = now >= self.alone * least
        if numbers:
            apart = numbers.get("gap", 0.0) >= self.gap and numbers["gained"] <= numbers["gap"] / 3
            sure = apart or numbers["lost"] >= self.lost
        marked = int(
            val.steps[at + int(np.flatnonzero(val.values[at:] >= min(rise * least, float(val.values[at:].max())))[0])]
        )
        said = f"; the score is {numbers['val']:.3g}, {numbers['lost']:.2g} below its best" if numbers else ""
        said += f", and {numbers['train']:.3g} on training images" if "train" in numbers else ""
        yield Finding(
            id=self.id,
            severity="warning" if sure else "info",
            where=evidence.name,
            explanation=f"The validation loss rose from {least:.3g} at step {since} to {now:.3g} while the training "
            f"loss fell from {then:.3g} to {last:.3g}{said}. Stop at the minimum, show more or more varied images, or "
            "regularise.",
            evidence={
                "row": "T13",
                "step": marked,
                "minimum_step": since,
                "minimum": least,
                "now": now,
                "threshold": rise,
                **{f"score_{key}": value for key, value in numbers.items()},
                "plot": {"curves": ["loss", "val/loss"], "mark": since},
            },
            remedy={"trainer.early_stop.patience": self.evals} if evidence.recipe else {},
            source=self.source,
        )

    def _around(self, loss: Curve, step: int) -> float:
        """The training loss about a step."""
        at, wide = int(np.searchsorted(loss.steps, step)), max(3, len(loss) // 20)
        return level(Curve(loss.steps[max(0, at - wide) : at + wide], loss.values[max(0, at - wide) : at + wide]))

    def _scores(self, record: RunRecord, since: int) -> dict[str, float]:
        """The scores now, and what the one on validation images has gained since its loss was least."""
        (_, curve), train = score(record), training_score(record)
        if len(curve) < 3:
            return {}
        smooth = running_median(curve, 3)
        before = smooth.between(-1, since).values
        now = level(curve, 3)
        both = {"train": level(train, 3), "gap": level(train, 3) - now} if len(train) else {}
        return {
            **both,
            "val": now,
            "lost": float(smooth.values.max()) - now,
            "gained": now - float(before.max() if len(before) else smooth.values[0]),
        }


class OverRegularised(Rule[RunRecord]):
    """Dropout, augmentation or decay so strong that the training images themselves are not learned.

    A training loss above the validation loss is natural under dropout and augmentation. It is a fault where training
    has stopped improving, far above what the model can do: the score in training is far below the one on validation
    images, and that one is low as well; or the weights have been decayed away.

    Args:
        share: of the budget before which nothing is said.
        gap: between the scores on validation and training images.
        enough: validation score above which nothing is said.
        shrunk: weight norm, in shares of that at the start, that counts as decayed away.
    """

    id = "over-regularised"
    source = "Ben Braiek and Khomh 2023, DeepChecker"

    def __init__(self, *, share: float = 0.5, gap: float = 0.1, enough: float = 0.9, shrunk: float = 0.2) -> None:
        self.share, self.gap, self.enough, self.shrunk = share, gap, enough, shrunk

    def lacks(self, evidence: RunRecord) -> str:
        """A training loss, scores, and that the run is past its start."""
        if len(training_loss(evidence)) < 20 or len(score(evidence)[1]) < 4:
            return "20 training losses and four validation scores"
        far = done(evidence)
        return "" if far is not None and far >= self.share else f"{self.share:.0%} of the planned steps"

    def check(self, evidence: RunRecord) -> Iterable[Finding]:
        """A warning, at most one."""
        loss, (_, curve), train = training_loss(evidence), score(evidence), training_score(evidence)
        start, now, val = starting_loss(evidence), level(loss, max(5, len(loss) // 10)), level(curve, 3)
        last = slope(loss.between(0.6 * evidence.steps, evidence.steps))
        if not start > 0 or now < 0.3 * start or val >= self.enough:
            return
        norms = self._weights(evidence)
        gap = val - level(train, 3) if len(train) else 0.0
        if -last.change > 0.05 * start and gap < 2.5 * self.gap:
            return  # it still learns
        if norms >= self.shrunk and gap < self.gap:
            return
        at = int(thin(loss, 10).steps[-4]) if len(loss) else 0
        decayed = norms < self.shrunk
        why = f"weights shrank to {norms:.2g} of their norm" if decayed else f"the validation score is {gap:.2g} higher"
        yield Finding(
            id=self.id,
            severity="warning",
            where=evidence.name,
            explanation=f"The training loss stopped at {now:.3g} of {start:.3g} and the validation score at {val:.3g}; "
            f"{why}: regularisation keeps the model from learning its training images. Lower the "
            f"{'weight decay' if decayed else 'dropout or the augmentation'}.",
            evidence={
                "row": "T16",
                "step": at,
                "loss": now,
                "score_gap": gap,
                "weights": norms if math.isfinite(norms) else None,
                "plot": {"curves": ["loss", "val/loss"], "mark": at},
            },
            remedy=self._remedy(evidence, decayed=decayed),
            source=self.source,
        )

    def _weights(self, record: RunRecord) -> float:
        """The median layer's weight norm in shares of its first; infinite where it was not measured."""
        if record.layers is None or "weight_norm" not in record.layers.values:
            return math.inf
        norms = record.layers.values["weight_norm"]
        norms = norms[np.isfinite(norms).all(axis=1)]
        norms = norms[:, (norms > 0).all(axis=0)]
        return float(np.median(norms[-1] / norms[0])) if norms.size else math.inf

    def _remedy(self, record: RunRecord, *, decayed: bool) -> dict[str, float]:
        section, key = ("optimizer", "weight_decay") if decayed else ("model", "dropout")
        given = setting(record, section, key)
        return {f"{section}.{key}": float(f"{given / 10:.3g}")} if given else {}


class ClassImbalance(Rule[RunRecord]):
    """Rare classes are left behind: few labels, and less than half the score of the others.

    Args:
        ratio: of the most frequent class to the rare one.
        behind: score of the rare one in mean scores.
        share: of the budget before which nothing is said.
    """

    id = "class-imbalance"
    source = "Amazon SageMaker Debugger, ClassImbalance rule; Buda et al. 2018, arXiv:1710.05381"

    def __init__(self, *, ratio: float = 10, behind: float = 0.5, share: float = 0.3) -> None:
        self.ratio, self.behind, self.share = ratio, behind, share

    def lacks(self, evidence: RunRecord) -> str:
        """Labels and scores of single classes, and that the run is past its start."""
        if len(evidence.class_counts) != len(evidence.classes) or len(evidence.classes) < 2:
            return "the number of labels of each class"
        if sum(name in evidence.class_scores for name in evidence.classes) < 2:
            return "scores of single classes"
        far = done(evidence)
        return "" if far is not None and far >= self.share else f"{self.share:.0%} of the planned steps"

    def check(self, evidence: RunRecord) -> Iterable[Finding]:
        """A warning, at most one."""
        if self.lacks(evidence):
            return
        counts = dict(zip(evidence.classes, evidence.class_counts, strict=True))
        reached = {name: level(curve, 3) for name, curve in evidence.class_scores.items() if len(curve.finite()) >= 3}
        reached = {name: value for name, value in reached.items() if math.isfinite(value) and name in counts}
        if len(reached) < 2:
            return
        most, mean = max(counts.values()), float(np.mean(list(reached.values())))
        rare = {name for name in reached if counts[name] * self.ratio < most}
        left = sorted((name for name in rare if reached[name] < self.behind * mean), key=lambda name: reached[name])
        if not left:
            return
        worst = left[0]
        at = int(evidence.class_scores[worst].finite().steps[-3])
        yield Finding(
            id=self.id,
            severity="warning",
            where=evidence.name,
            explanation=f"{len(left)} rare classes are left behind ({', '.join(left[:5])}): {worst!r} has "
            f"{counts[worst]} labels of {most} of the most frequent class, and scores {reached[worst]:.2g} where the "
            f"mean is {mean:.2g}. Weight the loss or sample by class, or add images of these.",
            evidence={
                "row": "D1",
                "step": at,
                "classes": left[:20],
                "count": len(left),
                "labels": {name: counts[name] for name in left[:20]},
                "scores": {name: reached[name] for name in left[:20]},
                "mean": mean,
                "plot": {"classes": left[:20], "mark": at},
            },
            source=self.source,
        )
