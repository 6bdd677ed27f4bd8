"""Reads the losses of a step without making a GPU wait, and stops the run when one is not finite."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, replace
from itertools import accumulate, pairwise
from pathlib import Path

import torch
from torch import Tensor

from clearsight.doctor.nonfinite import NonFinite
from clearsight.errors import NonFiniteLoss, RangeError
from clearsight.train.observe import Observers, Position, Stepped
from clearsight.train.spoiled import StepMemory
from clearsight.train.step import Measured
from clearsight.types import ImageMeta

__all__ = ["LossReader", "StepInfo"]


@dataclass(frozen=True, slots=True, kw_only=True)
class StepInfo:
    """What is known of a step on the host: where, at which rate, on which images; `batches` says how many each had."""

    position: Position
    epoch: int
    lr: float
    images: int
    meta: list[ImageMeta]
    batches: tuple[int, ...] = ()


@dataclass(slots=True)
class _Pending:
    info: StepInfo
    names: tuple[str, ...]
    values: Tensor
    copied: torch.cuda.Event | None


class LossReader:
    """Takes each step's losses and reports them to the observers: at once on the CPU, one step later on a GPU.

    Reading a number from a GPU waits until all work before it is done; one step later it is done anyway. `flush` reads
    what is outstanding, and the loop calls it before each checkpoint, so that none is written after a bad step.

    Args:
        observers: told of each step.
        evidence: file for the facts of a step whose loss is not finite.
        scaled: fp16 with loss scaling: a non-finite gradient is skipped by the scaler and is no fault.
        memory: of the present step, to explain it; None says only what was measured.
    """

    def __init__(self, observers: Observers, evidence: Path, *, scaled: bool, memory: StepMemory | None = None) -> None:
        self.memory = memory
        self.observers = observers
        self.evidence = evidence
        self.scaled = scaled
        self._pending: _Pending | None = None

    def push(self, info: StepInfo, measured: Measured) -> None:
        """Take in a step; reports the one before it, or this one where reading costs nothing.

        Raises:
            NonFiniteLoss: a loss term or the gradient of the reported step is NaN or infinite.
        """
        values, copied = measured.values, None
        if values.is_cuda:
            values = values.to("cpu", non_blocking=True)
            copied = torch.cuda.Event()
            copied.record()
        self.flush()
        self._pending = _Pending(info, measured.names, values, copied)
        if copied is None:
            self.flush()

    def flush(self) -> None:
        """Report what is outstanding; raises as `push` does."""
        pending, self._pending = self._pending, None
        if pending is None:
            return
        if pending.copied is not None:
            pending.copied.synchronize()
        *losses, norm = pending.values.tolist()
        terms = dict(zip(pending.names, losses, strict=True))
        loss = math.fsum(losses)
        if not math.isfinite(loss) or not (self.scaled or math.isfinite(norm)):
            raise self._stop(pending.info, terms, loss, norm)
        self.observers.send(
            Stepped(
                position=pending.info.position,
                epoch=pending.info.epoch,
                loss=loss,
                terms=terms,
                grad_norm=norm,
                lr=pending.info.lr,
                images=pending.info.images,
                files=[meta.path for meta in pending.info.meta],
            )
        )

    def _stop(self, info: StepInfo, terms: dict[str, float], loss: float, norm: float) -> NonFiniteLoss:
        """Save the evidence; the error to raise."""
        facts = {
            "step": info.position.step,
            "epoch": info.epoch,
            "loss": repr(loss),
            "terms": {name: repr(value) for name, value in terms.items()},
            "grad_norm": repr(norm),
            "lr": info.lr,
            "indices": [meta.index for meta in info.meta],
            "files": [str(meta.path) for meta in info.meta],
        }
        self.evidence.write_text(json.dumps(facts, indent=1) + "\n")
        what = f"loss is {loss}" if not math.isfinite(loss) else f"loss is {loss:.4g} but its gradient's norm is {norm}"
        parts = ", ".join(f"{name}={value:.4g}" for name, value in terms.items())
        files = ", ".join(str(meta.path) for meta in info.meta[:3])
        said = (
            f"step {info.position.step} (epoch {info.epoch}): {what} ({parts}), lr={info.lr:.3g}, first files: "
            f"{files}; all files of the step are in {self.evidence}. "
        )
        found = self._explain(info)
        if found is not None:
            return self._error(said, found)
        if self.memory is not None:
            self.memory.report_size(step=info.position.step, loss=loss, norm=norm, lr=info.lr)
        return NonFiniteLoss(
            f"{said}Lower optimizer.lr, set trainer.clip_norm, or look at these images and their labels; the last "
            "checkpoint is from before this step"
        )

    def explained(self, error: RangeError, info: StepInfo) -> Exception:
        """What to raise where a loss has refused a step: it may speak of labels where weights are to blame.

        Args:
            error: what the loss said.
            info: of the step.
        """
        found = self._explain(info)
        if found is None or found.direction == "label":
            return error
        return self._error(f"step {info.position.step} (epoch {info.epoch}): ", found)

    def _error(self, said: str, found: NonFinite) -> NonFiniteLoss:
        told = replace(found, step=None).as_finding().explanation  # the step has been named
        return NonFiniteLoss(
            f"{said}{told} The step is saved; run it again with: clearsight replay "
            f"{self.evidence.parent}. The last checkpoint is from before this step"
        )

    def _explain(self, info: StepInfo) -> NonFinite | None:
        """Where it came from; None where that cannot be told, as on a GPU, where the weights are spoiled by now."""
        if self.memory is None:
            return None
        bounds = [0, *accumulate(info.batches)]
        names = [str(meta.path) for meta in info.meta]
        files = [names[first:last] for first, last in pairwise(bounds)]
        return self.memory.explain(step=info.position.step, files=files)
