"""NaN and infinities in a log: where they begin."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from clearsight.doctor.rule import Rule
from clearsight.doctor.run.record import RunRecord
from clearsight.doctor.run.signals import training_loss
from clearsight.types import Finding

__all__ = ["NonFiniteLogged"]


class NonFiniteLogged(Rule[RunRecord]):
    """The loss that was logged became NaN or infinite; what did it is found by `doctor.nonfinite`, not by a log."""

    id = "non-finite"
    source = "Wardat et al. 2021, DeepLocalize, arXiv:2103.03376"

    def lacks(self, evidence: RunRecord) -> str:
        """A loss."""
        return "" if len(training_loss(evidence)) or "loss" in evidence.val else "a loss"

    def check(self, evidence: RunRecord) -> Iterable[Finding]:
        """An error, at the first loss that is no number; of the validation loss where the training loss is sound."""
        for name, curve in (("loss", training_loss(evidence)), ("validation loss", evidence.val.get("loss"))):
            if curve is None:
                continue
            wrong = np.flatnonzero(~np.isfinite(curve.values))
            if not len(wrong):
                continue
            step, before = int(curve.steps[wrong[0]]), curve.values[: wrong[0]]
            last = f" after {before[-1]:.4g}" if len(before) else ", the first one"
            ever = " and never again a number" if len(wrong) == len(curve) - wrong[0] else ""
            yield Finding(
                id=self.id,
                severity="error",
                where=evidence.name,
                explanation=f"The {name} became {curve.values[wrong[0]]} at step {step:,}{last}{ever} ({len(wrong)} of "
                f"{len(curve)} entries). What was trained from then on is worth nothing. A log does not say which "
                "operation it was: train with the watcher, which names module and cause, or look for a rate that is "
                "too high, log or division by zero, half precision, and images or labels with NaN.",
                evidence={
                    "row": "T1",
                    "step": step,
                    "entries": len(wrong),
                    "plot": {"curves": ["loss" if name == "loss" else "val/loss"], "mark": step},
                },
                source=self.source,
            )
            return
