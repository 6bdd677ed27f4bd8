"""When a run ends, and how far it is: steps, the clock, observers, signals, agreed on by all processes."""

from __future__ import annotations

import math
import time
from typing import Any, Literal

import torch

from clearsight.train.interrupt import Interruption
from clearsight.train.state import RunState

__all__ = ["Ending"]

ASK_EVERY = 16
"""Steps between agreements of several processes on stopping."""


class Ending:
    """Knows the length of a run and whether it is over.

    Args:
        state: of the run.
        interruption: notes signals.
        batches: batches of an epoch.
    """

    def __init__(self, state: RunState, interruption: Interruption, batches: int) -> None:
        self.state, self.interruption, self.batches = state, interruption, batches
        self.trainer, self.fabric = state.settings.trainer, state.fabric
        self.steps_per_epoch = math.ceil(batches / self.trainer.accumulate)
        epochs = self.trainer.epochs
        self.total_steps = self.trainer.steps if epochs is None else epochs * self.steps_per_epoch
        self.asked: Literal["stop", "signal"] | None = None
        self._started = time.monotonic() - state.position.elapsed

    @property
    def by_signal(self) -> bool:
        """A signal asked for the end: save, and leave the rest to a resume."""
        return self.asked == "signal"

    def is_over(self) -> bool:
        """Steps or minutes are used up, or an observer asked for the end."""
        position, trainer = self.state.position, self.trainer
        if self.asked == "stop" or (self.state.observers.stop is not None and self.fabric.world_size == 1):
            return True
        if trainer.minutes is not None:
            return position.elapsed >= 60 * trainer.minutes
        return position.step >= (self.total_steps or 0)

    def progress(self) -> float:
        """Share of the run that is done: 0 at the first step, 1 at the last."""
        if self.trainer.minutes is not None:
            return self.state.position.elapsed / (60 * self.trainer.minutes)
        return self.state.position.step / max(1, (self.total_steps or 1) - 1)

    def read_clock(self) -> None:
        """Set the position's seconds; under a limit by minutes the first process's clock decides for all."""
        elapsed = time.monotonic() - self._started
        if self.trainer.minutes is not None and self.fabric.world_size > 1:
            elapsed = self.fabric.broadcast(elapsed)
        self.state.position.elapsed = elapsed

    def ask(self, *, now: bool = False) -> None:
        """Has a signal come or an observer asked to stop? Several processes agree, so that all stop at one step.

        Args:
            now: agree at once; else every `ASK_EVERY` steps and at an epoch's end.
        """
        asked = 2 if self.interruption.signal else 1 if self.state.observers.stop else 0
        if self.fabric.world_size > 1:
            at_end = self.state.position.batch >= self.batches
            if not (now or at_end or self.state.position.step % ASK_EVERY == 0):
                return
            flags = torch.zeros(3, device=self.fabric.device)
            flags[asked] = 1.0
            found: Any = self.fabric.all_reduce(flags, reduce_op="sum")
            asked = max(index for index, flag in enumerate(found.tolist()) if flag > 0)
        self.asked = (None, "stop", "signal")[asked]

    def reason(self) -> str:
        """Why the run ended, in words."""
        if self.by_signal:
            return f"{self.interruption.signal or 'a signal to another process'} after step {self.state.position.step}"
        if self.state.observers.stop is not None:
            return self.state.observers.stop.reason
        return "all minutes used" if self.trainer.minutes is not None else "all steps done"
