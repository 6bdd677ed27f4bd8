"""The doctor beside a small training: rules on the model before it, on the run and its values while it goes."""

from __future__ import annotations

import math
import pickle
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from clearsight.doctor.diagnosis import GRAVITY, ranked
from clearsight.doctor.model.dependence import ImagesNotLearned
from clearsight.doctor.model.evidence import ModelEvidence
from clearsight.doctor.model.gradient_check import WrongGradient
from clearsight.doctor.model.lr_range import LearningRateOutOfBand
from clearsight.doctor.model.overfit import CannotOverfit
from clearsight.doctor.model.rules import RULES as MODEL_RULES
from clearsight.doctor.rule import examine
from clearsight.doctor.run.record import RunRecord
from clearsight.doctor.step_keeper import StepKeeper
from clearsight.doctor.watch import Watch
from clearsight.types import Finding
from doctor_training import Bench, Looker

__all__ = ["Doctor", "in_order", "plain"]


class Doctor(Looker):
    """Everything of the doctor that a plain loop can use, with its defaults.

    Layers are measured every 10 steps and not every 50, as these runs have 240 steps and not thousands.

    Args:
        probe: seconds for learning a few images by heart.

    Attributes:
        findings: with the step at which each was told; 0 before the start.
        nonfinite: what the keeper of steps found, plain values; None where all was finite.
    """

    def __init__(self, *, probe: float = 1.0) -> None:
        self.probe = probe
        self.told: list[tuple[int, Finding]] = []
        self.nonfinite: dict[str, Any] | None = None
        self._labels: Tensor | None = None
        self._step = 0

    def begin(self, bench: Bench) -> None:
        """Rules on the model; then the watch and the keeper are put in."""
        setup, counts = bench.setup, np.bincount(bench.split.labels, minlength=bench.split.classes)
        images, labels = bench.first_batch()
        evidence = ModelEvidence(
            model=bench.model,
            images=images,
            targets=bench.targets(labels),
            loss=lambda model, x, y: bench.sign * bench.criterion(model(x), y),
            take=lambda targets, chosen: targets[list(chosen)],
            task="classification",
            classes=bench.split.classes,
            class_counts=tuple(counts.tolist()),
            optimizer=bench.optimizer,
            recipe=bench.recipe(),
        )
        bench.model.train(bench.train_mode)
        state = torch.get_rng_state()
        probes = (
            CannotOverfit(seconds=self.probe),
            ImagesNotLearned(seconds=self.probe),
            WrongGradient(),
            LearningRateOutOfBand(steps=60, repetitions=2, seconds=2 * self.probe),
        )
        self._tell(0, examine((*MODEL_RULES, *probes), evidence).findings)
        torch.set_rng_state(state)
        about = RunRecord(
            name=f"{setup.data}-{setup.net}",
            task="classification",
            classes=tuple(str(label) for label in range(bench.split.classes)),
            class_counts=tuple(counts.tolist()),
            steps_per_epoch=max(1, len(bench.images) // setup.batch),
            batch_size=setup.batch * setup.accumulate,
            accumulate=setup.accumulate,
            clip_norm=setup.clip,
            recipe=bench.recipe(),
        )
        self.watch = Watch(
            bench.model, bench.optimizer, budget=setup.steps, about=about, every=10, on_finding=self._found
        )
        self.keeper = StepKeeper(bench.model, bench.optimizer)
        self.keeper.__enter__()
        self.watch.__enter__()

    def _found(self, finding: Finding) -> None:
        self._tell(self._step, [finding])

    def _tell(self, step: int, findings: Sequence[Finding]) -> None:
        self.told += [(step, finding) for finding in findings]

    def batches(self, given: Iterator[tuple[Tensor, Tensor]]) -> Iterator[tuple[Tensor, Tensor]]:
        """Waiting is timed."""
        return self.watch.loading(given)

    def kept(self, images: Tensor, labels: Tensor) -> None:
        """The step can be run again."""
        self.keeper.keep(images, labels)
        self._labels = labels.argmax(1) if labels.ndim == 2 else labels

    def step(self, bench: Bench, loss: Tensor, accuracy: float) -> None:
        """To the watch."""
        self._step = bench.steps_done
        self.watch.step(loss, accuracy=accuracy, labels=self._labels)

    def evaluated(self, bench: Bench, loss: float, accuracy: float, scores: dict[str, float]) -> None:
        """To the watch."""
        self.watch.evaluated(loss=loss, accuracy=accuracy, class_scores=scores)

    def end(self, bench: Bench, *, stopped: str) -> None:
        """The last look."""
        self._step = bench.steps_done
        self.watch.detach(finished=True)
        self.keeper.__exit__()
        found = self.keeper.found
        if found is not None:
            self.nonfinite = found.as_dict()
            self._tell(bench.steps_done + 1, [found.as_finding(bench.recipe())])

    @property
    def record(self) -> RunRecord:
        """Of the watch."""
        return self.watch.record()

    def keep(self, file: Path) -> None:
        """The record, so that `doctor_again` can apply rules on runs to it without a training.

        Args:
            file: written.
        """
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(pickle.dumps(self.record))

    def ranked(self, more: Sequence[Finding] = ()) -> list[dict[str, Any]]:
        """What was found, in the order in which it is read, as plain values.

        Args:
            more: of rules on data.
        """
        return in_order(self.told, more)


def in_order(told: Sequence[tuple[int, Finding]], more: Sequence[Finding] = ()) -> list[dict[str, Any]]:
    """Of each place the gravest finding, in the order in which they are read, with the step at which it was told first.

    Args:
        told: step and finding, as they came.
        more: findings before the first step.
    """
    kept: dict[tuple[str, str], tuple[int, Finding]] = {}
    for step, finding in (*told, *((0, one) for one in more)):
        place = finding.id, finding.where
        if place not in kept or GRAVITY[finding.severity] < GRAVITY[kept[place][1].severity]:
            kept[place] = step, finding
    return [plain(one, kept[one.id, one.where][0]) for one in ranked(finding for _, finding in kept.values())]


def plain(finding: Finding, step: int) -> dict[str, Any]:
    """What the scores need of a finding.

    Args:
        finding: one.
        step: at which it was told.
    """
    cause = finding.evidence.get("cause")
    return {
        "id": finding.id,
        "kind": cause.get("kind", "") if isinstance(cause, dict) else "",
        "severity": finding.severity,
        "where": finding.where,
        "because": finding.because,
        "step": step,
        "remedy": {key: value for key, value in finding.remedy.items() if not _odd(value)},
    }


def _odd(value: object) -> bool:
    return isinstance(value, float) and not math.isfinite(value)
