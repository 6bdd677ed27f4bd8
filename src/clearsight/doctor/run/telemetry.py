"""What was measured of layers, kept in a file: `telemetry.jsonl`, a line a measurement."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from clearsight.doctor.run.record import LayerSeries
from clearsight.errors import ConfigError

__all__ = ["FILE", "LayerNote", "TelemetryFile", "layer_series", "read_telemetry"]

FILE = "telemetry.jsonl"
DIGITS = 6


@dataclass(frozen=True, slots=True)
class LayerNote:
    """What is known of a layer besides its numbers.

    Args:
        name: of the module.
        kind: class name.
        activation: name of the non-linearity right behind it, or empty.
        exempt: its gradients vanish by construction.
        turn: when it first ran among the layers; None when that was not seen.
    """

    name: str
    kind: str
    activation: str = ""
    exempt: bool = False
    turn: int | None = None


Row = Mapping[str, np.ndarray]  # measure → (layers,)


def layer_series(notes: Sequence[LayerNote], steps: Sequence[int], rows: Sequence[Row]) -> LayerSeries | None:
    """All measurements as one table, layers in the order in which they run first.

    Args:
        notes: of the layers, in the order of the rows' columns.
        steps: of the rows, rising.
        rows: a measure that a row lacks is NaN there.

    Returns:
        None without a row.
    """
    if not rows:
        return None
    last = len(notes)
    order = sorted(range(last), key=lambda i: (last if (turn := notes[i].turn) is None else turn, i))
    nothing = np.full(last, np.nan)
    measures = dict.fromkeys(name for row in rows for name in row)
    return LayerSeries(
        names=tuple(notes[i].name for i in order),
        kinds=tuple(notes[i].kind for i in order),
        activations=tuple(notes[i].activation for i in order),
        exempt=tuple(notes[i].exempt for i in order),
        steps=np.asarray(steps, dtype=np.int64),
        values={name: np.stack([row.get(name, nothing)[order] for row in rows]) for name in measures},
    )


class TelemetryFile:
    """`telemetry.jsonl`: what the layers are, whenever that changes, and a line a measurement, readable at once.

    A fresh run begins with an empty file at its first line; `cut` goes on with the one that is there.

    Args:
        folder: made if need be.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / FILE
        self._begun = False
        self._notes: list[LayerNote] = []
        self._facts: dict[str, Any] = {}

    def write(self, step: int, notes: Sequence[LayerNote], row: Row, facts: Mapping[str, Any]) -> None:
        """Append a measurement.

        Args:
            step: optimiser steps done.
            notes: of the layers, in the order of the row's columns.
            row: measure → `(layers,)`.
            facts: what else is known by now, plain values; written where it is new.

        Raises:
            ConfigError: the file cannot be written.
        """
        lines: list[dict[str, Any]] = []
        if list(notes) != self._notes:
            self._notes = list(notes)
            lines.append({"step": step, "layers": [asdict(note) for note in notes]})
        entry: dict[str, Any] = {"step": step}
        if row:
            entry["values"] = {name: [_plain(v) for v in values.tolist()] for name, values in row.items()}
        if dict(facts) != self._facts:
            self._facts = dict(facts)
            entry["facts"] = self._facts
        if len(entry) > 1:
            lines.append(entry)
        self._append("".join(json.dumps(line) + "\n" for line in lines))

    def cut(self, step: int) -> None:
        """Take out what lies behind a step, and go on from there."""
        self._begun = True
        self._notes, self._facts = [], {}
        if self.path.is_file():
            kept = [line for line, entry in _entries(self.path) if entry["step"] <= step]
            beside = self.path.with_suffix(".part")
            beside.write_text("".join(kept), encoding="utf-8")
            beside.replace(self.path)

    def _append(self, text: str) -> None:
        if not text:
            return
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a" if self._begun else "w", encoding="utf-8") as file:
                file.write(text)
        except OSError as err:
            raise ConfigError(f"{self.path}: cannot be written: {err.strerror}; give another folder") from err
        self._begun = True


def read_telemetry(folder: Path) -> tuple[LayerSeries | None, dict[str, Any]]:
    """Read what a run measured of its layers.

    Args:
        folder: that has `telemetry.jsonl`.

    Returns:
        The layers, None where nothing was measured or there is no file, and the facts. A half-written last line, as a
        kill leaves it, is left out; of layers that changed their names the last ones are given.
    """
    notes: list[LayerNote] = []
    steps: list[int] = []
    rows: list[Row] = []
    facts: dict[str, Any] = {}
    path = folder / FILE
    for _, entry in _entries(path) if path.is_file() else ():
        if "layers" in entry:
            found = [LayerNote(**note) for note in entry["layers"]]
            if [note.name for note in found] != [note.name for note in notes]:
                steps, rows = [], []
            notes = found
        if "values" in entry:
            steps.append(entry["step"])
            rows.append({name: np.array([_number(v) for v in values]) for name, values in entry["values"].items()})
        facts |= entry.get("facts", {})
    return layer_series(notes, steps, rows), facts


def _entries(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """The lines of a file that are whole, as they are and as read."""
    for line in path.read_text(encoding="utf-8").splitlines(keepends=True):
        if line.endswith("\n"):
            try:
                entry = json.loads(line)
            except json.JSONDecodeError:
                continue
            if isinstance(entry, dict) and "step" in entry:
                yield line, entry


def _plain(value: float) -> float | str | None:
    """A number in few digits; JSON has no NaN and no infinity."""
    if math.isfinite(value):
        return float(f"{value:.{DIGITS}g}")
    return None if math.isnan(value) else str(value)


def _number(value: float | str | None) -> float:
    return math.nan if value is None else float(value)
