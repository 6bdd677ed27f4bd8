"""Gathers the numbers of a run as they come, and gives them as one record."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from clearsight.doctor.run.record import Curve, RunRecord
from clearsight.doctor.run.telemetry import LayerNote, Row, layer_series
from clearsight.errors import ConfigError

__all__ = ["Recorder"]

GROUPS = ("terms", "val", "train", "train_in_eval", "class_scores")  # by name; every other curve stands alone
PENDING = 256  # values that may wait on a device


class _Growing:
    """A curve that is appended to; what was given out stays as it was."""

    def __init__(self, steps: np.ndarray | None = None, values: np.ndarray | None = None) -> None:
        self._steps = np.zeros(64, dtype=np.int64) if steps is None else steps.copy()
        self._values = np.zeros(64) if values is None else values.copy()
        self._used = 0 if steps is None else len(steps)

    def add(self, step: int, value: float) -> bool:
        """Append a value, or put it in place of the last one of the same step; False where the step went back."""
        if self._used and step <= self._steps[self._used - 1]:
            if step < self._steps[self._used - 1]:
                return False
            self._values = self._values.copy()
            self._values[self._used - 1] = value
            return True
        if self._used == len(self._steps):
            self._steps = np.resize(self._steps, max(64, 2 * self._used))
            self._values = np.resize(self._values, max(64, 2 * self._used))
        self._steps[self._used], self._values[self._used] = step, value
        self._used += 1
        return True

    def curve(self) -> Curve:
        """What there is by now."""
        return Curve(self._steps[: self._used], self._values[: self._used])


class Recorder:
    """Takes numbers one by one; those on a GPU wait there and come in one transfer with others.

    Args:
        about: what is known of the run before it begins: its name, task, classes, budget, recipe, ….

    Attributes:
        step: the last one that anything was said of.
        facts: what else is known, plain values.
    """

    def __init__(self, about: RunRecord) -> None:
        self.about = about
        self.step = 0
        self.facts: dict[str, Any] = dict(about.facts)
        self._curves: dict[tuple[str, str], _Growing] = {}
        self._pending: list[tuple[tuple[str, str], int, float | Tensor]] = []
        self._notes: list[LayerNote] = []
        self._layer_steps: list[int] = []
        self._rows: list[Row] = []

    def put(self, group: str, name: str, step: int, value: float | Tensor | None) -> None:
        """Take one number; None is nothing.

        Args:
            group: `loss`, `lr`, … or one of `GROUPS`.
            name: within the group, empty for a curve that stands alone.
            step: optimiser steps done; a second value for a step takes the place of the first.
            value: of one element; a tensor on a GPU is fetched later.

        Raises:
            ConfigError: the step went back, or the value is not one number.
        """
        if value is None:
            return
        self.step = max(self.step, step)
        if isinstance(value, Tensor):
            if value.numel() != 1:
                shape = tuple(value.shape)
                raise ConfigError(f"{name or group}: expected one number, found a tensor of shape {shape}; average it")
            value = value.detach()
            value = value.item() if value.device.type == "cpu" else value.reshape(())
        if self._pending or isinstance(value, Tensor):
            self._pending.append(((group, name), step, value))
            if len(self._pending) >= PENDING:
                self.flush()
        else:
            self._add((group, name), step, value)

    def put_layers(self, step: int, notes: Sequence[LayerNote], row: Row) -> None:
        """Take the measurement of a step; what was measured of other layers is forgotten."""
        if [note.name for note in notes] != [note.name for note in self._notes]:
            self._layer_steps, self._rows = [], []
        if self._layer_steps and step <= self._layer_steps[-1]:
            return
        self._notes = list(notes)
        self._layer_steps.append(step)
        self._rows.append(row)

    @property
    def notes(self) -> list[LayerNote]:
        """What is known of the layers, in the order of definition."""
        return self._notes

    def flush(self) -> None:
        """Fetch what waits on a device."""
        waiting, self._pending = self._pending, []
        tensors = [value for *_, value in waiting if isinstance(value, Tensor)]
        fetched: list[float] = []
        if tensors:
            device = tensors[0].device
            fetched = torch.stack([t.to(device, torch.float32) for t in tensors]).tolist()
        numbers = iter(fetched)
        for key, step, value in waiting:
            self._add(key, step, next(numbers) if isinstance(value, Tensor) else value)

    def record(self, *, finished: bool = False) -> RunRecord:
        """Everything so far; it does not change when more comes."""
        self.flush()
        groups: dict[str, dict[str, Curve]] = {group: {} for group in GROUPS}
        alone: dict[str, Curve] = {}
        for (group, name), growing in self._curves.items():
            if group in groups:
                groups[group][name] = growing.curve()
            else:
                alone[group] = growing.curve()
        layers = layer_series(self._notes, self._layer_steps, self._rows)
        known: dict[str, Any] = {**groups, **alone}
        return dataclasses.replace(self.about, **known, layers=layers, facts=dict(self.facts), finished=finished)

    def state_dict(self) -> dict[str, Any]:
        """Plain values and tensors."""
        self.flush()
        curves = []
        for (group, name), growing in self._curves.items():
            curve = growing.curve()
            steps, values = torch.from_numpy(curve.steps.copy()), torch.from_numpy(curve.values.copy())
            curves.append([group, name, steps, values])
        rows = [{name: torch.from_numpy(values.copy()) for name, values in row.items()} for row in self._rows]
        return {
            "step": self.step,
            "facts": dict(self.facts),
            "curves": curves,
            "notes": [dataclasses.asdict(note) for note in self._notes],
            "layer_steps": list(self._layer_steps),
            "rows": rows,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take back what `state_dict` gave; what was there is forgotten."""
        self._pending.clear()
        self.step = state["step"]
        self.facts.clear()
        self.facts.update(state["facts"])
        self._curves = {
            (group, name): _Growing(steps.numpy(), values.numpy()) for group, name, steps, values in state["curves"]
        }
        self._notes = [LayerNote(**note) for note in state["notes"]]
        self._layer_steps = list(state["layer_steps"])
        self._rows = [{name: values.numpy().copy() for name, values in row.items()} for row in state["rows"]]

    def _add(self, key: tuple[str, str], step: int, value: float) -> None:
        curve = self._curves.get(key)
        if curve is None:
            curve = self._curves[key] = _Growing()
        if not curve.add(step, float(value)):
            raise ConfigError(
                f"{' '.join(filter(None, key))}: step {step} comes after a later one; steps must rise, "
                "and a run that goes on from a checkpoint needs load_state_dict first"
            )
