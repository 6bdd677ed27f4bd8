"""Runs that come too little of the way: a rate too low, too few steps, a model too small or held back."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np

from clearsight.doctor.rule import Rule
from clearsight.doctor.run.rates import faster
from clearsight.doctor.run.record import Curve, RunRecord
from clearsight.doctor.run.signals import (
    chance_loss,
    chance_score,
    done,
    loss_floor,
    score,
    setting,
    training_loss,
    training_score,
    update_ratio,
    weights_left,
)
from clearsight.doctor.run.smoothing import calm, level, running_median, slope, thin
from clearsight.types import Finding

__all__ = ["LearningRateTooLow", "NotConverged", "Underfitting"]


class _Late(Rule[RunRecord]):
    """A rule that reads the training loss from a share of the budget on."""

    share: float

    def lacks(self, evidence: RunRecord) -> str:
        """A training loss of some length, and that enough of the planned steps is done."""
        found, far = len(training_loss(evidence).finite()), done(evidence)
        if found < 20:
            return f"20 values of the training loss, there are {found}"
        if far is None:
            return "the planned number of steps"
        return "" if far >= self.share else f"{self.share:.0%} of the run, {far:.0%} is done"


def _fallen(loss: Curve) -> tuple[float, float]:
    """The level at the start and the one now."""
    few = max(3, len(loss) // 20)
    return level(Curve(loss.steps[:few], loss.values[:few])), level(loss, few)


class LearningRateTooLow(_Late):
    """The loss falls, evenly and hardly, where it ought to fall fast and then slowly: steps are too short.

    Steps are too short for certain where they are measured to be; without that measurement, only a fall that has not
    slowed down by the run's end is a warning, as it may be a plateau before a drop. Losses are counted from the least
    there is, which smoothed labels put above zero.

    Args:
        share: of the budget before which nothing is said.
        fallen: share of the starting loss that has been won at most.
        ended: the same at the end of the run, where steps are measured to be short; what is left is unlearned.
        update: median ‖Δw‖ / ‖w‖ below which steps are too short; healthy runs have 0.005 to 0.03.
        even: pace of the second half in paces of the first from which on a fall has not slowed down.
    """

    id = "learning-rate-too-low"
    source = "Nikanjam et al. 2021, DeepChecker; Karpathy 2019, A recipe for training neural networks"

    def __init__(
        self, *, share: float = 0.3, fallen: float = 0.3, ended: float = 0.7, update: float = 5e-4, even: float = 0.5
    ) -> None:
        self.share, self.fallen, self.ended, self.update, self.even = share, fallen, ended, update, even

    def check(self, evidence: RunRecord) -> Iterable[Finding]:
        """A warning where steps are measured to be short or the run is over, else for information."""
        loss, steps = training_loss(evidence).finite(), evidence.steps
        start, now = _fallen(loss)
        room = start - loss_floor(evidence)
        won = (start - now) / max(abs(room), 1e-12)
        updates = level(update_ratio(evidence))
        tiny = updates < self.update
        if start < 0.3 * (chance_loss(evidence) or 0.0):
            return  # trained before: what is left to win is little
        if won > (self.ended if tiny and evidence.finished else self.fallen) or won < -0.01:
            return
        trend = slope(loss)
        early, late = slope(loss.between(-1, steps / 2)), slope(loss.between(steps / 2, steps))
        others = evidence.val.get("loss", loss)
        carried = slope(others).falls or len(others) < 6  # else it learns, but nothing that carries over
        even = carried and trend.falls and late.falls and late.per_step <= self.even * early.per_step
        if calm(loss).values.max() > 1.2 * max(start, chance_loss(evidence) or 0.0):
            return  # blown up: what is dead makes no steps either
        if not tiny and (not even or math.isfinite(updates)):
            return
        at = int(loss.steps[int(np.searchsorted(loss.steps, self.share * (evidence.budget or steps)))])
        measured = f"; a step changes the weights by {updates:.2g} of themselves" if tiny else ""
        yield Finding(
            id=self.id,
            severity="warning" if tiny or evidence.finished else "info",
            where=evidence.name,
            explanation=f"After {steps} steps the training loss has fallen from {start:.3g} to {now:.3g} only"
            f"{', as evenly as at the start' if even else ''}{measured}: the learning rate is too low. Multiply it by "
            "ten until the loss falls fast at first.",
            evidence={
                "row": "T9",
                "step": at,
                "start": start,
                "now": now,
                "fallen": won,
                "update_ratio": updates if math.isfinite(updates) else None,
                "plot": {"curves": ["loss", "lr"], "mark": at},
            },
            remedy=faster(evidence),
            source=self.source,
        )


class NotConverged(_Late):
    """The run ended while the model still got better.

    Runs whose rate falls to nothing end flat however short they are, so that the last quarter alone tells little: a
    loss that fell beyond doubt over the second half, far above zero, with a validation score that rose by several
    points there and is best at the very end, is a warning as well. So is a run of few steps in all, of a model that
    was not trained before, whose loss fell and is still high: hardly any network learns in a hundred steps.

    Args:
        last: share of the run that is looked at, from its end.
        gained: share of all that the loss fell, that it fell in that part, from which on this is a warning.
        left: share of the starting loss still there.
        better: score gained in that part, from which on this is a warning.
        rising: score gained over the second half, and half of it in the last part, that is a warning of itself.
        high: share of the starting loss still there then.
        few: steps in all, up to which a loss that is not low tells of too few.
        unlearned: shares of the starting loss between which it is not low, and has fallen.
    """

    id = "not-converged"
    source = "Google 2023, Deep learning tuning playbook"
    share = 1.0

    def __init__(
        self,
        *,
        last: float = 0.25,
        gained: float = 0.1,
        left: float = 0.2,
        better: float = 0.01,
        rising: float = 0.05,
        high: float = 0.4,
        few: int = 100,
        unlearned: tuple[float, float] = (0.35, 0.95),
    ) -> None:
        self.last, self.gained, self.left, self.better = last, gained, left, better
        self.rising, self.high = rising, high
        self.few, self.unlearned = few, unlearned

    def check(self, evidence: RunRecord) -> Iterable[Finding]:
        """A warning where much was still won at the end, or where there was hardly any beginning; else an info."""
        loss = training_loss(evidence).finite()
        found = self._still_better(evidence, loss)
        if (found is None or found.severity == "info") and self._hardly_begun(evidence, *_fallen(loss)):
            found = self._too_few(evidence, *_fallen(loss))
        return [] if found is None else [found]

    def _still_better(self, evidence: RunRecord, loss: Curve) -> Finding | None:
        steps = evidence.steps
        since = (1 - self.last) * steps
        start, now = _fallen(loss)
        trend = slope(loss.between(since, steps))
        gained = -trend.change / max(start - now, 1e-12)
        if start <= now or gained < 0.05 or weights_left(evidence) < 0.2:
            return None
        name, curve = score(evidence)
        before, after = curve.between(-1, since), curve.between(since, steps)
        better = float(after.values.max() - before.values.max()) if len(before) and len(after) else math.nan
        rising = self._rising(loss, curve, steps) and better >= self.rising / 2 and now >= self.high * start
        if better <= 0 or not (trend.falls or rising):
            return None
        much = gained >= self.gained and now >= self.left * abs(start) and not better < self.better
        scored = f", and the best {name} rose by {better:.2g}" if math.isfinite(better) else ""
        return Finding(
            id=self.id,
            severity="warning" if much or rising else "info",
            where=evidence.name,
            explanation=f"In the last {self.last:.0%} of the run the training loss still won {gained:.0%} of all it "
            f"won{scored}: the run ended before the model was done. Train longer, or start with a higher rate.",
            evidence={
                "row": "T15",
                "step": int(since),
                "gained": gained,
                "loss": now,
                "score_gained": better if math.isfinite(better) else None,
                "plot": {"curves": ["loss", "val/loss"], "mark": int(since)},
            },
            remedy=self._longer(evidence),
            source=self.source,
        )

    def _hardly_begun(self, record: RunRecord, start: float, now: float) -> bool:
        """Few steps in all from fresh weights, in which the loss fell and did not become low."""
        guess, (least, most) = chance_loss(record), self.unlearned
        fresh = guess is None or start >= 0.5 * guess
        return fresh and record.steps <= self.few and least * start < now < most * start

    def _too_few(self, record: RunRecord, start: float, now: float) -> Finding:
        return Finding(
            id=self.id,
            severity="warning",
            where=record.name,
            explanation=f"The run was over after {record.steps} steps, with the training loss at {now:.3g} of "
            f"{start:.3g}: hardly any network learns in so few. Train longer, or with smaller batches, which make more "
            "steps of the same images.",
            evidence={
                "row": "T15",
                "step": record.steps,
                "loss": now,
                "threshold": self.few,
                "plot": {"curves": ["loss", "val/loss"], "mark": record.steps},
            },
            remedy=self._longer(record),
            source=self.source,
        )

    def _rising(self, loss: Curve, scored: Curve, steps: int) -> bool:
        """Over the second half the loss fell and the score rose, both beyond doubt, the score by several points."""
        course = slope(scored.between(0.5 * steps, steps))
        return slope(loss.between(0.5 * steps, steps)).falls and course.rises and course.change >= self.rising

    def _longer(self, record: RunRecord) -> dict[str, int]:
        """Twice as long, in the unit of the recipe."""
        given = {key: setting(record, "trainer", key) for key in ("epochs", "steps")}
        return next(({f"trainer.{key}": int(2 * value)} for key, value in given.items() if value), {})


class Underfitting(_Late):
    """Training and validation loss are flat and high: the model cannot do better, or is held back.

    Flat is a loss that kept its level over two fifths of the run; once the run is over and a rate that falls has had
    its say, one that hardly fell over the last quarter.

    Args:
        share: of the budget before which nothing is said.
        high: share of the starting loss that is left.
        score: on training images, above which it is worth knowing only: the model fits most of them.
        fits: above which nothing is said.
        flat: fall over two fifths of the run, in starting losses.
        ended: fall over the last quarter of a run that is over.
        better: score gained in that quarter, with which the model still learns.
    """

    id = "underfitting"
    source = "Karpathy 2019, A recipe for training neural networks; Stanford CS231n, notes on learning"

    def __init__(
        self,
        *,
        share: float = 0.5,
        high: float = 0.3,
        score: float = 0.55,
        fits: float = 0.75,
        flat: float = 0.02,
        ended: float = 0.05,
        better: float = 0.03,
    ) -> None:
        self.share, self.high, self.score, self.fits = share, high, score, fits
        self.flat, self.ended, self.better = flat, ended, better

    def check(self, evidence: RunRecord) -> Iterable[Finding]:
        """A warning where the score on training images is low too; nothing where another rule knows the cause."""
        loss = training_loss(evidence).finite()
        start, now = _fallen(loss)
        if not start > 0 or now < self.high * start or not self._flat(evidence, loss, start):
            return
        guess, updates = chance_loss(evidence), level(update_ratio(evidence))
        if updates < 5e-4 or updates > 0.1 or (guess is not None and now > 0.95 * guess):
            return
        reached = level(training_score(evidence), 5)
        validation, blind = level(score(evidence)[1], 3), chance_score(evidence)
        if blind is not None and validation <= 1.5 * blind:
            return
        known = max(value for value in (reached, validation, 0.0) if math.isfinite(value))
        if known > self.fits:
            return
        sure = math.isfinite(reached) and known <= self.score
        blocks = running_median(thin(loss, 40), 3)
        flat = np.flatnonzero(blocks.values <= now + 0.05 * start)
        at = int(blocks.steps[flat[0]]) if len(flat) else int(loss.steps[0])
        yield Finding(
            id=self.id,
            severity="warning" if sure else "info",
            where=evidence.name,
            explanation=f"The training loss has been flat at {now:.3g} of {start:.3g} since step {at}"
            + (f", with a score of {reached:.2g} on training images" if math.isfinite(reached) else "")
            + ": the model is too small for the task, or part of it is frozen. Make it wider or deeper, or train all "
            "of it.",
            evidence={
                "row": "T14",
                "step": at,
                "start": start,
                "now": now,
                "score": reached if math.isfinite(reached) else None,
                "plot": {"curves": ["loss", "val/loss"], "mark": at},
            },
            source=self.source,
        )

    def _flat(self, record: RunRecord, loss: Curve, start: float) -> bool:
        """Whether the loss neither falls nor rises any more; at the end, whether the score has stopped rising, too."""
        steps, curve = record.steps, score(record)[1]
        recent = slope(loss.between(0.6 * steps, steps)).change
        if -self.flat * start < recent < 0.05 * start:
            return True
        before, after = curve.between(-1, 0.75 * steps).values, curve.between(0.75 * steps, steps).values
        if not record.finished or (len(before) and len(after) and after.max() - before.max() >= self.better):
            return False
        return abs(slope(loss.between(0.75 * steps, steps)).change) < self.ended * start
