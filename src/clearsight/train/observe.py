"""Observers: what looks on while a run goes. They see events and can ask to stop; they never change the run."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from clearsight.errors import ClearsightError, ConfigError
from clearsight.train.random_state import kept_random_state

__all__ = [
    "Checkpointed",
    "Ended",
    "Evaluated",
    "Observer",
    "Observers",
    "Position",
    "Started",
    "Stepped",
    "StopRequest",
]


@dataclass(slots=True, kw_only=True)
class Position:
    """Where a run is.

    Args:
        epoch: epochs completed, with their evaluation.
        batch: batches of the current epoch that this process has used.
        step: optimiser steps done.
        elapsed: seconds of wall clock spent in the run, over all its resumptions.
    """

    epoch: int = 0
    batch: int = 0
    step: int = 0
    elapsed: float = 0.0


@dataclass(frozen=True, slots=True)
class StopRequest:
    """What an observer returns to end the run after the current step or epoch.

    Args:
        reason: one sentence for the log and the report.
    """

    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Started:
    """The run begins, or goes on.

    Args:
        position: where it begins.
        total_steps: steps of the whole run; None when it is limited by the clock.
        total_epochs: epochs of the whole run; None when it is limited by steps or the clock.
        minutes: minutes of the whole run; None when it is not limited by the clock.
        steps_per_epoch: optimiser steps of one epoch.
        model: the model, to look at; hooks that an observer adds are to be removed in `on_end`.
        folder: the run's folder.
        entry: the module that is called for each batch's loss; None where that is `model`.
    """

    position: Position
    total_steps: int | None
    total_epochs: int | None
    minutes: float | None
    steps_per_epoch: int
    model: nn.Module
    folder: Path
    entry: nn.Module | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Stepped:
    """One optimiser step is done.

    Args:
        position: where the run was right after the step.
        epoch: the epoch that the step belongs to, from 1.
        loss: sum of the terms, averaged over the accumulated batches and the processes.
        terms: each loss term.
        grad_norm: norm of the gradient before clipping, NaN when it was not measured.
        lr: rate of the first parameter group.
        images: images of the step, over all processes.
        files: those of this process.
    """

    position: Position
    epoch: int
    loss: float
    terms: Mapping[str, float]
    grad_norm: float
    lr: float
    images: int
    files: Sequence[Path] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluated:
    """The model was scored.

    Args:
        position: where the run is.
        epoch: the epoch that has just been trained, from 1.
        metrics: every number of the evaluation.
        monitor: name of the watched metric.
        score: its value, negated when smaller is better: larger is always better.
        is_best: whether it is the best so far.
    """

    position: Position
    epoch: int
    metrics: Mapping[str, float]
    monitor: str
    score: float
    is_best: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpointed:
    """A checkpoint is about to be written: whatever is buffered should reach the disk now.

    Args:
        position: where the run is.
    """

    position: Position


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """The run is over or interrupted; also sent when it fails.

    Args:
        position: where it ended.
        reason: why, in words.
        failed: an error ended it.
    """

    position: Position
    reason: str
    failed: bool = False


class Observer:
    """Base of all observers; override what is of interest.

    `name` is the key of the observer's state in a checkpoint and is unique among the observers of a run. Methods may
    return a `StopRequest`. Draws from global random streams inside are undone, so that they do not change the run.
    """

    name: str = ""

    def on_start(self, event: Started) -> StopRequest | None:
        """The run begins, or goes on; after `load_state_dict` when it goes on."""

    def on_step(self, event: Stepped) -> StopRequest | None:
        """An optimiser step is done; on a GPU this comes one step late, so that nothing waits for it."""

    def on_evaluate(self, event: Evaluated) -> StopRequest | None:
        """The model was scored."""

    def on_checkpoint(self, event: Checkpointed) -> StopRequest | None:
        """A checkpoint is about to be written; `state_dict` is called right after."""

    def on_end(self, event: Ended) -> None:
        """The run is over: close files, remove hooks."""

    def state_dict(self) -> dict[str, Any]:
        """What the observer needs to go on after a resume: plain values and tensors."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take back what `state_dict` gave."""


class Observers:
    """Sends events to several observers, in order, and remembers the first request to stop.

    Args:
        observers: with different names.

    Raises:
        ConfigError: two observers have the same name.
    """

    def __init__(self, observers: Sequence[Observer]) -> None:
        self._by_name = {observer.name or type(observer).__name__: observer for observer in observers}
        if len(self._by_name) != len(observers):
            names = [observer.name or type(observer).__name__ for observer in observers]
            twice = sorted({name for name in names if names.count(name) > 1})
            raise ConfigError(f"observers: the name {twice[0]!r} is used twice; give each observer its own `name`")
        self.stop: StopRequest | None = None

    def send(self, event: Started | Stepped | Evaluated | Checkpointed) -> None:
        """Call the method of the event on each observer."""
        if not self._by_name:
            return
        method = _METHODS[type(event)]
        with kept_random_state():
            for name, observer in self._by_name.items():
                answer = method(observer, event)
                if isinstance(answer, StopRequest) and self.stop is None:
                    self.stop = StopRequest(f"{name}: {answer.reason}")

    def end(self, event: Ended) -> None:
        """Tell every observer that the run is over, also where one cannot write its last lines.

        After a failure what goes wrong here is left unsaid: the error that ended the run is the one to be seen.
        """
        problem: Exception | None = None
        for observer in self._by_name.values():
            try:
                observer.on_end(event)
            except (ClearsightError, OSError) as err:
                problem = problem or err
        if problem is not None and not event.failed:
            raise problem

    def state_dict(self) -> dict[str, Any]:
        """The states of all observers, by name."""
        return {name: observer.state_dict() for name, observer in self._by_name.items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Give each observer its state; observers that were not there before keep theirs."""
        for name, observer in self._by_name.items():
            if name in state:
                observer.load_state_dict(state[name])


# Looked up on the observer's own class, so that overridden methods are the ones called.
_METHODS: dict[type, Callable[[Observer, Any], StopRequest | None]] = {
    Started: lambda observer, event: observer.on_start(event),
    Stepped: lambda observer, event: observer.on_step(event),
    Evaluated: lambda observer, event: observer.on_evaluate(event),
    Checkpointed: lambda observer, event: observer.on_checkpoint(event),
}
