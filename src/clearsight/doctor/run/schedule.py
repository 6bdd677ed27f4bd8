"""Plans that do not fit the run's length: a rate that never comes down, a momentum that remembers too much."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

from clearsight.doctor.advice import falling_rate, usual_momentum
from clearsight.doctor.rule import Rule
from clearsight.doctor.run.record import Curve, RunRecord
from clearsight.doctor.run.signals import done, setting
from clearsight.types import Finding

__all__ = ["MomentumTooLong", "RateStillRising"]


class RateStillRising(Rule[RunRecord]):
    """At the end of the run the learning rate is the highest so far: the schedule never came down.

    A run that stops early ends in the middle of its schedule, and is not judged; nor are rates that fell at any time,
    as those of cycles and restarts do.

    Args:
        growth: over the second half of the run; a warm-up that ends at two thirds has 1.3.
        share: of the planned steps that must be done.
        steps: of a finished run whose plan is not known.
        entries: of the learning rate, at least.
    """

    id = "rate-still-rising"
    source = "Goyal et al. 2017, arXiv:1706.02677; Smith 2018, arXiv:1803.09820"

    def __init__(self, *, growth: float = 1.5, share: float = 0.9, steps: int = 50, entries: int = 5) -> None:
        self.growth, self.share, self.steps, self.entries = growth, share, steps, entries

    def lacks(self, evidence: RunRecord) -> str:
        """The learning rate from the first half to the end."""
        rates = evidence.lr.finite()
        if len(rates) < self.entries or rates.steps[0] > evidence.steps / 2:
            return "the learning rate over the run"
        if evidence.budget:
            return "" if evidence.steps >= self.share * evidence.budget else "the end of the planned steps"
        over = done(evidence) == 1 and evidence.steps >= self.steps
        return "" if over else f"the end of a run of {self.steps} steps"

    def check(self, evidence: RunRecord) -> Iterable[Finding]:
        """A warning."""
        rates = evidence.lr.finite()
        middle = (evidence.budget or evidence.steps) / 2
        half, last = float(np.interp(middle, rates.steps, rates.values)), float(rates.values[-1])
        if not half > 0 or last <= self.growth * half or self._fell(rates):
            return
        yield Finding(
            id=self.id,
            severity="warning",
            where=evidence.name,
            explanation=f"The learning rate rose from {half:.3g} at half of the run to {last:.3g} at its end, its "
            "highest, and never came down: the last steps are the coarsest. Usual reasons are a warm-up that is "
            "stepped once an epoch in place of once a step, and a schedule made for another number of steps.",
            evidence={
                "row": "T8",
                "step": int(rates.steps[-1]),
                "growth": last / half,
                "threshold": self.growth,
                "plot": {"curves": ["lr", "loss"], "mark": int(middle)},
            },
            remedy=falling_rate(evidence.recipe),
            source=self.source,
        )

    def _fell(self, rates: Curve) -> bool:
        """By more than the digits of a log."""
        return bool(np.any(rates.values < 0.99 * np.maximum.accumulate(rates.values)))


class MomentumTooLong(Rule[RunRecord]):
    """The momentum averages over a good part of the whole run.

    What a gradient says is spread over the next 1 / (1 - momentum) steps. Where these are half of the run, the
    gradients of its beginning still move the weights at its end; and plain SGD steps that many times the rate.

    Args:
        share: of the planned steps that the momentum averages over.
        usual: momentum that is never too long, for the sake of trial runs of a few steps: the highest that methods have
            by themselves (0.95 of OneCycleLR and Muon, 0.98 of Adan).
    """

    id = "momentum-too-long"
    source = "Sutskever et al. 2013, ICML; Goh 2017, Distill, Why momentum really works"

    def __init__(self, *, share: float = 0.5, usual: float = 0.98) -> None:
        self.share, self.usual = share, usual

    def lacks(self, evidence: RunRecord) -> str:
        """The optimiser's momentum and the planned steps."""
        if not evidence.budget:
            return "the number of planned steps"
        return "" if _momentum(evidence) is not None else "the optimiser's momentum"

    def check(self, evidence: RunRecord) -> Iterable[Finding]:
        """A warning, from the first measured step on."""
        momentum, budget = _momentum(evidence), evidence.budget
        if momentum is None or not budget or not self.usual < momentum < 1:
            return
        over = 1 / (1 - momentum)
        if over <= self.share * budget:
            return
        yield Finding(
            id=self.id,
            severity="warning",
            where=evidence.name,
            explanation=f"A momentum of {momentum:g} averages over {over:.0f} steps, and the whole run has {budget}: "
            f"what is learned late cannot come through, and SGD takes steps {over:.0f} times the rate. Use 0.9, or "
            "train longer.",
            evidence={"row": "T8", "step": 1, "momentum": momentum, "steps": over, "threshold": self.share * budget},
            remedy=usual_momentum(evidence.recipe),
            source=self.source,
        )


def _momentum(record: RunRecord) -> float | None:
    """As it was seen at an update, else as the recipe says."""
    seen, optimizer = record.facts.get("momentum"), record.recipe.get("optimizer")
    if seen is not None:
        return float(seen)
    if isinstance(optimizer, Mapping) and "adam" in str(optimizer.get("name")):
        betas = optimizer.get("betas")
        return float(betas[0]) if isinstance(betas, list | tuple) and betas else None
    return setting(record, "optimizer", "momentum")
