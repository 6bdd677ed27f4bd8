"""What was learned and does not carry over: over-fitting, regularisation beyond use, classes left behind."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np

from clearsight.doctor.rule import Rule
from clearsight.doctor.run.record import Curve, RunRecord
from clearsight.doctor.run.signals import (
    chance_loss,
    chance_score,
    done,
    label_smoothing,
    loss_floor,
    score,
    setting,
    starting_loss,
    training_loss,
    training_score,
    weights_left,
)
from clearsight.doctor.run.smoothing import level, noise, running_median, slope, thin
from clearsight.types import Finding

__all__ = ["ClassImbalance", "OverRegularised", "Overfitting"]


class Overfitting(Rule[RunRecord]):
    """The validation loss rises from its minimum, beyond its noise, while the training loss falls on.

    A gap alone is no fault: healthy runs have validation losses up to 180 times the training loss. Nor is a rise that
    costs no score: a net grows ever more certain, of the images too that it gets wrong. The rise is a warning only
    where the score on validation images is well below its best, beyond its noise; or, where no score is known, where
    the rise is large.

    Args:
        rise: of the validation loss over its minimum, as a factor.
        evals: evaluations since the minimum.
        lost: of the best validation score.
        alone: rise that is a warning where no score is known.
        share: of the budget before which nothing is said, where a budget is known.
    """

    id = "overfitting"
    source = "Prechelt 1998, Early stopping - but when?; Amazon SageMaker Debugger, Overfit rule"

    def __init__(
        self, *, rise: float = 1.1, evals: int = 5, lost: float = 0.05, alone: float = 2.0, share: float = 0.3
    ) -> None:
        self.rise, self.evals, self.lost, self.alone, self.share = rise, evals, lost, alone, share

    def lacks(self, evidence: RunRecord) -> str:
        """A training loss, a validation loss of some evaluations, and that the run is past its start."""
        far = done(evidence)
        if far is not None and far < self.share:
            return f"{self.share:.0%} of the planned steps"
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
            # The best of many noisy scores is some two standard deviations above their course.
            sure = numbers["lost"] >= max(self.lost, 3 * noise(score(evidence)[1]))
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
    """Dropout, smoothing, augmentation or decay so strong that the training images themselves are not learned.

    A training loss above the validation loss is natural under dropout and augmentation. It is a fault where the
    training images are not learned, from the start on: most of the loss is left and the score in training is far
    below the one on validation images, which is low as well; or the weights have been decayed away; or smoothed
    labels, or what dropout leaves, hardly tell classes apart. Training images that were learned and then lost have
    another cause. Where the recipe says that nothing of the kind is switched on, the gap is worth knowing only:
    wrong labels and empty images give it too.

    Args:
        share: of the budget before which nothing is said.
        gap: between the scores on validation and training images, where `left` of the loss is left.
        wide: the same, where `high` of it is left.
        enough: validation score above which nothing is said.
        shrunk: weight norm, in shares of that at the start, that counts as decayed away.
        left: share of the starting loss, or of a guess's where that is lower, above the least loss that there is.
        high: the same.
    """

    id = "over-regularised"
    source = "Ben Braiek and Khomh 2023, DeepChecker"

    def __init__(
        self,
        *,
        share: float = 0.65,
        gap: float = 0.1,
        wide: float = 0.25,
        enough: float = 0.9,
        shrunk: float = 0.2,
        left: float = 0.75,
        high: float = 0.3,
    ) -> None:
        self.share, self.gap, self.wide, self.enough = share, gap, wide, enough
        self.shrunk, self.left, self.high = shrunk, left, high

    def lacks(self, evidence: RunRecord) -> str:
        """A training loss, scores, and that the run is past its start."""
        if len(training_loss(evidence)) < 20 or len(score(evidence)[1]) < 4:
            return "20 training losses and four validation scores"
        far = done(evidence)
        # Weights that are gone do not come back: no need to wait.
        gone = weights_left(evidence) < self.shrunk and self._decays(evidence)
        least = self.share / 2 if gone else self.share
        return "" if far is not None and far >= least else f"{least:.0%} of the planned steps"

    def check(self, evidence: RunRecord) -> Iterable[Finding]:
        """A warning, at most one."""
        loss, (_, curve) = training_loss(evidence), score(evidence)
        floor, start = loss_floor(evidence), min(starting_loss(evidence), chance_loss(evidence) or math.inf)
        now, val = level(loss, max(5, len(loss) // 10)), level(curve, 3)
        left = (now - floor) / max(start - floor, 1e-12)
        if not start > 0 or left < self.high or val >= self.enough:
            return
        gap = self._gap(evidence)
        knob, why = self._knob(evidence, left, gap)
        if not why:
            return
        known = bool(knob) or not evidence.recipe
        at, weights = int(thin(loss, 10).steps[-4]), weights_left(evidence)
        names = {"weight_decay": "weight decay", "label_smoothing": "smoothing of labels", "dropout": "dropout"}
        yield Finding(
            id=self.id,
            severity="warning" if known else "info",
            where=evidence.name,
            explanation=f"The training loss stopped at {now:.3g} of {start:.3g} and the validation score at {val:.3g}; "
            f"{why}: regularisation keeps the model from learning its training images. Lower the "
            f"{names.get(knob, 'dropout or the augmentation')}.",
            evidence={
                "row": "T16",
                "step": at,
                "loss": now,
                "score_gap": gap,
                "weights": weights if math.isfinite(weights) else None,
                "plot": {"curves": ["loss", "val/loss"], "mark": at},
            },
            remedy=self._remedy(evidence, knob),
            source=self.source,
        )

    def _gap(self, record: RunRecord) -> float:
        """How far the training score is below the one on validation images; 0 where it has been as high before."""
        train, (_, curve) = training_score(record), score(record)
        if not len(train):
            return 0.0
        few = max(5, len(train) // 4)
        now, best = level(train, few), float(thin(train, 10).values.max())
        gap = level(curve, few) - now
        blind = chance_score(record) or 0.0
        return 0.0 if best - now >= max(self.gap, gap / 2) or level(curve, few) <= blind + self.gap else gap

    def _knob(self, record: RunRecord, left: float, gap: float) -> tuple[str, str]:
        """What does it, as far as the recipe says, and how that is known; nothing where nothing does."""
        dropout, smoothing = setting(record, "model", "dropout") or 0.0, label_smoothing(record)
        norms = weights_left(record)
        if norms < self.shrunk and self._decays(record):
            return "weight_decay", f"weights shrank to {norms:.2g} of their norm"
        if smoothing >= 0.95 or (smoothing >= 0.5 and left >= 0.5):
            return "label_smoothing", f"labels keep {1 - smoothing:.2g} of their certainty"
        knob = "dropout" if dropout >= 0.3 else "label_smoothing" if smoothing >= 0.3 else ""
        if dropout >= 0.9 and left >= 0.95:
            return knob, f"dropout leaves {1 - dropout:.2g} of the values"
        if gap >= self.wide or (gap >= self.gap and left >= self.left):
            return knob, f"the validation score is {gap:.2g} above that in training"
        return "", ""

    def _decays(self, record: RunRecord) -> bool:
        """Whether the decay of the recipe makes weights halve within the run; taken for so where it is not known."""
        decay, momentum = setting(record, "optimizer", "weight_decay"), setting(record, "optimizer", "momentum") or 0.0
        rates = record.lr.finite()
        if decay is None or not len(rates):
            return True
        path = float(np.mean(rates.values)) * record.steps
        inner = record.recipe["optimizer"].get("name") == "sgd"  # the decay is part of the gradient that is kept
        return decay * path / ((1 - momentum) if inner and momentum < 1 else 1) >= math.log(2)

    def _remedy(self, record: RunRecord, knob: str) -> dict[str, float]:
        section = "optimizer" if knob == "weight_decay" else "model"
        given = setting(record, section, knob)
        if not given:
            return {}
        adamw = record.recipe.get("optimizer", {}).get("name") == "adamw"
        usual = given if knob != "weight_decay" else 1e-2 if adamw else 1e-4
        return {f"{section}.{knob}": float(f"{min(given / 10, usual):.3g}")}


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
