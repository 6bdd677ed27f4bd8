"""Rates too low, runs too short, models too small: in real trainings, near misses, and not in clean runs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from clearsight.doctor.rule import examine
from clearsight.doctor.run.record import Curve, LayerSeries, RunRecord
from clearsight.doctor.run.slow import LearningRateTooLow, NotConverged, Underfitting
from clearsight.types import Finding

RULES = (LearningRateTooLow(), NotConverged(), Underfitting())
STEPS = np.arange(1, 401)


def record(values: np.ndarray, **known: object) -> RunRecord:
    noisy = values + np.random.default_rng(0).normal(0, 0.01, len(values))
    return RunRecord(loss=Curve.of(STEPS[: len(values)], noisy), **{"finished": True, **known})  # type: ignore[arg-type]


def found(known: RunRecord) -> list[tuple[str, str]]:
    return [(finding.id, finding.severity) for finding in examine(RULES, known).findings]


def test_a_rate_a_thousand_times_too_low(digits_run: Callable[..., RunRecord]) -> None:
    run = digits_run(rate=2e-6, epochs=6)
    first: Finding = examine(RULES, run).findings[0]
    assert (first.id, first.severity) == ("learning-rate-too-low", "warning")
    assert first.remedy == {"optimizer.lr": 2e-5}
    early = replace(run, loss=run.loss.between(0, 0.4 * run.steps), val={}, train={}, finished=False)
    assert found(early) == [("learning-rate-too-low", "warning")]
    sooner = replace(run, loss=run.loss.between(0, 0.25 * run.steps), val={}, train={}, layers=None, finished=False)
    assert "24% is done" in examine(RULES, sooner).silent["learning-rate-too-low"]


def test_a_net_that_was_trained_before_has_little_left_to_win(layer_series: Callable[..., LayerSeries]) -> None:
    layers = layer_series(update_ratio=[[2e-4, 3e-4]], times=20)
    ten = {"task": "classification", "classes": tuple("0123456789"), "layers": layers}
    for start, expected in ((2.3, True), (0.2, False)):
        values = np.linspace(start, 0.9 * start, 400)
        assert ("learning-rate-too-low" in dict(found(record(values, **ten)))) == expected


def test_a_run_cut_short_wants_more_epochs(digits_run: Callable[..., RunRecord]) -> None:
    (only,) = examine(RULES, digits_run(epochs=3, rate=5e-4)).findings
    assert (only.id, only.severity, only.remedy) == ("not-converged", "warning", {"trainer.epochs": 6})
    assert only.evidence["step"] == 33


def test_a_net_of_two_units_underfits(digits_run: Callable[..., RunRecord]) -> None:
    run = digits_run(width=2, rate=0.02, epochs=24)
    assert ("underfitting", "warning") in found(run)


@pytest.mark.parametrize(
    "settings",
    [{}, {"optimizer": "momentum", "rate": 0.05}, {"dropout": 0.4}, {"smoothing": 0.2}, {"per_class": (12,) * 10}],
    ids=["adam", "momentum", "dropout", "smoothing", "small-data"],
)
def test_clean_runs_have_none(digits_run: Callable[..., RunRecord], settings: dict[str, float]) -> None:
    run = digits_run(**{"epochs": 20, **settings})
    assert [finding for finding in examine(RULES, run).findings if finding.severity == "warning"] == []


def test_an_even_fall_is_sure_only_at_the_end() -> None:
    even = 2.3 - STEPS * 1e-3
    assert ("learning-rate-too-low", "warning") in found(record(even))
    assert found(record(even[:200], finished=False, budget=400)) == [("learning-rate-too-low", "info")]
    # Near misses: it has won more, or slows down.
    assert "learning-rate-too-low" not in dict(found(record(2.3 - STEPS * 1.9e-3)))
    assert "learning-rate-too-low" not in dict(found(record(1.9 + 0.4 * np.exp(-STEPS / 100))))


def test_a_plateau_before_a_drop_is_clean_at_every_moment(layer_series: Callable[..., LayerSeries]) -> None:
    values = 0.1 + 2.2 / (1 + np.exp((STEPS - 200) / 12))
    layers = layer_series(update_ratio=[[2e-3, 4e-3]], times=40)
    for end in (130, 180, 200, 230, 300, 400):
        severities = [severity for _, severity in found(record(values[:end], budget=400, finished=end == 400))]
        assert "warning" not in severities
        measured = record(values[:end], budget=400, finished=end == 400, layers=layers)
        assert "warning" not in [severity for _, severity in found(measured)]


def test_a_validation_loss_that_does_not_follow_is_no_matter_of_the_rate() -> None:
    even, at = 2.3 - STEPS * 1e-3, STEPS[19::20]
    follows = {"loss": Curve.of(at, 2.35 - at * 1e-3)}
    stays = {"loss": Curve.of(at, np.full(20, 2.35) + np.random.default_rng(1).normal(0, 0.01, 20))}
    assert "learning-rate-too-low" in dict(found(record(even, val=follows)))
    assert "learning-rate-too-low" not in dict(found(record(even, val=stays)))


def test_what_was_gained_at_the_end_decides() -> None:
    # Of 1.5 lost in all, the last quarter loses 0.2 (13 %) or 0.06 (4 %).
    for gained, expected in ((0.2, "warning"), (0.06, None)):
        course = np.interp(STEPS, [1, 100, 300, 400], [2.3, 1.2, 0.8 + gained, 0.8])
        assert dict(found(record(course))).get("not-converged") == expected
    assert dict(found(record(np.interp(STEPS, [1, 100, 300, 400], [2.3, 0.6, 0.3, 0.1])))) == {"not-converged": "info"}


def test_flat_and_high_with_a_low_score_is_underfitting() -> None:
    flat = 1.2 + 1.1 * np.exp(-STEPS / 30)
    at, ten = STEPS[19::20], {"task": "classification", "classes": tuple("0123456789")}

    def scored(value: float) -> dict[str, object]:
        curve = {"accuracy": Curve.of(at, np.full(20, value))}
        return {"train": curve, "val": curve, **ten}

    assert found(record(flat, **scored(0.5))) == [("underfitting", "warning")]
    assert found(record(flat, **scored(0.78))) == []
    assert found(record(flat, **scored(0.12))) == []
    assert found(record(flat)) == [("underfitting", "info")]
    assert found(record(flat - 0.9, **scored(0.5))) == []


def test_a_loss_that_hardly_falls_at_the_end_is_flat_once_the_run_is_over() -> None:
    at, ten = STEPS[19::20], {"task": "classification", "classes": tuple("0123456789"), "budget": 400}
    train, val = (Curve.of(at, np.full(20, value)) for value in (0.5, 0.4))
    scores = {"train": {"accuracy": train}, "val": {"accuracy": val}}
    # Over the last two fifths it falls by 0.13 of the start, over the last quarter by 0.04, or by 0.08.
    slow = np.interp(STEPS, [1, 240, 300, 400], [2.3, 1.2, 1.0, 0.9])
    assert found(record(slow, **scores, **ten)) == [("underfitting", "warning")]
    assert found(record(slow, **scores, **ten, finished=False)) == []
    still = np.interp(STEPS, [1, 240, 300, 400], [2.3, 1.2, 1.0, 0.8])
    assert "underfitting" not in dict(found(record(still, **scores, **ten)))
    rising = {**scores, "val": {"accuracy": Curve.of(at, np.linspace(0.2, 0.5, 20))}}
    assert "underfitting" not in dict(found(record(slow, **rising, **ten)))


def test_steps_measured_to_be_short_are_told_where_much_is_left(layer_series: Callable[..., LayerSeries]) -> None:
    def ended(low: float, update: float, *, finished: bool = True) -> dict[str, str]:
        values = low + (2.3 - low) * np.exp(-STEPS / 120)
        layers = layer_series(update_ratio=[[update, update]], times=40)
        return dict(found(record(values, layers=layers, finished=finished, budget=400)))

    assert ended(0.9, 3e-4)["learning-rate-too-low"] == "warning"
    assert "learning-rate-too-low" not in ended(0.9, 3e-4, finished=False)
    assert "learning-rate-too-low" not in ended(0.9, 3e-3)
    assert "learning-rate-too-low" not in ended(0.2, 3e-4)


def test_smoothed_labels_leave_little_to_fall(layer_series: Callable[..., LayerSeries]) -> None:
    # Of nine tenths smoothing, 2.303 is a guess and 2.266 the least there is.
    ten = {"task": "classification", "classes": tuple("0123456789")}
    loss = Curve.of(STEPS, 2.272 + 0.05 * np.exp(-STEPS / 60))
    layers = layer_series(update_ratio=[[3e-4, 3e-4]], times=40)
    known = RunRecord(loss=loss, finished=True, layers=layers, **ten)  # type: ignore[arg-type]
    assert found(known) == [("learning-rate-too-low", "warning")]
    assert found(replace(known, recipe={"model": {"label_smoothing": 0.9}})) == []


def test_a_short_run_that_still_rises_is_told_although_its_rate_has_fallen() -> None:
    short, at = STEPS[:160], np.arange(8, 161, 8)

    def ended(low: float, rise: float) -> dict[str, str]:
        course = low + (2.3 - low) * (1 - (short / 160) ** 1.5) ** 2.5
        score = np.interp(at, [8, 80, 160], [0.1, 0.4, 0.4 + rise])
        return dict(found(record(course, val={"accuracy": Curve.of(at, score)})))

    assert ended(1.3, 0.15) == {"not-converged": "warning"}
    assert "warning" not in ended(1.3, 0.03).values()
    assert "warning" not in ended(0.3, 0.15).values()


def test_a_run_of_few_steps_that_is_not_done_is_too_short() -> None:
    ten = {"task": "classification", "classes": tuple("0123456789"), "recipe": {"trainer": {"epochs": 2}}}

    def ended(low: float, steps: int = 60, start: float = 2.3) -> list[Finding]:
        course = record(low + (start - low) * np.exp(-np.arange(steps) / (steps / 10)), **ten)  # flat long before
        return [one for one in examine([NotConverged()], course).findings if one.severity == "warning"]

    (only,) = ended(1.2)
    assert (only.evidence["step"], only.remedy) == (60, {"trainer.epochs": 4})
    # Near misses: it has learned, there were more steps, it has not learned at all, it had been trained before.
    assert ended(0.6) == ended(1.2, steps=120) == ended(2.28) == ended(0.5, start=1.0) == []


def test_records_that_cannot_be_judged(odd_records: list[RunRecord]) -> None:
    assert "planned number of steps" in examine(RULES, record(2.3 - STEPS * 1e-3, finished=False)).silent[RULES[0].id]
    for odd in odd_records:
        assert [finding for finding in examine(RULES, odd).findings if finding.id == "rule-failed"] == []
