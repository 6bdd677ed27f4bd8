"""The states of a run, on built curves with a known course and on real trainings."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from clearsight.doctor.run.progress_state import progress
from clearsight.doctor.run.record import Curve, RunRecord

STEPS = np.arange(1, 1001)
AT = STEPS[19::20]


def record(loss: np.ndarray, val: np.ndarray | None = None, *, noise: float = 0.03, **known: object) -> RunRecord:
    rng = np.random.default_rng(0)
    curves = {} if val is None else {"loss": Curve.of(AT, val[AT - 1] + rng.normal(0, noise / 5, len(AT)))}
    noisy = loss + rng.normal(0, noise, len(loss))
    return RunRecord(loss=Curve.of(STEPS, noisy), val=curves, **{"budget": 1000, "finished": True, **known})  # type: ignore[arg-type]


def states(known: RunRecord) -> list[str]:
    return [phase.state for phase in progress(known) if phase.state != "undecided"]


FALLS = 0.1 + 2.2 * np.exp(-STEPS / 120)


def test_learning_then_converged_and_the_phases_tile_the_run() -> None:
    phases = progress(record(FALLS, FALLS + 0.05))
    assert [phase.state for phase in phases] == ["undecided", "learning", "converged"]
    assert (phases[0].first, phases[-1].last) == (0, 1000)
    assert all(after.first == before.last + 1 for before, after in pairwise(phases))
    assert 300 <= phases[1].last <= 800


def test_a_rising_validation_loss_is_overfitting() -> None:
    val = np.interp(STEPS, [1, 300, 1000], [2.3, 0.6, 1.4])
    phases = progress(record(FALLS, val))
    assert [phase.state for phase in phases[1:]] == ["learning", "overfitting"]
    assert 300 < phases[-1].first <= 650


def test_flat_and_high_is_a_bottleneck_and_flat_and_low_is_not() -> None:
    assert states(record(np.full(1000, 2.3), np.full(1000, 2.3))) == ["bottleneck"]
    stuck = 1.5 + 0.8 * np.exp(-STEPS / 60)
    assert states(record(stuck, stuck))[-1] == "bottleneck"


def test_training_flat_and_validation_moving_is_a_fault_of_data() -> None:
    val = np.linspace(2.3, 2.9, 1000)
    assert states(record(np.full(1000, 2.3), val))[-1] == "data-fault"
    assert states(record(np.full(1000, 2.3), val[::-1]))[-1] == "data-fault"


def test_hardly_falling_is_too_slow_after_a_third() -> None:
    phases = progress(record(2.3 - STEPS * 2e-4, noise=0.01))
    assert phases[-1].state == "too-slow"
    assert phases[-1].first >= 300
    unknown_end = record(2.3 - STEPS * 2e-4, noise=0.01, budget=None, finished=False)
    assert "too-slow" not in states(unknown_end)


def test_diverging_by_height_or_by_no_number() -> None:
    grown = np.interp(STEPS, [1, 500, 1000], [2.3, 0.5, 5.0])
    phases = progress(record(grown))
    assert phases[-1].state == "diverging"
    assert 500 < phases[-1].first < 800
    broken = FALLS.copy()
    broken[600:] = np.nan
    phases = progress(record(broken))
    assert (phases[-1].state, phases[-1].first) == ("diverging", 601)


def test_a_plateau_before_a_drop_ends_well() -> None:
    drop = 0.1 + 2.2 / (1 + np.exp((STEPS - 500) / 30))
    found = states(record(drop, drop))
    assert found[-1] == "converged"
    assert "learning" in found
    assert not {"diverging", "overfitting", "data-fault"} & set(found)


@pytest.mark.parametrize("noise", [0.0, 0.03, 0.3])
def test_oscillation_opens_no_phases(noise: float) -> None:
    swings = FALLS + 0.05 * np.sin(STEPS / 7)
    found = states(record(swings, FALLS + 0.05 * np.sin(STEPS / 50) + 0.1, noise=noise))
    assert set(found) <= {"learning", "converged", "bottleneck"}
    assert len(found) <= 5


def test_a_single_window_opens_no_phase() -> None:
    dented = FALLS.copy()
    dented[520:545] += 3
    assert states(record(dented)) == states(record(FALLS))


def test_losses_below_zero_are_judged_by_their_range() -> None:
    assert states(record(FALLS - 3)) == ["learning", "converged"]


def test_little_is_undecided() -> None:
    assert progress(RunRecord()) == ()
    short = RunRecord(loss=Curve.of([1, 2], [2.0, 1.0]))
    assert [phase.state for phase in progress(short)] == ["undecided"]


def test_odd_records_have_phases(odd_records: list[RunRecord]) -> None:
    for odd in odd_records:
        assert all(phase.first <= phase.last <= odd.steps for phase in progress(odd))


def test_real_runs(digits_run: Callable[..., RunRecord]) -> None:
    assert states(digits_run(epochs=20))[-1] == "converged"
    wrong = digits_run(sign=-1.0, epochs=6)
    assert states(replace(wrong, val={}))[-1] == "diverging"
    assert "overfitting" in states(digits_run(per_class=(15,) * 10, batch=16, epochs=50, mislabelled=0.4))
