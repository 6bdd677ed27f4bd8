"""The learning rate that a run's first steps ask for."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from clearsight.doctor.run.record import RunRecord
from clearsight.doctor.run.signals import setting, update_ratio

__all__ = ["HEALTHY", "HEALTHY_ADAM", "faster", "slower", "times"]

# ‖Δw‖ / ‖w‖ of a first step at the full rate. Sound runs of SGD have 0.001 to 0.015, of Adam, whose first step is as
# long as the rate in every weight, 0.01 to 0.043.
HEALTHY = 0.004
HEALTHY_ADAM = 0.02
BEYOND = 3.0  # times the rate of the recipe


def slower(record: RunRecord, otherwise: float = 0.1) -> dict[str, float | str]:
    """The recipe patch for a rate that is too high; empty where the recipe gives none, or another rate than was used.

    Args:
        record: a run.
        otherwise: factor where the first steps were not measured, or say that the rate is a little too high only.
    """
    rates, given = record.lr.finite().values, setting(record, "optimizer", "lr")
    if given is not None and len(rates) and rates.max() > BEYOND * given:
        return {}  # something else than the recipe sets it
    return _patched(record, min(times(record) or otherwise, 3 * otherwise))


def faster(record: RunRecord, otherwise: float = 10.0) -> dict[str, float | str]:
    """The recipe patch for a rate that is too low; arguments as of `slower`.

    Where the rate had fallen to a fiftieth before a third of the budget was over, it is the schedule that changes.
    """
    rates, budget = record.lr.finite(), record.budget or record.steps
    early = rates.between(-1, budget / 3).values
    if record.recipe.get("schedule") and len(early) and early[-1] < float(rates.values.max()) / 50:
        return {"schedule.name": "cosine"}
    return _patched(record, max(times(record) or otherwise, otherwise / 3))


def times(record: RunRecord) -> float | None:
    """The factor that makes first steps healthy; None where they were not measured.

    A first step of SGD is the gradient times the rate, whatever happens later. Its ‖Δw‖ / ‖w‖, the median over the
    layers, is what it would be at the highest rate of the schedule; the factor leads to `HEALTHY`, or `HEALTHY_ADAM`.

    Source: Karpathy 2017, CS231n, ratio of updates to weights (about 1e-3 a step), as measured for first steps.
    """
    updates, rates = update_ratio(record), record.lr.finite()
    if not len(updates) or not len(rates) or updates.steps[0] > 2:
        return None
    own = rates.values[rates.steps == updates.steps[0]]
    first = float(updates.values[0])
    if not len(own) or not own[0] > 0 or not first > 0:
        return None
    healthy = HEALTHY_ADAM if _adaptive(record) else HEALTHY
    factor = healthy / (first * float(np.max(rates.values)) / float(own[0]))
    return min(max(factor, 1e-4), 1e4) if math.isfinite(factor) else None


def _adaptive(record: RunRecord) -> bool:
    optimizer = record.recipe.get("optimizer")
    return isinstance(optimizer, Mapping) and "adam" in str(optimizer.get("name"))


def _patched(record: RunRecord, factor: float) -> dict[str, float | str]:
    given = setting(record, "optimizer", "lr")
    return {} if given is None else {"optimizer.lr": float(f"{given * factor:.2g}")}
