"""A wrong sign, a rate too high, a divergence: in real trainings, near misses, and not in clean runs."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import replace

import numpy as np
import pytest

from clearsight.doctor.rule import Rule, examine
from clearsight.doctor.run.divergence import DivergingLoss, LearningRateTooHigh, WrongSign
from clearsight.doctor.run.record import Curve, RunRecord

RULES = (WrongSign(), LearningRateTooHigh(), DivergingLoss())
TEN = {"task": "classification", "classes": tuple("0123456789")}


def record(values: np.ndarray | Iterable[float], **known: object) -> RunRecord:
    values = np.asarray(values, dtype=float)
    return RunRecord(loss=Curve.of(np.arange(1, len(values) + 1), values), **{"finished": True, **known})  # type: ignore[arg-type]


def ids(known: RunRecord, rules: tuple[Rule[RunRecord], ...] = RULES) -> list[str]:
    return [finding.id for finding in examine(rules, known).findings if finding.severity != "info"]


def falling(n: int = 300) -> np.ndarray:
    return 0.1 + 2.2 * np.exp(-np.arange(n) / 50) + np.random.default_rng(0).normal(0, 0.02, n)


def test_a_maximised_loss_is_called_so_at_its_first_steps(digits_run: Callable[..., RunRecord]) -> None:
    run = digits_run(sign=-1.0, epochs=6)
    first, second = examine(RULES, run).findings
    assert (first.id, first.severity, first.because) == ("wrong-sign", "error", "")
    assert first.evidence["step"] <= 0.2 * run.steps
    assert (second.id, second.because) == ("diverging-loss", "wrong-sign")


def test_a_negated_cross_entropy_is_below_zero_where_none_can_be(digits_run: Callable[..., RunRecord]) -> None:
    run = digits_run(sign=-1.0, epochs=6)
    negated = replace(run, loss=Curve(run.loss.steps, -run.loss.values))
    assert ids(negated)[0] == "wrong-sign"


def test_losses_that_may_be_negative_are_let_be() -> None:
    similarity = -1 + np.exp(-np.arange(300) / 60) - 0.1
    assert ids(record(similarity)) == []
    likelihood = 3 - 20 * (1 - np.exp(-np.arange(300) / 60))
    assert ids(record(likelihood, task="detection")) == []


@pytest.mark.parametrize(("optimizer", "rate"), [("adam", 0.3), ("momentum", 1.0)])
def test_a_rate_a_hundred_times_too_high(digits_run: Callable[..., RunRecord], optimizer: str, rate: float) -> None:
    run = digits_run(optimizer=optimizer, rate=rate, epochs=8)
    found = examine(RULES, run).findings
    assert found[0].id == "learning-rate-too-high"
    assert found[0].severity == "warning"
    assert found[0].evidence["step"] <= run.steps / 4
    assert found[0].remedy == {"optimizer.lr": pytest.approx(rate / 10)}
    assert all(finding.because for finding in found[1:])


@pytest.mark.parametrize(
    "settings",
    [{}, {"optimizer": "momentum", "rate": 0.05}, {"batch": 4, "epochs": 3}, {"dropout": 0.5, "smoothing": 0.1}],
    ids=["adam", "momentum", "tiny-batches", "dropout"],
)
def test_clean_runs_have_none(digits_run: Callable[..., RunRecord], settings: dict[str, float]) -> None:
    run = digits_run(**settings)
    assert ids(run) == []
    for share in (0.1, 0.3, 0.6):
        seen = run.loss.between(0, share * run.steps)
        assert ids(replace(run, loss=seen, val={}, train={}, layers=None, finished=False)) == []


def test_a_blow_up_counts_where_it_stays_or_is_beyond_doubt() -> None:
    guess, only = math.log(10), (LearningRateTooHigh(),)
    for height, until, found in ((1.4, 300, False), (1.6, 300, True), (1.6, 30, False), (6.5, 30, True)):
        values = falling()
        values[10:until] = height * max(values[0], guess)
        assert ids(record(values, **TEN), only) == ["learning-rate-too-high"] * found
        assert ids(record(values[:60], budget=300, finished=False, **TEN), only) == ["learning-rate-too-high"] * (
            found if until > 30 or height > 2 else False
        )
    # Nothing is known of a guess: the first value may have been a lucky one.
    values = falling()
    values[10:30] = 1.6 * guess
    assert ids(record(values)) == []


def test_an_early_rise_that_comes_back_is_healthy() -> None:
    values = falling(400)
    values[15:40] = 1.5 * 2.3 + np.random.default_rng(1).normal(0, 0.3, 25)
    for seen in (20, 30, 40, 60, 100, 400):
        assert ids(record(values[:seen], budget=400, finished=seen == 400, **TEN)) == []


def test_a_jump_at_a_rate_that_had_been_good_has_another_cause() -> None:
    values = falling()
    values[200:] = 4 * math.log(10)
    steady, risen = np.full(300, 0.1), np.where(np.arange(300) < 198, 0.1, 1.0)
    for rates, found in ((steady, ["diverging-loss"]), (risen, ["learning-rate-too-high", "diverging-loss"])):
        assert ids(record(values, lr=Curve.of(np.arange(1, 301), rates), **TEN)) == found
    values[150:200] = np.linspace(values[150], 2.2, 50)  # no jump: it had been getting worse for long
    assert "learning-rate-too-high" in ids(record(values, lr=Curve.of(np.arange(1, 301), steady), **TEN))


def test_the_rate_is_no_remedy_where_all_was_well_at_it() -> None:
    about = {"recipe": {"optimizer": {"lr": 0.05}}, "budget": 300, **TEN}
    steady = Curve.of(range(1, 301), [0.05] * 300)
    spoiled = np.where(np.arange(300) < 150, falling(), 2.4)  # as labels that were shuffled from there on
    (found,) = DivergingLoss().check(record(spoiled, lr=steady, **about))
    assert found.remedy == {}
    assert "labels first" in found.explanation
    # Near miss: what was lost went step by step.
    slowly = np.where(np.arange(300) < 150, falling(), np.interp(np.arange(300), [150, 290], [0.2, 2.4]))
    (found,) = DivergingLoss().check(record(slowly, lr=steady, **about))
    assert found.remedy == {"optimizer.lr": pytest.approx(0.005)}


def test_one_bad_batch_is_no_blow_up() -> None:
    values = falling()
    values[[20, 150]] = 40
    assert ids(record(values, **TEN)) == []


def test_what_was_learned_and_is_lost_again() -> None:
    values = falling()
    values[200:] = 2.3 + np.random.default_rng(1).normal(0, 0.02, 100)
    found = examine(RULES, record(values, **TEN)).findings
    assert [finding.id for finding in found] == ["learning-rate-too-high", "diverging-loss"]
    assert [finding.evidence["step"] for finding in found] == pytest.approx([201, 201], abs=8)
    values[200:] = 0.6
    assert ids(record(values, **TEN)) == []
    values[200:] = 1.0
    assert ids(record(values, **TEN)) == ["diverging-loss"]


def test_long_steps_are_a_fault_only_where_little_is_learned(layer_series: Callable[..., object]) -> None:
    layers = layer_series(update_ratio=[[0.2, 0.3]], times=20)
    flat = 2.0 + np.random.default_rng(0).normal(0, 0.1, 200)
    assert ids(record(flat, layers=layers, **TEN)) == ["learning-rate-too-high"]
    assert ids(record(falling(), layers=layers, **TEN)) == []
    assert ids(record(flat, layers=layers, finished=False, budget=1000, **TEN)) == []
    assert ids(record(flat, layers=layer_series(update_ratio=[[0.09, 0.09]], times=20), **TEN)) == []


def test_a_loss_that_is_no_number_any_more() -> None:
    values = np.r_[np.linspace(2.3, 1.5, 50), np.full(10, np.nan)]
    (found,) = examine((DivergingLoss(),), record(values, **TEN)).findings
    assert (found.severity, found.evidence["step"], found.evidence["finite"]) == ("error", 51, False)
    values[-1] = 1.5
    assert ids(record(values, **TEN)) == []


def test_short_records_and_odd_ones(odd_records: list[RunRecord]) -> None:
    assert "20 values" in examine(RULES, record([2.3, 9.0], **TEN)).silent["diverging-loss"]
    for odd in odd_records:
        assert [finding for finding in examine(RULES, odd).findings if finding.id == "rule-failed"] == []
