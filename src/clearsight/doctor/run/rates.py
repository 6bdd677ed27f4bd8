"""The learning rate that a run's first steps ask for."""

from __future__ import annotations

import math

import numpy as np

from clearsight.doctor.run.record import RunRecord
from clearsight.doctor.run.signals import setting, update_ratio

__all__ = ["faster", "slower", "times"]

HEALTHY = 0.004  # ‖Δw‖ / ‖w‖ of a first step at the full rate; sound runs of SGD have 0.001 to 0.015, of Adam to 0.043


def slower(record: RunRecord, otherwise: float = 0.1) -> dict[str, float | str]:
    """The recipe patch for a rate that is too high; empty where the recipe gives none.

    Args:
        record: a run.
        otherwise: factor where the first steps were not measured, or say that the rate is a little too high only.
    """
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
    layers, is what it would be at the highest rate of the schedule; the factor leads to `HEALTHY`.

    Source: Karpathy 2017, CS231n, ratio of updates to weights (about 1e-3 a step), as measured for first steps.
    """
    updates, rates = update_ratio(record), record.lr.finite()
    if not len(updates) or not len(rates) or updates.steps[0] > 2:
        return None
    own = rates.values[rates.steps == updates.steps[0]]
    first = float(updates.values[0])
    if not len(own) or not own[0] > 0 or not first > 0:
        return None
    factor = HEALTHY / (first * float(np.max(rates.values)) / float(own[0]))
    return min(max(factor, 1e-4), 1e4) if math.isfinite(factor) else None


def _patched(record: RunRecord, factor: float) -> dict[str, float | str]:
    given = setting(record, "optimizer", "lr")
    return {} if given is None else {"optimizer.lr": float(f"{given * factor:.2g}")}
