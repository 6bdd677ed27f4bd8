"""Single losses far above all before them, with the batches that made them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from torch import Tensor

from clearsight.doctor.rule import Rule
from clearsight.doctor.run.record import RunRecord
from clearsight.doctor.run.signals import chance_loss, starting_loss, training_loss
from clearsight.types import Finding

__all__ = ["LossSpike", "note_batch"]

LEAST = 40
JUMP = 3.0  # times the loss before
NAMED = 100  # steps of a run whose images are kept by name


class LossSpike(Rule[RunRecord]):
    """A loss far above all of the steps before it, that comes back: one bad batch.

    With few images a batch a single image makes a spike, so that the height is compared with the third highest
    loss of many steps before, not with their mean.

    Args:
        factor: of the third highest of the `window` losses before.
        window: number of losses looked back.
        tall: height in starting losses that makes spikes a warning; below, they are for information.
        low: height in starting losses below which nothing is said.
    """

    id = "loss-spike"
    source = "Lightning, SpikeDetection callback"

    def __init__(self, *, factor: float = JUMP, window: int = 100, tall: float = 3.0, low: float = 0.5) -> None:
        self.factor, self.window, self.tall, self.low = factor, window, tall, low

    def lacks(self, evidence: RunRecord) -> str:
        """A training loss of some length."""
        found = len(training_loss(evidence).finite())
        return "" if found >= LEAST else f"{LEAST} values of the training loss, there are {found}"

    def check(self, evidence: RunRecord) -> Iterable[Finding]:
        """The spikes of the run in one finding, with their steps and batches."""
        loss, start = training_loss(evidence).finite(), abs(starting_loss(evidence))
        height, values = max(start, chance_loss(evidence) or 0.0), loss.values
        jumps = (values[1:] > self.factor * np.abs(values[:-1])) & (values[1:] > self.low * height)
        jumps[: LEAST // 2] = False
        before = {int(at) + 1: self._highest(values, int(at) + 1) for at in np.flatnonzero(jumps)}
        spikes = [at for at, top in before.items() if values[at] > self.factor * top and self._comes_back(values, at)]
        if not spikes:
            return
        worst = max(spikes, key=lambda at: loss.values[at])
        steps = [int(loss.steps[at]) for at in spikes[:20]]
        sure = loss.values[worst] >= self.tall * height
        batches = self._batches(evidence, steps)
        images: list[str] = next((one["images"] for one in batches if one["step"] == loss.steps[worst]), [])
        names = f" ({', '.join(images[:3])}{', …' if len(images) > 3 else ''})" if images else ""
        count = "A loss stood out" if len(spikes) == 1 else f"{len(spikes)} losses stood out"
        yield Finding(
            id=self.id,
            severity="warning" if sure else "info",
            where=f"{evidence.name}, step {loss.steps[worst]}",
            explanation=f"{count} and came back, the highest to {loss.values[worst]:.3g} at step "
            f"{loss.steps[worst]} where the {self.window} before reached {before[worst]:.3g}: look at the "
            f"images and labels of that batch{names}.",
            evidence={
                "row": "T18",
                "step": steps[0],
                "steps": steps,
                "count": len(spikes),
                "worst_step": int(loss.steps[worst]),
                "worst": float(loss.values[worst]),
                "before": before[worst],
                "batches": batches,
                "plot": {"curves": ["loss"], "mark": int(loss.steps[worst])},
            },
            source=self.source,
        )

    def _highest(self, values: np.ndarray, at: int) -> float:
        """The third highest of the losses before: two earlier spikes do not hide one."""
        return float(np.sort(np.abs(values[max(0, at - self.window) : at]))[-3])

    def _comes_back(self, values: np.ndarray, at: int) -> bool:
        """Half of the height is gone at the next loss: the batch was bad, not all that follow."""
        return at + 1 < len(values) and float(values[at + 1]) < values[at] / 2

    def _batches(self, record: RunRecord, steps: list[int]) -> list[dict[str, Any]]:
        """Epoch and batch of each spike, from 1 on, and what the run's facts name of it."""
        named = record.facts.get("batches", {})
        found: list[dict[str, Any]] = []
        for step in steps:
            entry: dict[str, Any] = {"step": step, "images": []}
            if record.steps_per_epoch:
                entry["epoch"] = (step - 1) // record.steps_per_epoch + 1
                entry["batch"] = (step - 1) % record.steps_per_epoch + 1
            if isinstance(named, dict) and (step in named or str(step) in named):
                entry["images"] = named.get(step, named.get(str(step)))
            found.append(entry)
        return found


def note_batch(
    facts: dict[str, Any], step: int, loss: float | Tensor | None, before: float, files: Sequence[str]
) -> float:
    """Keep the names of a step's images among the facts where its loss is several times the one before.

    Args:
        facts: of the run; `batches` is step → names.
        step: its number.
        loss: of the step; one on a GPU is not waited for.
        before: loss of the step before; NaN where it is not known.
        files: names of its images.

    Returns:
        The loss, for the next step; NaN where it is not known.
    """
    now = math.nan if loss is None or (isinstance(loss, Tensor) and loss.is_cuda) else float(loss)
    if now > JUMP * abs(before) and len(facts.get("batches", ())) < NAMED:
        facts.setdefault("batches", {})[str(step)] = list(files)
    return now
