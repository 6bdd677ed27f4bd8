"""The training loop: one visible path from batches to weights, resumable at every step."""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from itertools import islice
from typing import TYPE_CHECKING

import torch
from torch import nn

from clearsight.errors import ConfigError, RangeError
from clearsight.nn.norm import batch_norms, hold_statistics
from clearsight.train.average import Ema, Swa, refresh_statistics
from clearsight.train.checkpoint import remove_leftovers, save_checkpoint, share_file
from clearsight.train.devices import repeatable
from clearsight.train.ending import Ending
from clearsight.train.folder import RunFolder, write_weights
from clearsight.train.interrupt import Interrupted, Interruption
from clearsight.train.losses import LossReader, StepInfo
from clearsight.train.observe import Checkpointed, Ended, Evaluated, Observer, Observers, Position, Started
from clearsight.train.random_state import kept_random_state
from clearsight.train.spoiled import StepMemory
from clearsight.train.state import Best, RunState, Settings, SizedBatches
from clearsight.train.step import Stepper
from clearsight.types import Batch

if TYPE_CHECKING:
    from lightning_fabric import Fabric

__all__ = ["FitResult", "fit"]

Evaluate = Callable[[nn.Module], dict[str, float]]
LOWER_IS_BETTER = ("loss", "calibration_error")
"""Metrics of which the smallest is the best."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FitResult:
    """How a training ended.

    Args:
        position: where.
        best: the best evaluation, None without evaluations.
        reason: why, in words.
        interrupted: name of the signal that ended it early, None when it is complete.
    """

    position: Position
    best: Best | None
    reason: str
    interrupted: str | None


def fit(
    fabric: Fabric,
    model: nn.Module,
    loader: SizedBatches,
    *,
    settings: Settings,
    folder: RunFolder,
    observers: Sequence[Observer] = (),
    evaluate: Evaluate | None = None,
    resume: bool = False,
) -> FitResult:
    """Train a model.

    Args:
        fabric: launched (`make_fabric`).
        model: has `loss(images, targets) -> dict[str, Tensor]`, whose terms are added up.
        loader: see `SizedBatches`.
        settings: optimiser, schedule, trainer, watched metric.
        folder: where checkpoints, weights and evidence go; its `checkpoints` folder exists.
        observers: look on, may ask to stop; used in the first process only.
        evaluate: scores a model: name → number; called in every process, with `eval` mode and gradients off.
        resume: go on from `folder.last`.

    Returns:
        How it ended; the weights are in `model`, the averaged best ones in `folder.weights`.

    Raises:
        CheckpointError: a checkpoint cannot be written or does not fit.
        NonFiniteLoss: the loss or its gradient is NaN or infinite.
        ConfigError: the loader has no batches or the watched metric does not exist.
    """
    if len(loader) == 0:
        raise ConfigError("loader: no batch fits into an epoch; lower loader.batch_size or add training images")
    with ExitStack() as stack:
        stack.enter_context(kept_random_state())
        stack.enter_context(repeatable(enabled=settings.trainer.deterministic))
        interruption = stack.enter_context(Interruption())
        watching = Observers(observers if fabric.is_global_zero else ())
        state = RunState(fabric, model, settings, watching)
        if resume:
            state.restore(folder.last)
        if fabric.is_global_zero:
            remove_leftovers(folder.path, folder.checkpoints)
        return _Loop(state, loader, folder, evaluate, interruption).run()


class _Loop:
    """The loop; `run` calls the rest."""

    def __init__(
        self,
        state: RunState,
        loader: SizedBatches,
        folder: RunFolder,
        evaluate: Evaluate | None,
        interruption: Interruption,
    ) -> None:
        self.state, self.loader, self.folder = state, loader, folder
        self.evaluate, self.interruption = evaluate, interruption
        self.trainer, self.observers, self.fabric = state.settings.trainer, state.observers, state.fabric
        recipe = state.settings.identity.get("recipe") or {}
        self.memory = StepMemory(state.model, str(state.fabric.strategy.precision.precision), folder.path, recipe)
        self.stepper = Stepper(state.fabric, state.module, state.optimizer, self.trainer, self.memory)
        evidence = folder.path / f"nonfinite{state.fabric.global_rank or ''}.json"
        self.reader = LossReader(self.observers, evidence, scaled=self.stepper.scaled, memory=self.memory)
        self.ending = Ending(state, interruption, len(loader))
        self.saved: tuple[Position, int] | None = None

    def run(self) -> FitResult:
        """Train until the steps, the clock, an observer or a signal end it; leaves a checkpoint."""
        reason, failed = "an error", True
        self._announce()
        try:
            self._train()
            reason, failed = self.ending.reason(), False
        finally:
            self.observers.end(Ended(position=replace(self.state.position), reason=reason, failed=failed))
        interrupted = self.interruption.signal or "SIGTERM" if self.ending.by_signal else None
        return FitResult(position=self.state.position, best=self.state.best, reason=reason, interrupted=interrupted)

    def _train(self) -> None:
        position = self.state.position
        while not self.ending.is_over():
            self._train_epoch()
            self.reader.flush()
            if self.ending.by_signal:
                break
            if position.batch >= len(self.loader):
                self._close_epoch()
        if not self.ending.by_signal and self.evaluate and self.state.evaluated_step != position.step:
            self._score()
        self._save()
        if not self.ending.by_signal and self.state.best is None:
            model = self._ready_model()  # in every process: together they find its statistics
            if self.fabric.is_global_zero:
                write_weights(self.folder.weights, model)

    def _train_epoch(self) -> None:
        """Steps from the current batch to the epoch's end, or to the run's."""
        position, trainer = self.state.position, self.trainer
        with closing(_generator(self.loader.epoch(position.epoch, start=position.batch))) as batches:
            for group in _groups(batches, trainer.accumulate):
                self._step(group)
                if self.ending.is_over() or self.ending.by_signal:
                    return
                if trainer.checkpoint_steps and position.step % trainer.checkpoint_steps == 0:
                    self._save()

    def _step(self, group: list[Batch]) -> None:
        state, position = self.state, self.state.position
        progress = self.ending.progress()
        if progress >= self.trainer.hold_norm_at < 1:  # at each step, because a scoring sets train mode
            hold_statistics(state.model)
        factor = state.schedule.factor(min(progress, self.trainer.swa_at))
        for parameters in state.optimizer.param_groups:
            parameters["lr"] = parameters["initial_lr"] * factor
        try:
            measured = self.stepper(group)
        except RangeError as error:  # what a loss says of a NaN that it is given, wherever that comes from
            raise self.reader.explained(error, self._info(group, position.step + 1)) from error
        if isinstance(state.average, Ema):
            state.average.update(state.model)
        position.batch += len(group)
        position.step += 1
        self.ending.read_clock()
        self.reader.push(self._info(group, position.step), measured)
        self.ending.ask()

    def _info(self, group: list[Batch], step: int) -> StepInfo:
        return StepInfo(
            position=replace(self.state.position, step=step),
            epoch=self.state.position.epoch + 1,
            lr=self.state.optimizer.param_groups[0]["lr"],
            images=sum(len(batch) for batch in group) * self.fabric.world_size,
            meta=[meta for batch in group for meta in batch.meta],
            batches=tuple(len(batch) for batch in group),
        )

    def _close_epoch(self) -> None:
        """Average, evaluate when it is due, count the epoch, write a checkpoint."""
        position, average = self.state.position, self.state.average
        if isinstance(average, Swa) and self.ending.progress() >= self.trainer.swa_at:
            average.update(self.state.model, position.step)
        due = (position.epoch + 1) % self.trainer.eval_every == 0 and self.state.evaluated_step != position.step
        if self.evaluate and due:
            self._score()
        if not self.ending.by_signal:  # a scoring that was broken off is done again after a resume
            position.epoch, position.batch = position.epoch + 1, 0
        self._save()

    def _score(self) -> None:
        """Evaluate, keep the best weights, tell the schedule and the observers."""
        state, monitor = self.state, self.state.settings.monitor
        if self.evaluate is None:
            return
        try:
            with self.interruption.at_once() if self.fabric.world_size == 1 else ExitStack():
                metrics = self._call_evaluate(self.evaluate)
        except Interrupted:
            self.ending.asked = "signal"
            return
        if monitor not in metrics:
            raise ConfigError(
                f"trainer.monitor: found {monitor!r}, which the evaluation does not give; use one of "
                f"{', '.join(sorted(metrics))}"
            )
        score = -metrics[monitor] if monitor in LOWER_IS_BETTER else metrics[monitor]
        position = state.position
        is_best = state.best is None or score > state.best.score or math.isnan(state.best.score)
        state.evaluated_step = position.step
        state.schedule.see(score)
        epoch = position.epoch + (1 if position.batch else 0)
        if is_best:
            state.best = Best(score=score, metrics=metrics, epoch=epoch, step=position.step)
        self.ending.read_clock()
        self.observers.send(
            Evaluated(
                position=replace(position), epoch=epoch, metrics=metrics, monitor=monitor, score=score, is_best=is_best
            )
        )
        self.ending.ask(now=True)

    def _call_evaluate(self, evaluate: Evaluate) -> dict[str, float]:
        try:
            with kept_random_state(), torch.no_grad():
                return evaluate(self._ready_model())
        finally:
            self.state.model.train()

    def _ready_model(self) -> nn.Module:
        """The model to score or keep, in evaluation mode; an equal average first gets batch statistics of its own."""
        state, model = self.state, self.state.scored_model
        own = isinstance(state.average, Swa) and model is state.average.model
        if own and any(layer.training for layer in batch_norms(state.model)):
            with closing(_generator(self.loader.epoch(state.position.epoch))) as batches, self.fabric.autocast():
                refresh_statistics(model, (self.stepper.to_device(batch).images for batch in batches))
            self._share_statistics(model)
        return model.eval()

    def _share_statistics(self, model: nn.Module) -> None:
        """The mean of what the processes found, each on its share of the images."""
        if self.fabric.world_size > 1:
            for layer in batch_norms(model):
                for buffer in (layer.running_mean, layer.running_var):
                    if buffer is not None:
                        buffer.copy_(self.fabric.all_reduce(buffer, reduce_op="mean"))  # pyright: ignore

    def _save(self) -> None:
        """Write `last.ckpt`, and before it `best.ckpt` and the weights when the last evaluation was the best."""
        state = self.state
        mark = replace(state.position, elapsed=0.0), state.evaluated_step
        if mark == self.saved:
            return
        self.reader.flush()
        self.observers.send(Checkpointed(position=replace(state.position)))
        payload = state.payload()
        if self.fabric.is_global_zero:
            # The best one first: a kill in between is then made good by the resumed run, which scores again.
            if state.best is not None and state.best.step == state.evaluated_step == state.position.step:
                write_weights(self.folder.weights, state.scored_model)
                save_checkpoint(self.folder.best, payload)
                share_file(self.folder.best, self.folder.last)
            else:
                save_checkpoint(self.folder.last, payload)
        self.saved = mark

    def _announce(self) -> None:
        self.observers.send(
            Started(
                position=replace(self.state.position),
                total_steps=self.ending.total_steps,
                total_epochs=self.trainer.epochs,
                minutes=self.trainer.minutes,
                steps_per_epoch=self.ending.steps_per_epoch,
                model=self.state.model,
                entry=self.state.module,
                folder=self.folder.path,
            )
        )


def _generator(batches: Iterable[Batch]) -> Generator[Batch, None, None]:
    """As a generator, which can be closed; closing it closes the loader's own iterator too."""
    iterator = iter(batches)
    try:
        yield from iterator
    finally:
        close = getattr(iterator, "close", None)
        if close is not None:
            close()


def _groups(batches: Iterator[Batch], size: int) -> Iterator[list[Batch]]:
    """Lists of `size` batches; the last one of an epoch may be shorter."""
    while group := list(islice(batches, size)):
        yield group
