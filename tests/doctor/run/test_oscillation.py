"""Scores that swing, and scores that stand still."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from clearsight.doctor.rule import examine
from clearsight.doctor.run.oscillation import Oscillation, Plateau
from clearsight.doctor.run.record import Curve, RunRecord

RULES = (Oscillation(), Plateau())
AT = np.arange(1, 41) * 10


def record(values: np.ndarray, **known: object) -> RunRecord:
    at = AT[: len(values)]
    return RunRecord(val={"accuracy": Curve.of(at, values)}, **{"finished": True, **known})  # type: ignore[arg-type]


def found(known: RunRecord) -> dict[str, str]:
    return {finding.id: finding.severity for finding in examine(RULES, known).findings}


@pytest.mark.parametrize(("size", "severity"), [(0.02, None), (0.04, "info"), (0.08, "info"), (0.12, "warning")])
def test_the_size_of_the_swings_decides(size: float, severity: str | None) -> None:
    values = 0.6 + 0.005 * np.arange(40) + size * (np.arange(40) % 2)
    assert found(record(values)).get("oscillating-score") == severity


def test_swings_are_counted_and_placed() -> None:
    values = np.linspace(0.7, 0.9, 40)
    values[20:] -= 0.15 * (np.arange(20) % 2)
    (finding,) = (one for one in examine(RULES, record(values)).findings if one.id == "oscillating-score")
    assert finding.evidence["step"] == pytest.approx(220, abs=10)
    assert finding.evidence["swing"] == pytest.approx(0.15, abs=0.02)
    once = np.linspace(0.7, 0.9, 40)
    once[[20, 30]] -= 0.2
    assert "oscillating-score" not in found(record(once))


def test_steps_up_and_swings_of_the_start_are_none() -> None:
    assert found(record(np.repeat(np.linspace(0.1, 0.9, 8), 5))) == {}
    start = np.linspace(0.7, 0.9, 40)
    start[:8] += 0.2 * (np.arange(8) % 2)
    assert "oscillating-score" not in found(record(start))
    settled = np.linspace(0.7, 0.9, 40)
    settled[10:24] += 0.2 * (np.arange(14) % 2)
    assert "oscillating-score" not in found(record(settled))


def test_setbacks_on_the_way_up_are_none() -> None:
    """A real run of 240 steps, imbalanced, at step 108 and at its end."""
    rise = [0.17, 0.19, 0.4, 0.53, 0.77, 0.66, 0.81, 0.9, 0.9, 0.92, 0.95, 0.93, *(0.94,) * 8]
    for count in range(8, 21):
        known = RunRecord(val={"accuracy": Curve.of(12 * np.arange(1, count + 1), rise[:count])}, budget=240)
        assert "warning" not in found(known).values()


def test_a_plateau_is_named_from_its_first_step() -> None:
    flat = np.r_[np.linspace(0.1, 0.9, 16), np.full(24, 0.9)]
    (finding,) = examine(RULES, record(flat)).findings
    assert (finding.id, finding.severity) == ("plateau", "info")
    assert finding.evidence["step"] == pytest.approx(160, abs=20)
    assert found(record(np.r_[np.linspace(0.1, 0.9, 24), np.full(16, 0.9)])) == {}
    dropped = np.r_[np.full(28, 0.3), np.linspace(0.3, 0.9, 12)]
    assert found(record(dropped)) == {}


def test_a_hot_run_swings_and_a_cool_one_does_not(digits_run: Callable[..., RunRecord]) -> None:
    hot = (digits_run(optimizer="momentum", rate=0.3, epochs=20) for _ in range(4))
    cool = digits_run(optimizer="momentum", rate=0.03, epochs=20)
    assert any("oscillating-score" in found(run) for run in hot)
    assert "oscillating-score" not in found(cool)


def test_records_that_cannot_be_judged(odd_records: list[RunRecord]) -> None:
    silent = examine(RULES, record(np.linspace(0.1, 0.9, 6))).silent
    assert "there are 5" in silent["oscillating-score"]
    assert "12 validation scores" in silent["plateau"]
    going = record(np.full(20, 0.5), finished=False, budget=1000)
    assert "half" in examine(RULES, going).silent["plateau"]
    for odd in [*odd_records, replace(going, val={})]:
        assert [finding for finding in examine(RULES, odd).findings if finding.id == "rule-failed"] == []
