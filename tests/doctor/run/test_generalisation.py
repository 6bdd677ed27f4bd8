"""Over-fitting against natural gaps, regularisation beyond use, rare classes left behind."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from clearsight.doctor.rule import examine
from clearsight.doctor.run.generalisation import ClassImbalance, Overfitting, OverRegularised
from clearsight.doctor.run.record import Curve, LayerSeries, RunRecord

RULES = (ClassImbalance(), Overfitting(), OverRegularised())
STEPS = np.arange(1, 401)
AT = STEPS[9::10]
TEN = {"task": "classification", "classes": tuple("0123456789"), "finished": True}


def evals(values: np.ndarray | float) -> Curve:
    noisy = np.broadcast_to(values, 40) + np.random.default_rng(1).normal(0, 0.002, 40)
    return Curve.of(AT, noisy)


def record(end: float = 0.01, **known: object) -> RunRecord:
    noisy = end + (2.3 - end) * np.exp(-STEPS / 80) + np.random.default_rng(0).normal(0, 0.005, 400)
    return RunRecord(loss=Curve.of(STEPS, noisy), **{**TEN, **known})  # type: ignore[arg-type]


def found(known: RunRecord) -> list[tuple[str, str]]:
    return [(finding.id, finding.severity) for finding in examine(RULES, known).findings]


def rising(end: float) -> np.ndarray:
    """Falls to 0.5 at the tenth evaluation, then rises to `end`."""
    return np.interp(np.arange(40), [0, 10, 39], [2.0, 0.5, end])


# ------------------------------------------------------------------------------------------------ over-fitting
def test_wrong_labels_learned_by_heart(digits_run: Callable[..., RunRecord]) -> None:
    run = digits_run(per_class=(15,) * 10, batch=16, epochs=50, mislabelled=0.4)
    (only,) = examine(RULES, run).findings
    assert (only.id, only.severity, only.remedy) == ("overfitting", "warning", {"trainer.early_stop.patience": 5})
    assert only.evidence["minimum_step"] < only.evidence["step"] < 0.7 * run.steps
    assert only.evidence["score_lost"] >= 0.03


@pytest.mark.parametrize(
    "settings",
    [{"epochs": 30}, {"per_class": (20,) * 10, "dropout": 0.3, "epochs": 30}, {"dropout": 0.6}],
    ids=["long", "small-data", "strong-dropout"],
)
def test_clean_runs_have_none(digits_run: Callable[..., RunRecord], settings: dict[str, float]) -> None:
    run = digits_run(**settings)
    assert "warning" not in dict(found(run)).values()
    alone = replace(run, val={"loss": run.val["loss"]}, train={}, class_scores={}, task=None)
    assert "warning" not in dict(found(alone)).values()


def test_a_rise_is_sure_where_it_costs_score() -> None:
    def rise(end: float, val: np.ndarray | float, train: float) -> list[tuple[str, str]]:
        scores = {"loss": evals(rising(end)), "accuracy": evals(val)}
        return found(record(val=scores, train={"accuracy": evals(train)}))

    assert rise(0.7, 0.80, 1.0) == [("overfitting", "info")]
    assert rise(0.53, 0.80, 1.0) == []
    assert rise(0.7, np.linspace(0.97, 0.90, 40), 1.0) == [("overfitting", "warning")]
    assert rise(0.7, np.linspace(0.97, 0.95, 40), 1.0) == [("overfitting", "info")]
    assert rise(0.7, np.linspace(0.60, 0.80, 40), 1.0) == [("overfitting", "info")]
    # Scores that are uncertain by five points have not lost four.
    swings = np.linspace(0.90, 0.86, 40) + np.random.default_rng(2).normal(0, 0.05, 40)
    assert rise(0.7, swings, 1.0) == [("overfitting", "info")]


def test_nothing_is_said_of_the_first_third() -> None:
    scores = {"loss": evals(rising(0.9)), "accuracy": evals(np.linspace(0.97, 0.90, 40))}
    early = replace(record(val=scores, train={"accuracy": evals(1.0)}), finished=False, budget=1400)
    assert "30%" in examine(RULES, early).silent["overfitting"]
    assert found(replace(early, budget=1300)) == [("overfitting", "warning")]


def test_where_no_score_is_known_the_rise_must_be_large() -> None:
    assert found(record(val={"loss": evals(rising(1.2))})) == [("overfitting", "warning")]
    assert found(record(val={"loss": evals(rising(0.9))})) == [("overfitting", "info")]


def test_a_gap_without_a_rise_is_natural() -> None:
    gap = {"loss": evals(0.5 + 1.5 * np.exp(-np.arange(40) / 5)), "accuracy": evals(0.7)}
    assert found(record(val=gap, train={"accuracy": evals(1.0)})) == []


def test_swings_and_late_rises_are_none() -> None:
    swings = np.where(np.arange(40) % 4 < 2, 0.5, 0.62) + 1.5 * np.exp(-np.arange(40) / 5)
    assert found(record(val={"loss": Curve.of(AT, swings)})) == []
    late = np.interp(np.arange(40), [0, 36, 39], [2.0, 0.5, 1.5])
    assert found(record(val={"loss": evals(late)})) == []


def test_both_losses_rising_is_no_overfitting() -> None:
    run = record(val={"loss": evals(rising(1.5))})
    grown = np.interp(STEPS, [1, 100, 400], [2.3, 0.4, 1.4])
    assert found(replace(run, loss=Curve.of(STEPS, grown))) == []


# ------------------------------------------------------------------------------------------------ over-regularised
def test_dropout_of_nine_in_ten(digits_run: Callable[..., RunRecord]) -> None:
    run = replace(digits_run(dropout=0.9), recipe={"model": {"dropout": 0.9}})
    (only,) = (finding for finding in examine(RULES, run).findings if finding.id == "over-regularised")
    assert (only.severity, only.remedy) == ("warning", {"model.dropout": 0.09})


def test_a_score_in_training_far_below_that_in_evaluation() -> None:
    def scores(val: float, train: float) -> dict[str, object]:
        return {"val": {"accuracy": evals(val)}, "train": {"accuracy": evals(train)}}

    assert found(record(1.9, **scores(0.7, 0.55))) == [("over-regularised", "warning")]
    assert found(record(1.5, **scores(0.7, 0.55))) == []
    assert found(record(1.5, **scores(0.7, 0.40))) == [("over-regularised", "warning")]
    assert found(record(1.9, **scores(0.7, 0.65))) == []
    assert found(record(1.9, **scores(0.95, 0.5))) == []
    assert found(record(0.2, **scores(0.7, 0.40))) == []
    # At a guess, a gap is that of few images.
    assert found(record(2.2, **scores(0.18, 0.05))) == []


def test_images_learned_and_then_lost_have_another_cause() -> None:
    lost = np.where(np.arange(40) < 16, 0.9, 0.45)
    scores = {"val": {"accuracy": evals(0.7)}, "train": {"accuracy": evals(lost)}}
    assert found(record(1.9, **scores)) == []


def test_what_the_recipe_rules_out_is_worth_knowing_only() -> None:
    scores = {"val": {"accuracy": evals(0.7)}, "train": {"accuracy": evals(0.4)}}
    without = record(1.9, **scores, recipe={"model": {"dropout": 0.0, "label_smoothing": 0.0}})
    assert found(without) == [("over-regularised", "info")]
    (only,) = examine(RULES, replace(without, recipe={"model": {"dropout": 0.8}})).findings
    assert (only.severity, only.remedy) == ("warning", {"model.dropout": 0.08})


def test_labels_smoothed_until_nothing_is_left() -> None:
    def smoothed(smoothing: float, share: float, val: float) -> list[tuple[str, str]]:
        run = record(val={"accuracy": evals(val)}, train={"accuracy": evals(val)})
        labels = np.r_[1 - 0.9 * smoothing, np.full(9, 0.1 * smoothing)]
        floor = float(-(labels * np.log(labels)).sum())
        loss = Curve.of(STEPS, floor + (np.log(10) - floor) * np.linspace(1.1, share, 400))
        return found(replace(run, loss=loss, recipe={"model": {"label_smoothing": smoothing}}))

    assert smoothed(0.98, 0.5, 0.8) == [("over-regularised", "warning")]
    assert smoothed(0.9, 0.7, 0.8) == [("over-regularised", "warning")]
    assert smoothed(0.9, 0.36, 0.84) == []
    assert smoothed(0.98, 0.5, 0.95) == []
    assert smoothed(0.1, 0.5, 0.8) == []


def test_dropout_that_leaves_a_guess() -> None:
    stuck = record(2.3, val={"accuracy": evals(0.14)}, train={"accuracy": evals(0.11)})
    assert found(replace(stuck, recipe={"model": {"dropout": 0.97}})) == [("over-regularised", "warning")]
    assert found(replace(stuck, recipe={"model": {"dropout": 0.5}})) == []


def test_weights_decayed_away(layer_series: Callable[..., LayerSeries]) -> None:
    def decayed(end: float) -> RunRecord:
        norms = np.linspace(5, 5 * end, 40)[:, None].repeat(3, 1)
        recipe = {"optimizer": {"weight_decay": 2.0}}
        return record(1.9, val={"accuracy": evals(0.5)}, layers=layer_series(weight_norm=norms), recipe=recipe)

    (only,) = examine(RULES, decayed(0.1)).findings
    assert (only.id, only.remedy) == ("over-regularised", {"optimizer.weight_decay": 1e-4})
    assert found(decayed(0.3)) == []


def test_weights_that_no_decay_of_the_recipe_explains(layer_series: Callable[..., LayerSeries]) -> None:
    norms = np.linspace(5, 0.5, 40)[:, None].repeat(3, 1)
    run = record(1.9, val={"accuracy": evals(0.5)}, layers=layer_series(weight_norm=norms))
    rates = Curve.of(run.loss.steps, np.full(len(run.loss), 0.05))
    # Over 400 steps of 0.05, with a momentum of 0.9, a decay of 0.0035 halves weights.
    for decay, expected in ((1e-4, []), (1e-2, [("over-regularised", "warning")])):
        recipe = {"optimizer": {"name": "sgd", "momentum": 0.9, "weight_decay": decay}}
        assert found(replace(run, lr=rates, recipe=recipe)) == expected


# ------------------------------------------------------------------------------------------------ imbalance
def test_rare_digits_are_left_behind(digits_run: Callable[..., RunRecord]) -> None:
    run = digits_run(per_class=(*(100,) * 8, 1, 2), epochs=8)
    first = examine(RULES, run).findings[0]
    assert (first.id, first.severity) == ("class-imbalance", "warning")
    assert set(first.evidence["classes"]) == {"8", "9"}
    assert first.evidence["labels"] == {"8": 1, "9": 2}


@pytest.mark.parametrize(
    ("count", "reached", "expected"), [(9, 0.3, True), (10, 0.3, False), (9, 0.5, False), (9, float("nan"), False)]
)
def test_imbalance_counts_where_it_costs(count: int, reached: float, *, expected: bool) -> None:
    scores = {str(digit): evals(0.9) for digit in range(9)} | {"9": evals(reached)}
    run = record(class_counts=(*(100,) * 9, count), class_scores=scores)
    assert (("class-imbalance", "warning") in found(run)) is expected


def test_odd_records(odd_records: list[RunRecord]) -> None:
    few = RunRecord(loss=Curve.of(STEPS, 2.3 / STEPS), val={"loss": Curve.of([1, 2], [1.0, 2.0])})
    assert "there are 2" in examine(RULES, few).silent["overfitting"]
    for odd in odd_records:
        assert [finding for finding in examine(RULES, odd).findings if finding.id == "rule-failed"] == []
