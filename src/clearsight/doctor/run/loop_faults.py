"""Mistakes of a training loop that its own numbers do not show: gradients left over, parameters left out."""

from __future__ import annotations

from collections.abc import Iterable

from clearsight.doctor.rule import Rule
from clearsight.doctor.run.record import RunRecord
from clearsight.types import Finding

__all__ = ["GradientsNotCleared", "NotInOptimizer"]


class GradientsNotCleared(Rule[RunRecord]):
    """Each backward pass adds to the gradient of the one before: `zero_grad` is missing.

    Args:
        share: of the steps that began with a gradient left over.
    """

    id = "gradients-not-cleared"
    source = "Jiang et al. 2025, TrainCheck, OSDI 2025"

    def __init__(self, *, share: float = 0.5) -> None:
        self.share = share

    def lacks(self, evidence: RunRecord) -> str:
        """What was in the gradients before each step."""
        return "" if "gradient_before_backward" in evidence.facts else "the gradients before each step"

    def check(self, evidence: RunRecord) -> Iterable[Finding]:
        """An error, unless accumulation is declared."""
        share = float(evidence.facts["gradient_before_backward"])
        if share > self.share and evidence.accumulate == 1 and evidence.steps >= 10:
            yield Finding(
                id=self.id,
                severity="error",
                where=evidence.name,
                explanation=f"{share:.0%} of the steps began with the gradient of the step before still in place, and "
                "no accumulation was declared: the optimiser follows the sum of all gradients so far. Call "
                "optimizer.zero_grad() before backward.",
                evidence={"row": "T7", "step": 2, "share": share, "threshold": self.share},
                source=self.source,
            )


class NotInOptimizer(Rule[RunRecord]):
    """Parameters that ask for a gradient and are in no group of the optimiser."""

    id = "not-in-optimizer"
    source = "Jiang et al. 2025, TrainCheck, OSDI 2025"

    def lacks(self, evidence: RunRecord) -> str:
        """The parameters of the optimiser."""
        return "" if "not_in_optimizer" in evidence.facts else "the optimiser's parameters"

    def check(self, evidence: RunRecord) -> Iterable[Finding]:
        """An error for all of them together."""
        names: list[str] = list(evidence.facts["not_in_optimizer"])
        if names:
            more = f" and {len(names) - 3} more" if len(names) > 3 else ""
            yield Finding(
                id=self.id,
                severity="error",
                where=names[0],
                explanation=f"{', '.join(names[:3])}{more} ask for a gradient and are not among the optimiser's "
                "parameters: they keep their first values. Give them to the optimiser, or set requires_grad to False "
                "where they are frozen on purpose.",
                evidence={"row": "S6", "step": 1, "parameters": names[:20], "count": len(names)},
                source=self.source,
            )
