"""A step whose loss or gradient is not finite: kept before it reaches the weights, explained, saved to be replayed."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from clearsight.doctor.nonfinite import NonFinite, RandomState
from clearsight.doctor.replay import save_step
from clearsight.doctor.step_keeper import KeptStep, explain_step
from clearsight.errors import ClearsightError
from clearsight.types import Batch, Finding

__all__ = ["StepMemory", "spoiled"]

_HALF = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}


class StepMemory:
    """The batches of the present step by reference, and the random state before each: what running it again takes.

    Args:
        model: whose `loss` is called.
        precision: as Fabric names it.
        folder: of the run.
        recipe: nested plain values, kept beside a spoiled step.
    """

    def __init__(self, model: nn.Module, precision: str, folder: Path, recipe: Mapping[str, Any]) -> None:
        self.model, self.folder, self.recipe = model, folder, recipe
        self._half = _HALF.get(precision)
        self._kept: list[KeptStep] = []

    def begin(self) -> None:
        """A step begins."""
        self._kept = []

    def keep(self, batch: Batch) -> None:
        """A batch is about to go through the model."""
        autocast = None if self._half is None else (batch.images.device.type, self._half)
        self._kept.append(
            KeptStep(
                args=(batch.images, batch.targets), by_loss=True, random_state=RandomState.now(), autocast=autocast
            )
        )

    def explain(self, *, step: int, files: Sequence[Sequence[str]]) -> NonFinite | None:
        """Run the batches of the step again, watch every operation, and save the one in which it happens.

        Args:
            step: its number.
            files: of each batch.

        Returns:
            Where the first NaN or infinity comes from; None where all is finite when the step is run again, or where
            it cannot be.
        """
        for kept, names in zip(self._kept, files, strict=False):  # the step may have ended in between
            try:
                found = explain_step(self.model, kept)
            except (RuntimeError, ClearsightError):  # the step is spoiled anyway, and what is known of it is said
                continue
            if found is None:
                continue
            spoiled = tuple(names[sample] for sample in found.samples if sample < len(names))
            found = replace(found, step=step, files=spoiled or tuple(names[:1]))
            save_step(
                self.folder,
                model=self.model,
                step=kept,
                found=found,
                facts={"step": step, "files": list(names)},
                recipe=self.recipe,
            )
            self._keep(found.as_finding(self.recipe))
            return found
        return None

    def report_size(self, *, step: int, loss: float, norm: float, lr: float) -> None:
        """Keep as a finding that the loss or the gradient's norm left the range of numbers, wherever it came from."""
        clip = (self.recipe.get("trainer") or {}).get("clip_norm")
        self._keep(
            Finding(
                id="non-finite",
                severity="error",
                where=f"step {step}",
                explanation=f"At step {step} the loss is {loss:.4g} and its gradient has the norm {norm:.4g}, at a "
                f"rate of {lr:.3g}; running the step again shows no operation that makes a NaN or an infinity of "
                "numbers: values have grown beyond all bounds. Lower the rate, warm up longer, or clip the gradient.",
                evidence={"row": "T1", "step": step, "loss": repr(loss), "grad_norm": repr(norm), "lr": lr},
                remedy={"optimizer.lr": float(f"{lr / 10:.3g}")} if clip is not None else {"trainer.clip_norm": 10.0},
                source="Wardat et al. 2021, DeepLocalize, arXiv:2103.03376",
            )
        )

    def _keep(self, finding: Finding) -> None:
        with (self.folder / "findings.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(finding.as_dict()) + "\n")


def spoiled(measured: Tensor) -> bool:
    """Whether a step is known to be spoiled before its update; on a GPU nothing waits to find out, and it is not."""
    return not measured.is_cuda and not bool(torch.isfinite(measured).all())
