"""A run of clearsight as a `RunRecord`, from what lies in its folder."""

from __future__ import annotations

import json
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

from clearsight.doctor.run.logged import Logged, numbers
from clearsight.doctor.run.record import EMPTY, Curve, RunRecord
from clearsight.doctor.run.telemetry import read_telemetry
from clearsight.errors import DataError

__all__ = ["read_own_log"]

_NO_SCORES = ("step", "epoch", "lr", "grad_norm")


def read_own_log(folder: Path) -> Logged:
    """What the files of a run say: metrics, times, telemetry, recipe, environment; each may be missing.

    Args:
        folder: of the run, finished, interrupted, or going on.

    Raises:
        DataError: there is nothing to read, or `metrics.csv` is damaged.
    """
    notes: list[str] = []
    recipe = _recipe(folder / "recipe.yaml", notes)
    facts = _environment(folder / "environment.json", notes)
    table = _metrics(folder / "metrics.csv", notes)
    if table is None and not recipe:
        raise DataError(f"{folder}: nothing of a run is here (metrics.csv and recipe.yaml are missing or empty)")
    training, scored = _columns(table, "train"), _columns(table, "val")
    layers, watched = read_telemetry(folder)
    trainer, loader = recipe.get("trainer") or {}, recipe.get("loader") or {}
    per_epoch = _steps_per_epoch(training)
    counts = (facts.get("counts") or {}).get("train") or {}
    accumulate = int(trainer.get("accumulate") or 1)
    record = RunRecord(
        name=str(recipe.get("name") or folder.name),
        origin="clearsight",
        task=recipe.get("task"),
        classes=tuple(facts.get("classes") or ()),
        class_counts=tuple(int(count) for count in counts.values()) if any(counts.values()) else (),
        budget=_budget(trainer, per_epoch),
        steps_per_epoch=per_epoch,
        batch_size=int(loader["batch_size"]) * accumulate if loader.get("batch_size") else None,
        accumulate=accumulate,
        clip_norm=trainer.get("clip_norm"),
        loss=_curve(training, "loss"),
        terms={name: _curve(training, name) for name in training if name.startswith("loss_")},
        val={name: curve for name in scored if name not in _NO_SCORES and len(curve := _curve(scored, name))},
        grad_norm=_curve(training, "grad_norm"),
        lr=_curve(training, "lr"),
        seconds=_seconds(folder / "timing.csv", notes),
        layers=layers,
        facts=watched,
        recipe=recipe,
        finished=(folder / "scores.json").is_file(),
    )
    return Logged(record=record, notes=tuple(notes))


def _recipe(path: Path, notes: list[str]) -> dict[str, Any]:
    if not path.is_file():
        notes.append("recipe.yaml is missing: what the run was told to do is not known")
        return {}
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        notes.append(f"recipe.yaml cannot be read ({error}): what the run was told to do is not known")
        return {}
    return found if isinstance(found, dict) else {}


def _environment(path: Path, notes: list[str]) -> dict[str, Any]:
    if not path.is_file():
        notes.append("environment.json is missing: the classes and their counts are not known")
        return {}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        notes.append("environment.json is damaged: the classes and their counts are not known")
        return {}
    data = found.get("data") if isinstance(found, dict) else None
    return data if isinstance(data, dict) else {}


def _metrics(path: Path, notes: list[str]) -> pd.DataFrame | None:
    """The table; None where there is none yet. A half-written last line is left out."""
    if not path.is_file() or path.stat().st_size == 0:
        notes.append("metrics.csv is missing or empty: the run has logged no step")
        return None
    text = path.read_bytes()
    whole = text[: text.rfind(b"\n") + 1]
    if len(whole) < len(text):
        notes.append("the last line of metrics.csv was half-written and is left out")
    try:
        table = pd.read_csv(BytesIO(whole), on_bad_lines="error")
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError, ValueError) as error:
        raise DataError(f"{path}: damaged: {error}; restore it, or give another log of the run") from error
    missing = [name for name in ("step", "split", "loss") if name not in table.columns]
    if missing:
        raise DataError(f"{path}: the columns {', '.join(missing)} are missing; this is no metrics.csv of a run")
    return table


def _columns(table: pd.DataFrame | None, split: str) -> dict[str, np.ndarray]:
    """The numbers of the rows of one split, by column; empty where there is no table."""
    if table is None:
        return {}
    rows = np.asarray(table["split"] == split)
    return {str(name): numbers(table, name)[rows] for name in table.columns if name != "split"}


def _curve(columns: dict[str, np.ndarray], name: str) -> Curve:
    """Of one column. An empty cell is no entry, but in the loss, which each step has: there it was not finite."""
    if name not in columns or not np.isfinite(columns[name]).any():
        return EMPTY
    steps, values = columns["step"], columns[name]
    kept = np.isfinite(steps) if name == "loss" else np.isfinite(steps) & ~np.isnan(values)
    at, first = np.unique(steps[kept][::-1], return_index=True)  # of the same step the last entry
    return Curve.of(at, values[kept][::-1][first])


def _seconds(path: Path, notes: list[str]) -> Curve:
    """Seconds a step, from the rows of `timing.csv`, which are seconds of the run."""
    if not path.is_file():
        return EMPTY
    try:
        table = pd.read_csv(path)
        steps, clock = numbers(table, "step"), numbers(table, "seconds")
    except (pd.errors.ParserError, pd.errors.EmptyDataError, KeyError, ValueError):
        notes.append("timing.csv is damaged: times are not known")
        return EMPTY
    known = np.isfinite(steps) & np.isfinite(clock)
    steps, clock = steps[known].astype(np.int64), clock[known]
    rising = np.append(True, np.diff(steps) > 0)[: len(steps)]
    steps, clock = steps[rising], clock[rising]
    if len(steps) < 2:
        return EMPTY
    return Curve(steps[1:], np.diff(clock) / np.diff(steps))


def _steps_per_epoch(training: dict[str, np.ndarray]) -> int | None:
    epochs = training.get("epoch", np.zeros(0))
    return int(np.unique(epochs[np.isfinite(epochs)], return_counts=True)[1].max()) if len(epochs) else None


def _budget(trainer: dict[str, Any], per_epoch: int | None) -> int | None:
    if trainer.get("steps"):
        return int(trainer["steps"])
    if trainer.get("epochs") and per_epoch:
        return int(trainer["epochs"]) * per_epoch
    return None
