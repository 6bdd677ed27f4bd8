"""What an evaluation found, as plain numbers: the one thing that the trainer, the report and files on disk share."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Self

from clearsight.errors import DataError, NotFound
from clearsight.types import Task

__all__ = ["BACKGROUND", "Scores", "main_metric"]

BACKGROUND = "background"
"""Name of the last row and column of a detector's confusion matrix: nothing there, or nothing found."""

_MAIN = {"classification": "accuracy", "detection": "map", "semantic": "miou", "instance": "map"}


def main_metric(task: Task) -> str:
    """The name in `Scores.summary` by which runs of a task are ranked (higher is better)."""
    return _MAIN[task]


@dataclass(slots=True, kw_only=True)
class Scores:
    """The figures of one evaluation. A figure that does not exist for this data is NaN, never 0 and never -1.

    Args:
        task: what was scored.
        classes: class names in label order.
        images: number of images scored.
        summary: figure by name, in [0, 1] but for `loss` (nats) and `hd95` (pixels), of which less is better.
            Detection: `map`, `map_50`, `map_75`, `map_small`, `map_medium`, `map_large`, `mar_100` (COCO) and
            `voc_map_50` (Pascal VOC, all points). Instances: COCO's of masks, and those of `score_instances`.
            Semantic: see `score_semantic`. Classification: `accuracy`, `balanced_accuracy`, `macro_f1`, `auc`,
            `calibration_error`, `loss`.
        intervals: `(low, high)` by name of a figure: 95 % percentile bootstrap over images.
        per_class: one a class, in label order. Detection: `class`, `objects`, `predictions`, `ap`, `ap_low`, `ap_high`,
            `ap_50`, `ap_75`, `voc_ap_50`, and at the score of the best F1 `threshold`, `precision`, `recall`, `f1`.
            Classification: `class`, `support`, `precision`, `recall`, `f1`, `auc`, `ap`. Semantic: `class`, `pixels`,
            `iou`, `iou_low`, `iou_high`, `dice`, `dice_low`, `dice_high`, `precision`, `recall`, `boundary_f`, `hd95`.
        curves: `pr` by class name: `recall`, `precision`, `score` (the threshold). Classification also has `roc`
            (`fpr`, `tpr`, `score`) and `calibration` (under `all`: `confidence`, `accuracy`, `count`, one a bin).
        confusion: rows are the truth, columns the prediction; where objects are found there is a last row and column
            `BACKGROUND`. Semantic: pixels.
        by_size: objects only, one a size range: `group` (`coco` or `quantile`), `size`, `low`, `high` (square roots
            of areas, pixels), `objects`, `ap`, `ap_50`, `recall` (of objects, at IoU 0.5 and all predictions).
        worst: worst image first: `image` (position), `path`, `error`, `why` (a sentence), `mistakes` (a list).
        mistakes: number of mistakes by kind (detection: `missed`, `background`, `poor box`, `wrong class`, `duplicate`;
            classification: `wrong class`).
        settings: what the figures depend on: `threshold`, `bootstrap`, `seed`, …
    """

    task: Task
    classes: tuple[str, ...]
    images: int
    summary: dict[str, float] = field(default_factory=dict)
    intervals: dict[str, tuple[float, float]] = field(default_factory=dict)
    per_class: list[dict[str, Any]] = field(default_factory=list)
    curves: dict[str, dict[str, Any]] = field(default_factory=dict)
    confusion: list[list[int]] = field(default_factory=list)
    by_size: list[dict[str, Any]] = field(default_factory=list)
    worst: list[dict[str, Any]] = field(default_factory=list)
    mistakes: dict[str, int] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)

    @property
    def main(self) -> float:
        """The figure by which runs of this task are ranked."""
        return self.summary.get(main_metric(self.task), math.nan)

    @property
    def confusion_names(self) -> tuple[str, ...]:
        """Names of the confusion matrix's rows and columns."""
        return (*self.classes, BACKGROUND) if len(self.confusion) == len(self.classes) + 1 else self.classes

    def to_dict(self) -> dict[str, Any]:
        """Plain values for strict JSON: NaN and infinities become None, tuples become lists."""
        return {f.name: _plain(getattr(self, f.name)) for f in fields(self)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """The inverse of `to_dict`; None becomes NaN.

        Raises:
            DataError: a key is missing or unknown.
        """
        known = {f.name for f in fields(cls)}
        if unknown := sorted(set(data) - known):
            raise DataError(f"scores: unknown key {', '.join(unknown)}; expected only {', '.join(sorted(known))}")
        if missing := sorted({"task", "classes", "images"} - set(data)):
            raise DataError(f"scores: {', '.join(missing)} is missing; is this a file that clearsight wrote?")
        values: dict[str, Any] = {name: _restore(value) for name, value in data.items()}
        values["classes"] = tuple(values["classes"])
        values["intervals"] = {name: tuple(pair) for name, pair in values.get("intervals", {}).items()}
        return cls(**values)

    def save(self, path: str | Path) -> Path:
        """Write JSON, atomically: a reader sees the old file or the whole new one."""
        path = Path(path)
        temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        temporary.write_text(json.dumps(self.to_dict(), indent=1, allow_nan=False) + "\n", encoding="utf-8")
        temporary.replace(path)
        return path

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read what `save` wrote.

        Raises:
            NotFound: there is no such file.
            DataError: it is not JSON, or not scores.
        """
        path = Path(path)
        if not path.is_file():
            raise NotFound(f"{path}: no such file; expected scores that an evaluation wrote")
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as err:
            raise DataError(f"{path}: not valid JSON ({err}); evaluate again to write it anew") from err
        if not isinstance(data, dict):
            raise DataError(f"{path}: expected a JSON object, found {type(data).__name__}")
        return cls.from_dict(data)


def _plain(value: object) -> object:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, Path):
        return str(value)
    return value


def _restore(value: object) -> object:
    if isinstance(value, Mapping):
        return {key: _restore(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_restore(item) for item in value]
    return math.nan if value is None else value
