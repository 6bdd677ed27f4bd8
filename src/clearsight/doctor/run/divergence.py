"""Losses that rise or leave their range: a wrong sign, a rate too high, a divergence."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np

from clearsight.doctor.rule import Rule
from clearsight.doctor.run.rates import slower
from clearsight.doctor.run.record import Curve, RunRecord
from clearsight.doctor.run.signals import (
    chance_loss,
    chance_score,
    done,
    learning_rate,
    score,
    starting_loss,
    training_loss,
    update_ratio,
    weights_left,
)
from clearsight.doctor.run.smoothing import calm, level, thin
from clearsight.types import Finding

__all__ = ["DivergingLoss", "LearningRateTooHigh", "WrongSign"]


class _OnLoss(Rule[RunRecord]):
    """A rule that reads the training loss."""

    least = 20

    def lacks(self, evidence: RunRecord) -> str:
        """A training loss of some length."""
        found = len(training_loss(evidence))
        return "" if found >= self.least else f"{self.least} values of the training loss, there are {found}"


class WrongSign(_OnLoss):
    """The loss is maximised: the gradient is followed upwards, or its negative is minimised.

    A cross-entropy is never negative. Other losses may be (a log-likelihood, a similarity), so that a negative value
    alone says nothing where the loss did not start near the one of a guess. A loss that rises from the first step on,
    steadily and by small steps, is maximised; one that jumps has too high a rate.

    Args:
        steady: share of the blocks of steps in which the loss rises.
        factor: how far it has risen, in starting values.
        update: median ‖Δw‖ / ‖w‖ of the first four steps measured, above which the rate is to blame instead.
    """

    id = "wrong-sign"
    source = "Zhang et al. 2021, AutoTrainer, ICSE 2021"
    least = 8  # a negative cross-entropy is soon known, and soon no number any more

    def __init__(self, *, steady: float = 0.9, factor: float = 1.5, update: float = 0.03) -> None:
        self.steady, self.factor, self.update = steady, factor, update

    def check(self, evidence: RunRecord) -> Iterable[Finding]:
        """An error, at most one."""
        loss, start, guess = training_loss(evidence).finite(), starting_loss(evidence), chance_loss(evidence)
        if guess is not None and abs(abs(start) / guess - 1) < 0.5:
            below = np.flatnonzero(loss.values < min(-0.05 * guess, start - 0.05 * guess))
            if len(below):
                at = int(loss.steps[below[0]])
                said = f"The loss went to {loss.values.min():.3g}: a cross-entropy is never negative"
                yield self._finding(evidence, said, {"step": at, "least": float(loss.values.min()), "start": start})
                return
        if self._climbs(evidence, loss, start):
            end = level(loss, 5)
            smooth = calm(loss)
            high = np.flatnonzero(smooth.values > start + 0.2 * abs(start))
            at = int(smooth.steps[high[0] if len(high) else -1])
            said = f"The loss rose steadily from the first step on, from {start:.3g} to {end:.3g}"
            yield self._finding(evidence, said, {"step": at, "start": start, "end": end})

    def _climbs(self, record: RunRecord, loss: Curve, start: float) -> bool:
        if len(loss) < _OnLoss.least or not level(loss, 5) > start + (self.factor - 1) * abs(start):
            return False
        blocks = thin(loss, 10).values
        if len(blocks) < 4 or np.mean(np.diff(blocks) > 0) < self.steady or blocks.min() < start - 0.1 * abs(start):
            return False
        early = update_ratio(record)
        if len(early) and float(np.median(early.values[:4])) > self.update:
            return False
        guess, (_, curve) = chance_score(record), score(record)
        return guess is None or not len(curve) or level(curve, 3) <= 1.2 * guess

    def _finding(self, record: RunRecord, said: str, numbers: dict[str, object]) -> Finding:
        explanation = f"{said}, so that training makes the model worse; minimise the loss, not its negative."
        evidence = {"row": "T10", **numbers, "plot": {"curves": ["loss"], "mark": numbers["step"]}}
        return Finding(
            id=self.id,
            severity="error",
            where=record.name,
            explanation=explanation,
            evidence=evidence,
            source=self.source,
        )


class LearningRateTooHigh(_OnLoss):
    """Steps so long that the loss blew up, that all was lost again, or that weights change by a tenth a step.

    The running median of the losses is looked at, which one bad batch does not lift. Healthy runs of small batches may
    rise to twice the loss of a guess during their first tenth and come back, so that a moderate height counts only
    where it stays. A jump out of what was learned, at a rate that had been good, has another cause: a batch, labels.

    Args:
        factor: height of the loss, in values at the start or of a guess, that is a blow-up where the loss stays above a
            guess; twice as much where the loss of a guess is not known, as a single first value says little.
        sure: height at which nothing is waited for.
        patience: share of the budget after which a moderate height has to be gone.
        update: median ‖Δw‖ / ‖w‖ above which steps are too long; healthy runs have 0.005 to 0.03.
        spoiled: share of the loss of a guess that must be left for long steps to be a fault.
        learned: share of it below which something had been learned, and all is lost where 0.9 of it is left.
        well: share of it below which all was well.
        share: of the budget before which the length of steps says nothing.
    """

    id = "learning-rate-too-high"
    source = "Nikanjam et al. 2021, DeepChecker; Google 2023, Deep learning tuning playbook"

    def __init__(
        self,
        *,
        factor: float = 1.5,
        sure: float = 4.0,
        patience: float = 0.15,
        update: float = 0.1,
        spoiled: float = 0.3,
        learned: float = 0.6,
        well: float = 0.4,
        share: float = 0.3,
    ) -> None:
        self.factor, self.sure, self.patience, self.update = factor, sure, patience, update
        self.spoiled, self.learned, self.well, self.share = spoiled, learned, well, share

    def check(self, evidence: RunRecord) -> Iterable[Finding]:
        """A warning with what shows it first: the height of the loss, the fall back to a guess, or long steps."""
        loss, start = training_loss(evidence).finite(), starting_loss(evidence)
        if len(loss) < 5 or not start > 0:
            return
        chance = chance_loss(evidence)
        guess, factor = max(start, chance or 0.0), self.factor if chance else 2 * self.factor
        found = self._height(evidence, loss, guess, factor) or self._lost(evidence, loss, guess, factor)
        found = found or self._length(evidence, loss, guess)
        if found is None or self.all_at_once(evidence, loss, guess, found[0]):
            return
        if any(True for _ in WrongSign().check(evidence)):
            return
        at, said = found
        update = self._long_steps(evidence)[0]
        yield Finding(
            id=self.id,
            severity="warning",
            where=evidence.name,
            explanation=f"The training loss {said} (healthy: it falls from the start, and steps are 0.005 to 0.03 of "
            "the weights): the learning rate is too high. Divide it by ten, or warm it up.",
            evidence={
                "row": "T8",
                "step": at,
                "start": start,
                "highest": float(calm(loss).values.max()),
                "threshold": factor * guess,
                "update_ratio": update if math.isfinite(update) else None,
                "learning_rate": learning_rate(evidence),
                "plot": {"curves": ["loss", "lr"], "mark": at},
            },
            remedy=slower(evidence),
            source=self.source,
        )

    def _height(self, record: RunRecord, loss: Curve, guess: float, factor: float) -> tuple[int, str] | None:
        """The loss blew up: beyond doubt, or it did not come back below a guess in time."""
        course = calm(loss)
        tall = np.flatnonzero(course.values > factor * guess)
        if not len(tall):
            return None
        at, top = int(course.steps[tall[0]]), float(course.values.max())
        far = done(record)
        waited = record.steps - at >= self.patience * (record.budget or record.steps) or far == 1
        if top > self.sure * factor * guess or (waited and _now(record, loss) > guess):
            return at, f"rose to {top:.3g} from {starting_loss(record):.3g}"
        return None

    def _lost(self, record: RunRecord, loss: Curve, guess: float, factor: float) -> tuple[int, str] | None:
        """What was learned is lost, or was never learned after a jump."""
        course, now = calm(loss), _now(record, loss, 10)
        below = np.flatnonzero(course.values < self.learned * guess)
        if not now > 0.9 * guess or record.steps < self.patience * (record.budget or 0):
            return None
        if len(below) and course.steps[below[-1]] <= record.steps - (record.budget or record.steps) / 10:
            at = int(course.steps[min(below[-1] + 1, len(course) - 1)])
            return at, f"had fallen to {course.values.min():.3g} and is back at {now:.3g}, no better than a guess"
        if self._late(record, loss) and loss.values.max() > 2 * factor * guess:
            at = int(loss.steps[loss.values.argmax()])
            return at, f"jumped to {loss.values.max():.3g} and stays at {now:.3g}"
        return None

    def _length(self, record: RunRecord, loss: Curve, guess: float) -> tuple[int, str] | None:
        """Steps are long, and the loss is still high."""
        (update, at), now = self._long_steps(record), _now(record, loss)
        if not self._late(record, loss) or not update > self.update or now <= self.spoiled * guess:
            return None
        if weights_left(record) < 0.2:
            return None  # small beside weights that were decayed away
        return at, f"is {now:.3g}, and a step changed the weights by {update:.2g} of themselves"

    def _late(self, record: RunRecord, loss: Curve) -> bool:
        return (done(record) or float(len(loss) >= 200)) >= self.share

    def all_at_once(self, record: RunRecord, loss: Curve, guess: float, at: int) -> bool:
        """Whether all was well ten steps before, and the rate has not risen since: a jump has another cause.

        Args:
            record: of the run.
            loss: of training, finite.
            guess: the loss of a guess.
            at: step at which it is high.
        """
        course = calm(loss)
        well = course.steps[(course.values < self.learned * guess) & (course.steps < at)]
        high = np.flatnonzero((loss.values > guess) & (loss.steps > (well[-1] - 5 if len(well) else at)))
        if not len(high) or high[0] < 10:
            return False
        first, jump = loss.steps[high[0] - 10], loss.steps[high[0]]
        rates = record.lr.finite()
        before, after = rates.between(float(first) - 1, float(jump) - 1).values, rates.between(-1, at).values
        since = rates.between(float(jump) - 1, at).values
        if not len(before) or not len(after):
            return False
        risen = float((since if len(since) else after[-1:]).max()) > 1.05 * float(before.min())
        return float(np.median(loss.values[high[0] - 10 : high[0]])) < self.well * guess and not risen

    def _long_steps(self, record: RunRecord) -> tuple[float, int]:
        """The larger of the update ratios early on and in the later half, and the first step with too long a one."""
        updates = update_ratio(record)
        if len(updates) < 4:
            return math.nan, 0
        early = level(updates.between(-1, updates.steps[0] + 0.1 * record.steps))
        over = np.flatnonzero(updates.values > self.update)
        return max(early, level(updates, len(updates) // 2)), int(updates.steps[over[0]]) if len(over) else 0


def _now(record: RunRecord, loss: Curve, part: int = 20) -> float:
    """The level of the loss, over a twentieth of the budget (or another part of it) and ten values at least."""
    recent = loss.between(record.steps - (record.budget or record.steps) / part, record.steps)
    return level(loss, max(10, len(recent)))


class DivergingLoss(_OnLoss):
    """The loss is above its start, or far above what had been reached, or no longer a number.

    Levels are medians over a tenth of the budget, so that neither single batches nor a rise that comes back is told.

    Args:
        above: the starting loss, as a factor, that the last losses exceed; 2.5 times as far where the loss of a guess
            is not known.
        sure: the factor during the first `patience` of the budget, when healthy losses may rise and come back.
        patience: share of the budget.
        lost: rise over the least level, in losses of a guess, that is a warning.
    """

    id = "diverging-loss"
    source = "Ben Braiek and Khomh 2023, DeepChecker"

    def __init__(self, *, above: float = 1.2, sure: float = 4.0, patience: float = 0.15, lost: float = 0.3) -> None:
        self.above, self.sure, self.patience, self.lost = above, sure, patience, lost
        self.causes = (WrongSign(), LearningRateTooHigh())

    def check(self, evidence: RunRecord) -> Iterable[Finding]:
        """An error where the loss is above its start or no number, a warning where much of what was won is lost."""
        full = training_loss(evidence)
        loss, start = full.finite(), starting_loss(evidence)
        if not len(loss):
            return
        ended = not np.isfinite(full.values[-3:]).any()
        chance = chance_loss(evidence)
        guess = max(abs(start), chance or 0.0)
        blocks = thin(loss, max(2, len(loss) // self._width(evidence, loss)))
        now, least = _now(evidence, loss), float(blocks.values.min())
        room = (self._factor(evidence) - 1) * (1 if chance else 2.5)
        above = now > start + room * guess and now > least + room * guess
        back = max(2 * least, least + self.lost * guess)
        if not ended and not above and not (len(blocks) >= 3 and blocks.values[-1] > back):
            return
        if ended:
            at = int(full.steps[np.flatnonzero(np.isfinite(full.values))[-1] + 1])
            said = f"is no finite number since step {at}; before, it was {now:.3g}"
        else:
            smooth, bound = calm(loss), start + room * guess if above else back
            under = np.flatnonzero(smooth.values <= bound)
            at = int(smooth.steps[min(under[-1] + 1, len(smooth) - 1)]) if len(under) else int(loss.steps[0])
            said = f"is {now:.3g}, its start was {start:.3g} and its least {least:.3g}"
        because = next((rule.id for rule in self.causes if any(True for _ in rule.check(evidence))), "")
        at_once = not ended and self.causes[1].all_at_once(evidence, loss, guess, at)
        todo = (
            "All was well ten steps before, at the same rate: look at what changed there, the images and labels first"
            if at_once
            else "Lower the learning rate, clip gradients, and look at the batch at which it began"
        )
        yield Finding(
            id=self.id,
            severity="error" if ended or above else "warning",
            where=evidence.name,
            explanation=f"The training loss {said}: training diverges. {todo}.",
            evidence={
                "row": "T2",
                "step": at,
                "start": start,
                "least": least,
                "now": now,
                "finite": not ended,
                "plot": {"curves": ["loss", "lr"], "mark": at},
            },
            remedy={} if at_once else slower(evidence),
            source=self.source,
            because=because,
        )

    def _width(self, record: RunRecord, loss: Curve) -> int:
        """Losses of a level: those of a tenth of the budget."""
        share = (record.budget or record.steps) / max(record.steps, 1)
        return max(5, round(len(loss) * share / 10))

    def _factor(self, record: RunRecord) -> float:
        early = record.steps < self.patience * (record.budget or 0) and not record.finished
        return self.sure if early else self.above
