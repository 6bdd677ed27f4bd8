"""Mistakes of a training loop that its own numbers do not show: gradients left over or changed, parameters left out."""

from __future__ import annotations

from collections.abc import Iterable

from clearsight.doctor.rule import Rule
from clearsight.doctor.run.record import RunRecord
from clearsight.types import Finding

__all__ = ["GradientChanged", "GradientsNotCleared", "NotInOptimizer"]


class GradientsNotCleared(Rule[RunRecord]):
    """Each backward pass adds to the gradient of the one before: `zero_grad` is missing.

    Args:
        share: of the last steps looked at, that began with a gradient left over; at least three of four are more.
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
                explanation=f"{share:.0%} of the last steps looked at began with the gradient of the step before still "
                "in place, and no accumulation was declared: the optimiser follows the sum of all gradients since. "
                "Call optimizer.zero_grad() before backward.",
                evidence={
                    "row": "T7",
                    "step": int(evidence.facts.get("gradient_left_since", 2)),
                    "share": share,
                    "threshold": self.share,
                },
                source=self.source,
            )


class GradientChanged(Rule[RunRecord]):
    """Between backward and the update something was done to gradients that turned them away.

    Factors, clipping, masks and weight decay by hand leave the cosine at 1 (`GradientOrigin`).

    Args:
        cosine: between both gradients; noise of three quarters of a gradient's deviation brings it here.
        count: measured steps in a row.
    """

    id = "gradient-changed"
    source = "Neelakantan et al. 2015, arXiv:1511.06807; Abadi et al. 2016, arXiv:1607.00133"

    def __init__(self, *, cosine: float = 0.8, count: int = 3) -> None:
        self.cosine, self.count = cosine, count

    def lacks(self, evidence: RunRecord) -> str:
        """Gradients behind backward and at the update, of some steps."""
        known = len(evidence.facts.get("gradient_cosines", ()))
        return "" if known >= self.count else f"gradients behind backward and at the update of {self.count} steps"

    def check(self, evidence: RunRecord) -> Iterable[Finding]:
        """A warning: it may be meant."""
        cosines = [float(cosine) for cosine in evidence.facts["gradient_cosines"][-self.count :]]
        if max(cosines) < self.cosine:
            yield Finding(
                id=self.id,
                severity="warning",
                where=evidence.name,
                explanation="The gradient that the optimiser uses is not what backward gave: their cosine was at most "
                f"{max(cosines):.2g} in the last {self.count} measured steps. Noise on gradients, a hook, or code "
                "between backward() and step() changes them by more than a factor. Take it out; noise for differential "
                "privacy is meant, and a larger batch makes it smaller beside the gradient.",
                evidence={"row": "P7", "step": evidence.steps, "cosine": max(cosines), "threshold": self.cosine},
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
