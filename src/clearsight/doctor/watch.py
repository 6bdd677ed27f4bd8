"""Records what happens in a training run, in anybody's loop, and says what is wrong with it while it goes."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self, TypeVar

from torch import Tensor, nn
from torch.optim import Optimizer

from clearsight.doctor.lightning import LightningHooks
from clearsight.doctor.rule import Rule
from clearsight.doctor.run.label_order import note_labels
from clearsight.doctor.run.live_rules import LiveRules, is_first_process
from clearsight.doctor.run.model_watch import ModelWatch
from clearsight.doctor.run.record import RunRecord
from clearsight.doctor.run.recorder import Recorder
from clearsight.doctor.run.resident import resident_bytes
from clearsight.doctor.run.spikes import note_batch
from clearsight.doctor.run.telemetry import TelemetryFile
from clearsight.errors import ConfigError
from clearsight.types import Finding

__all__ = ["Watch"]

T = TypeVar("T")

SHARES = 50  # examinations a run
BLIND = 200  # steps between examinations where the budget is not known


class Watch(LightningHooks):
    """Looks on while a model is trained: records curves and layers, applies rules, changes nothing.

    Training with it gives the same bits as without: it draws no random numbers and keeps no graph. In one's own loop:

        with Watch(model, optimizer, budget=steps) as watch:
            for images, labels in watch.loading(loader):
                ...
                loss.backward()
                optimizer.step()
                watch.step(loss, labels=labels)
            watch.evaluated(loss=val_loss, accuracy=val_accuracy)

    In Lightning: `Trainer(callbacks=[Watch()])`. Layers are measured at steps 1, 2, 4, …, 32 and then every `every`
    steps; in between nothing is hooked into them. Of a compiled model parameters and gradients are measured, outputs
    are not: the fact `outputs_not_measured` says so. With DDP each process watches its own share of the batch, and the
    first one prints and writes.

    Args:
        model: as it is called in training; may be given to `attach` instead.
        optimizer: one or several; None finds it at its first step.
        budget: optimiser steps planned.
        about: what else is known of the run: its name, task, classes, batch size, recipe, …; its curves are not read.
        every: steps between measurements of the layers.
        rules: what to look for; None takes all there are.
        folder: where `telemetry.jsonl` is written; None writes nothing.
        on_finding: called with each finding, once; None prints one line.
        stop_on: the severity of a finding that sets `should_stop`.

    Raises:
        ConfigError: `every` or `budget` is no positive number.
    """

    def __init__(  # noqa: PLR0913 - one object for all ways of training
        self,
        model: nn.Module | None = None,
        optimizer: Optimizer | Sequence[Optimizer] | None = None,
        *,
        budget: int | None = None,
        about: RunRecord | None = None,
        every: int = 50,
        rules: Sequence[Rule[RunRecord]] | None = None,
        folder: str | Path | None = None,
        on_finding: Callable[[Finding], object] | None = None,
        stop_on: Literal["error"] | None = None,
    ) -> None:
        for name, number in (("every", every), ("budget", budget)):
            if number is not None and number < 1:
                raise ConfigError(f"Watch: {name} must be at least 1, found {number}")
        about = about or RunRecord()
        self._recorder = Recorder(about if budget is None else dataclasses.replace(about, budget=budget))
        self._live = LiveRules(rules, on_finding)
        self._file = None if folder is None else TelemetryFile(Path(folder))
        self._model, self._optimizer = model, optimizer
        self._every = every
        self._stop_on = stop_on
        self._eye: ModelWatch | None = None
        self._finished = False
        self._steps = self._examined = 0
        self._clock = math.nan  # end of the last step or evaluation
        self._waited: float | None = None
        self._last_loss = math.nan

    # -------------------------------------------------------------------------------------------- beginning and end
    def attach(
        self,
        model: nn.Module,
        optimizer: Optimizer | Sequence[Optimizer] | None = None,
        *,
        entry: nn.Module | None = None,
        step: int | None = None,
    ) -> Self:
        """Begin to look at a model; `with Watch(model, ...)` does it by itself.

        Args:
            model: as it is called in training.
            optimizer: one or several; None finds it at its first step.
            entry: the module that a step calls, where that is not the model itself but something around it.
            step: optimiser steps done before; None goes on from what was loaded or recorded.
        """
        self.detach()
        given = [] if optimizer is None else optimizer if isinstance(optimizer, Sequence) else [optimizer]
        self._eye = ModelWatch(model, given, every=self._every, facts=self._recorder.facts, entry=entry)
        self._steps = self._examined = self._recorder.step if step is None else step
        self._eye.begin(self._steps, self._recorder.notes)
        self._clock, self._waited, self._finished = math.nan, None, False
        return self

    def detach(self, *, finished: bool = False) -> None:
        """Take every hook out of the model and the optimiser; what was recorded stays.

        Args:
            finished: the run came to its end, and is examined a last time.
        """
        if self._eye is None:
            return
        self._keep_layers()
        self._eye.detach()
        self._eye = None
        if finished:
            self._finished = True
            self.examine()

    def __enter__(self) -> Self:
        if self._eye is None:
            if self._model is None:
                raise ConfigError("Watch: there is no model to look at; give it: with Watch(model, optimizer) as watch")
            self.attach(self._model, self._optimizer)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.detach(finished=kind is None)

    # -------------------------------------------------------------------------------------------- what the loop says
    def step(  # noqa: PLR0913 - one call for all that a loop may know
        self,
        loss: float | Tensor | None = None,
        *,
        terms: Mapping[str, float | Tensor] | None = None,
        grad_norm: float | Tensor | None = None,
        lr: float | None = None,
        accuracy: float | Tensor | None = None,
        metrics: Mapping[str, float | Tensor] | None = None,
        labels: Tensor | Sequence[int] | None = None,
        files: Sequence[str] | None = None,
        step: int | None = None,
    ) -> None:
        """An optimiser step is done.

        Args:
            loss: of its batches; a tensor on a GPU is fetched later, so that nothing waits for it.
            terms: of the loss, by name.
            grad_norm: before clipping, as `clip_grad_norm_` returns it; None measures it right before the update.
            lr: of the first parameter group; None reads it from the optimiser.
            accuracy: on the step's images.
            metrics: what else was measured on them.
            labels: `(n,)` class ids of its images; those of the first steps tell whether the order is random.
            files: names of its images; kept for steps whose loss stands out, which `loss-spike` names.
            step: its number, from 1; None counts.

        Raises:
            ConfigError: steps go back, or a tensor has more than one element.
        """
        at = self._steps = self._steps + 1 if step is None else step
        eye, now, put = self._eye, time.perf_counter(), self._recorder.put
        if eye is not None:
            norm, rate = eye.norm if grad_norm is None else grad_norm, eye.lr if lr is None else lr
            eye.norm, eye.norm_wanted = None, grad_norm is None
            if step is None:
                eye.catch_up(at)
        else:
            norm, rate = grad_norm, lr
        for group, value in (("loss", loss), ("grad_norm", norm), ("lr", rate), ("waiting", self._waited)):
            put(group, "", at, value)
        if not math.isnan(self._clock):
            put("seconds", "", at, now - self._clock)
        for name, value in (terms or {}).items():
            put("terms", name, at, value)
        for name, value in {"accuracy": accuracy, **(metrics or {})}.items():
            put("train", name, at, value)
        if labels is not None:
            note_labels(self._recorder.facts, labels, epoch=self._recorder.about.steps_per_epoch)
        if files is not None:
            self._last_loss = note_batch(self._recorder.facts, at, loss, self._last_loss, files)
        self._keep_layers(until=at, norm=grad_norm)
        self._waited = None
        if at - self._examined >= self._pace:
            self.examine()
        self._clock = time.perf_counter()

    def evaluated(
        self,
        metrics: Mapping[str, float | Tensor] | None = None,
        *,
        loss: float | Tensor | None = None,
        accuracy: float | Tensor | None = None,
        class_scores: Mapping[str, float] | None = None,
        train_in_eval: Mapping[str, float] | None = None,
        step: int | None = None,
    ) -> None:
        """The model was scored on validation images; the rules are applied.

        Args:
            metrics: by name; `loss` is the validation loss.
            loss: the same as `metrics["loss"]`.
            accuracy: the same as `metrics["accuracy"]`.
            class_scores: score of each class.
            train_in_eval: the same metrics on training images in eval mode, where they were measured.
            step: optimiser steps done; None counts.
        """
        at = self._steps if step is None else step
        for name, value in {"loss": loss, "accuracy": accuracy, **(metrics or {})}.items():
            self._recorder.put("val", name, at, value)
        for group, values in (("class_scores", class_scores), ("train_in_eval", train_in_eval)):
            for name, value in (values or {}).items():
                self._recorder.put(group, name, at, value)
        if self._eye is not None:
            self._eye.judge_mode(alone=self._recorder.about.accumulate == 1)
        self.examine()
        self._clock = time.perf_counter()

    def loading(self, loader: Iterable[T]) -> Iterator[T]:
        """The batches of a loader; measures how long the loop waits for them."""
        batches = iter(loader)
        while True:
            began = time.perf_counter()
            try:
                batch = next(batches)
            except StopIteration:
                return
            self.waited(time.perf_counter() - began)
            yield batch

    def plan(
        self,
        *,
        budget: int | None = None,
        steps_per_epoch: int | None = None,
        accumulate: int | None = None,
        clip_norm: float | None = None,
    ) -> None:
        """What the run is told to do, where it was not known at the beginning; None leaves what is known."""
        given = {"budget": budget, "steps_per_epoch": steps_per_epoch, "accumulate": accumulate, "clip_norm": clip_norm}
        new: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
        self._recorder.about = dataclasses.replace(self._recorder.about, **new)

    def trained(self, metrics: Mapping[str, float | Tensor]) -> None:
        """Metrics on training images that are known only now, after the step."""
        for name, value in metrics.items():
            self._recorder.put("train", name, self._steps, value)

    def waited(self, seconds: float) -> None:
        """Data of the next step was waited for; several waits of a step add up."""
        self._waited = (self._waited or 0.0) + seconds

    # -------------------------------------------------------------------------------------------- what it says
    @property
    def findings(self) -> list[Finding]:
        """Everything found so far, in the order in which it was found."""
        return list(self._live.findings)

    @property
    def should_stop(self) -> bool:
        """A finding has the severity of `stop_on`."""
        return self._stop_on is not None and any(finding.severity == self._stop_on for finding in self.findings)

    def record(self) -> RunRecord:
        """Everything recorded so far."""
        return self._recorder.record(finished=self._finished)

    def examine(self) -> None:
        """Apply the rules to what is recorded; each finding is told once for a place."""
        self._examined = self._steps
        self._live.examine(self.record)

    def state_dict(self) -> dict[str, Any]:
        """What is needed to go on after a resume: plain values and tensors."""
        self._keep_layers()
        findings = [finding.as_dict() for finding in self.findings]
        return {"recorder": self._recorder.state_dict(), "findings": findings}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take back what `state_dict` gave; the telemetry file is cut back to that step."""
        self._recorder.load_state_dict(state_dict["recorder"])
        self._live.findings = [Finding(**finding) for finding in state_dict["findings"]]
        self._steps = self._examined = self._recorder.step
        if self._file is not None and is_first_process():
            self._file.cut(self._recorder.step)
        if self._eye is not None:
            self._eye.begin(self._steps, self._recorder.notes)

    # -------------------------------------------------------------------------------------------- what hooks say
    def gradients_ready(self, optimizer: Optimizer) -> None:
        """Gradients are complete and not clipped yet; where nobody says so, they are read right before the update."""
        if self._eye is not None:
            self._eye.updates.note(optimizer)

    def evaluating(self, *, in_train_mode: bool) -> None:
        """A batch of an evaluation is done, and the model was in this mode."""
        if self._eye is not None:
            self._eye.evaluating(in_train_mode=in_train_mode)

    # -------------------------------------------------------------------------------------------- inside
    @property
    def _pace(self) -> int:
        """Steps between examinations."""
        budget = self._recorder.about.budget
        return BLIND if budget is None else max(1, budget // SHARES)

    def _keep_layers(self, *, until: float = math.inf, norm: float | Tensor | None = None) -> None:
        """Write down what was measured of the layers."""
        found = None
        if self._eye is not None and self._eye.measured_at <= until:
            found = self._eye.measurement(norm=math.nan if norm is None else float(norm))
        if found is None:
            return
        step, notes, row = found
        self._recorder.put_layers(step, notes, row)
        self._recorder.put("memory", "", step, resident_bytes())
        if self._file is not None and is_first_process():
            self._file.write(step, notes, row, self._recorder.facts)
