"""Scores that swing from evaluation to evaluation, and scores that have stopped rising."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from clearsight.doctor.rule import Rule
from clearsight.doctor.run.rates import slower
from clearsight.doctor.run.record import Curve, RunRecord
from clearsight.doctor.run.signals import done, score
from clearsight.doctor.run.smoothing import noise, running_median
from clearsight.types import Finding

__all__ = ["Oscillation", "Plateau"]


class Oscillation(Rule[RunRecord]):
    """The validation score turns about, up and down, by several points between evaluations.

    A step up while the model learns is no swing: a swing is a change against the one before it. Single setbacks on the
    way up are natural; they are looked for after the first fifth of the planned run.

    Args:
        points: size of a swing.
        often: share of the evaluations that are swings, for information.
        strong: size of the swings that are a warning.
        evals: fewest evaluations after the first fifth of the planned run.
    """

    id = "oscillating-score"
    source = "Zhang et al. 2021, AutoTrainer, ICSE 2021"

    def __init__(self, *, points: float = 0.03, often: float = 0.2, strong: float = 0.1, evals: int = 8) -> None:
        self.points, self.often, self.strong, self.evals = points, often, strong, evals

    def lacks(self, evidence: RunRecord) -> str:
        """A validation score of some evaluations after the first fifth of the run."""
        found = len(self._settled(evidence))
        return "" if found >= self.evals else f"{self.evals} validation scores past the start, there are {found}"

    def check(self, evidence: RunRecord) -> Iterable[Finding]:
        """For information, and a warning where swings are as large as `strong`."""
        curve = self._settled(evidence)
        changes = np.diff(curve.values)
        back = np.minimum(np.abs(changes[1:]), np.abs(changes[:-1])) * (changes[1:] * changes[:-1] < 0)
        swings = np.flatnonzero(back >= self.points)
        share = len(swings) / len(back)
        if share < self.often or not np.any(swings >= len(back) // 2):
            return
        size = float(np.median(back[swings]))
        name, at = score(evidence)[0], int(curve.steps[swings[0] + 1])
        wide = np.mean(back >= self.strong) >= self.often and np.sum(back >= self.strong) >= 3
        yield Finding(
            id=self.id,
            severity="warning" if wide else "info",
            where=evidence.name,
            explanation=f"The validation {name} swings by {100 * size:.2g} points in {share:.0%} of the evaluations, "
            f"up and down; healthy runs swing by less than {100 * self.points:.2g}. Lower the learning rate towards "
            "the end, or average the weights.",
            evidence={
                "row": "T17",
                "step": at,
                "swing": size,
                "share": share,
                "threshold": self.points,
                "plot": {"curves": [f"val/{name}"], "mark": at},
            },
            remedy=slower(evidence, 0.3),
            source=self.source,
        )

    def _settled(self, record: RunRecord) -> Curve:
        curve = score(record)[1]
        return curve.between((record.budget or record.steps) / 5, record.steps)


class Plateau(Rule[RunRecord]):
    """Nothing was gained on validation images for a long part of the run.

    Args:
        share: of the run so far without a better score.
        evals: fewest evaluations in that part.
    """

    id = "plateau"
    source = "Google 2023, Deep learning tuning playbook"

    def __init__(self, *, share: float = 0.5, evals: int = 6) -> None:
        self.share, self.evals = share, evals

    def lacks(self, evidence: RunRecord) -> str:
        """A validation score of some evaluations, and that half of the run is done."""
        found, far = len(score(evidence)[1]), done(evidence)
        if found < 2 * self.evals:
            return f"{2 * self.evals} validation scores, there are {found}"
        return "" if far is not None and far >= 0.5 else "half of the planned steps"

    def check(self, evidence: RunRecord) -> Iterable[Finding]:
        """For information: time that could be saved, or a rate that ought to fall."""
        name, curve = score(evidence)
        smooth = running_median(curve, 3)
        least = noise(curve) + 0.002
        top = int(np.flatnonzero(smooth.values >= smooth.values.max() - least)[0])
        since = int(smooth.steps[top])
        if len(smooth) - 1 - top < self.evals or evidence.steps - since < self.share * evidence.steps:
            return
        best = float(smooth.values.max())
        yield Finding(
            id=self.id,
            severity="info",
            where=evidence.name,
            explanation=f"The validation {name} has not risen since step {since} of {evidence.steps} ({best:.3g}): "
            "the rest of the run gained nothing. Stop earlier, or lower the rate from there on.",
            evidence={
                "row": "T17",
                "step": since,
                "best": best,
                "plot": {"curves": [f"val/{name}", "lr"], "mark": since},
            },
            source=self.source,
        )
