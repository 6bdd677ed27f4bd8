"""The doctor at the training: what the watcher finds is said at once and kept in the run's folder."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from rich.console import Console

from clearsight.doctor.run.live_rules import print_finding
from clearsight.doctor.run.record import RunRecord
from clearsight.doctor.watch import Watch
from clearsight.errors import CheckpointError
from clearsight.recipe.schema import Recipe
from clearsight.train.folder import RunFolder
from clearsight.train.observe import Ended, Evaluated, Observer, Started, Stepped, StopRequest
from clearsight.types import Finding

__all__ = ["Watcher"]


class Watcher(Observer):
    """Records the run's curves and layers, applies the rules of `doctor.run`, and tells each finding once.

    Findings are appended to `findings.jsonl` when they are made; what was measured of layers goes to
    `telemetry.jsonl`. A rule that fails is reported as failed, and ends nothing.

    Args:
        folder: of the run.
        recipe: the run's.
        classes: names.
        counts: training labels of each class; all zero where they are not counted.
        console: findings of severity `warning` and `error` are printed on it.
    """

    name = "watch"

    def __init__(
        self,
        folder: RunFolder,
        recipe: Recipe,
        classes: tuple[str, ...],
        counts: tuple[int, ...],
        console: Console,
    ) -> None:
        trainer = recipe.trainer
        self._folder = folder
        self._console = console
        self._watch = Watch(
            about=RunRecord(
                name=recipe.name,
                origin="clearsight",
                task=recipe.task,
                classes=classes,
                class_counts=counts if any(counts) else (),
                batch_size=recipe.loader.batch_size * trainer.accumulate,
                accumulate=trainer.accumulate,
                clip_norm=trainer.clip_norm,
                recipe=recipe.model_dump(mode="json"),
            ),
            every=recipe.watch.every,
            folder=folder.path,
            on_finding=self._tell,
            stop_on="error" if recipe.watch.stop else None,
        )

    def on_start(self, event: Started) -> None:
        """Begin to look."""
        epochs = None if event.total_epochs is None else event.total_epochs * event.steps_per_epoch
        self._watch.plan(budget=event.total_steps or epochs, steps_per_epoch=event.steps_per_epoch)
        self._watch.attach(event.model, entry=event.entry, step=event.position.step)

    def on_step(self, event: Stepped) -> StopRequest | None:
        """Take in a step."""
        terms = event.terms if len(event.terms) > 1 else None
        files = [str(path) for path in event.files]
        self._watch.step(
            event.loss, terms=terms, grad_norm=event.grad_norm, lr=event.lr, files=files, step=event.position.step
        )
        return self._stop()

    def on_evaluate(self, event: Evaluated) -> StopRequest | None:
        """Take in an evaluation."""
        self._watch.evaluated(_numbers(event.metrics), step=event.position.step)
        return self._stop()

    def on_end(self, event: Ended) -> None:
        """Take the hooks out; a run that came to its end is examined a last time."""
        self._watch.detach(finished=not event.failed)

    def state_dict(self) -> dict[str, Any]:
        """What was recorded and found."""
        return self._watch.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from there; what was found since is found again, and not kept twice."""
        self._watch.load_state_dict(state)
        for finding in self._watch.findings:
            self._keep(finding)

    def _stop(self) -> StopRequest | None:
        if not self._watch.should_stop:
            return None
        worst = next(finding for finding in self._watch.findings if finding.severity == "error")
        return StopRequest(f"{worst.id}: {worst.explanation}")

    def _tell(self, finding: Finding) -> None:
        self._keep(finding)
        if not self._console.quiet and finding.severity != "info":
            print_finding(finding)

    def _keep(self, finding: Finding) -> None:
        """Add it to the file, unless it was told there before the run was resumed."""
        known = {(one.id, one.where, one.severity) for one in self._folder.read_findings()}
        if (finding.id, finding.where, finding.severity) in known:
            return
        try:
            with self._folder.findings.open("a", encoding="utf-8") as file:
                file.write(json.dumps(finding.as_dict()) + "\n")
        except OSError as error:
            raise CheckpointError(
                f"{self._folder.findings}: could not be written: {error.strerror}; make room or permit writing, then "
                "resume the run from its last checkpoint"
            ) from error


def _numbers(metrics: Mapping[str, float]) -> dict[str, float]:
    return {name: float(value) for name, value in metrics.items()}
