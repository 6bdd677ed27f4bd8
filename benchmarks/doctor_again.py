"""Applies the rules on runs once more, to records that were kept: what a changed rule says, without a training."""

from __future__ import annotations

import dataclasses
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from clearsight.doctor.run.live_rules import LiveRules
from clearsight.doctor.run.record import Curve, LayerSeries, RunRecord
from clearsight.doctor.run.rules import RULES
from clearsight.doctor.watch import SHARES
from clearsight.types import Finding
from doctor_ours import in_order

__all__ = ["again", "until"]


def again(row: Mapping[str, Any], records: Path) -> dict[str, Any]:
    """A row with the findings that the rules on runs give now; those on model and data stay.

    Args:
        row: of a run that was watched.
        records: folder of `Doctor.keep`.
    """
    file = records / f"{row['key']}.pkl"
    if not file.is_file():
        return dict(row)
    record: RunRecord = pickle.loads(file.read_bytes())
    runs = {rule.id for rule in RULES}
    told = [(one["step"], _finding(one)) for one in row["findings"] if one["kind"] or one["id"] not in runs]
    step = 0
    live = LiveRules(RULES, lambda finding: told.append((step, finding)))
    pace = max(1, (record.budget or record.steps) // SHARES)
    evaluations = {int(at) for curve in record.val.values() for at in curve.steps}
    for step in sorted({*range(pace, record.steps + 1, pace), *evaluations}):
        live.examine(lambda: until(record, step))  # noqa: B023 - called at once
    step = record.steps
    live.examine(lambda: record)
    return {**row, "findings": in_order(told)}


def _finding(one: Mapping[str, Any]) -> Finding:
    evidence = {"cause": {"kind": one["kind"]}} if one["kind"] else {}
    known = {name: one[name] for name in ("id", "severity", "where", "remedy")}
    return Finding(**known, explanation="", evidence=evidence)


def until(record: RunRecord, step: int) -> RunRecord:
    """What was known of a run at a step."""

    def cut(value: Any) -> Any:  # noqa: ANN401 - of any field
        if isinstance(value, Curve):
            return value.between(-1, step)
        if isinstance(value, dict) and value and all(isinstance(one, Curve) for one in value.values()):
            return {name: one.between(-1, step) for name, one in value.items()}
        if isinstance(value, LayerSeries):
            kept = value.steps <= step
            values = {name: np.asarray(rows)[kept] for name, rows in value.values.items()}
            return dataclasses.replace(value, steps=value.steps[kept], values=values)
        return value

    fields = {one.name: cut(getattr(record, one.name)) for one in dataclasses.fields(record)}
    return dataclasses.replace(record, **{**fields, "finished": False})
