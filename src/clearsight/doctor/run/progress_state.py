"""What a run is doing, as a state machine on the trends of its curves: from which step to which each state held."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

from clearsight.doctor.run.record import Curve, RunRecord
from clearsight.doctor.run.signals import done, training_loss
from clearsight.doctor.run.smoothing import Slope, level, noise, running_median, slope, thin

__all__ = ["Phase", "State", "progress"]

State = Literal[
    "learning", "overfitting", "data-fault", "bottleneck", "diverging", "too-slow", "converged", "undecided"
]


@dataclass(frozen=True, slots=True)
class Phase:
    """A state and the steps between which it held, both included."""

    state: State
    first: int
    last: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _Past:
    """What is known at one moment of a run."""

    loss: Curve
    val: Curve
    start: float
    now: float
    train: Slope
    validation: Slope | None
    lately: float  # least validation loss of the last third of the steps; NaN where there is none
    ahead: float | None  # share of the budget that is done; None where no end is known


def progress(record: RunRecord, *, windows: int = 20, hold: int = 2) -> tuple[Phase, ...]:
    """What the run did, phase by phase.

    Method: at the ends of `windows` equal spans, the trends of the training and the validation loss over the last
    third of the steps so far (`slope`, 95 % intervals) name a state; a state begins once it has been named `hold`
    times in a row, so that an oscillation opens none. `learning`: the training loss falls, or the validation loss.
    `overfitting`: the training loss falls or has fallen, the validation loss rises from its minimum. `data-fault`:
    the training loss is flat and high, and the validation loss moves all the same. `bottleneck`: both are flat and
    high. `converged`: both are flat, well below the start. `too-slow`: it falls, but has come a tenth of the way after
    a third of the budget. `diverging`: the loss has risen above its start, or is no longer finite. `undecided`: too
    few points.

    Args:
        record: of a run that goes or has ended.
        windows: moments at which it is judged.
        hold: moments in a row that a state needs.
    """
    full = training_loss(record)
    if len(full) < 6:
        return (Phase("undecided", 0, record.steps),) if record.steps else ()
    loss, val = thin(full, 10 * windows), running_median(record.val.get("loss", full.between(0, 0)))
    ends = np.linspace(0, record.steps, windows + 1)[1:]
    share = done(record)
    named: list[State] = [
        _judge(full, loss, val, float(end), None if share is None else share * float(end) / record.steps)
        for end in ends
    ]
    return _hold(named, ends, hold)


def _hold(named: list[State], ends: np.ndarray, hold: int) -> tuple[Phase, ...]:
    phases: list[Phase] = []
    current, pending, since, first = named[0], named[0], 0, 0
    for at, state in enumerate(named):
        if state == current:
            pending = current
            continue
        if state != pending:
            pending, since = state, at
        if at - since + 1 >= hold or current == "undecided":
            before = int(ends[since - 1])
            phases.append(Phase(current, first, before))
            current, first = state, before + 1
    return (*phases, Phase(current, first, int(ends[-1])))


def _judge(full: Curve, loss: Curve, val: Curve, end: float, share: float | None) -> State:
    seen = full.between(-1, end)
    if len(seen) >= 3 and not np.isfinite(seen.values[-3:]).any():
        return "diverging"
    loss, val = loss.between(-1, end), val.between(-1, end)
    back = loss.between(end - end / 3, end)
    if len(back) < 4:
        return "undecided"
    recent = val.between(end - end / 3, end)
    start = float(loss.values[0])
    return _name(
        _Past(
            loss=loss,
            val=val,
            start=start,
            now=level(back, 5),
            train=slope(back),
            validation=slope(recent) if len(recent) >= 4 else None,
            lately=float(recent.values.min()) if len(recent) else math.nan,
            ahead=share,
        )
    )


def _name(past: _Past) -> State:
    low, size = float(past.loss.values.min()), max(abs(past.start), 1e-12)
    fallen = (past.start - past.now) / size
    lost = past.now - low > max(0.5 * (past.start - low), 0.1 * size)
    if past.now > past.start + 0.2 * size or lost:
        return "diverging"
    falls = past.train.falls and -past.train.change > 0.02 * max(past.start - past.now, 0.05 * size)
    validation = past.validation
    moved = 0.0
    if validation is not None:
        scale = max(float(past.val.values.max() - past.val.values.min()), 0.1 * size)
        moved = validation.change / scale if validation.falls or validation.rises else 0.0
    least = float(past.val.values.min()) if len(past.val) else 0.0
    # An oscillation comes back to its least value; a rise has left it behind for a third of the run.
    apart = max(0.05 * abs(least), 2 * noise(past.val))
    risen = past.lately - least > apart and past.val.values[-1] - least > 0.1 * abs(least)
    high = fallen < 0.5
    if risen and moved > -0.05 and (falls or not high):
        return "overfitting"
    if abs(moved) > 0.2 and not falls and high and fallen > -0.1:
        return "data-fault"
    if falls or moved < -0.05:
        late = past.ahead is not None and past.ahead >= 1 / 3
        return "too-slow" if late and fallen < 0.1 else "learning"
    if not math.isfinite(past.train.high - past.train.low) or (high and past.ahead is not None and past.ahead < 0.2):
        return "undecided"
    return "bottleneck" if high else "converged"
