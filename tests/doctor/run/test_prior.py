"""Stuck at the prior, labels without a tie to images, a second softmax, classes never named."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from clearsight.doctor.rule import examine
from clearsight.doctor.run.prior import ClassNeverPredicted, DoubleSoftmax, LabelsUnrelated, StuckAtPrior
from clearsight.doctor.run.record import Curve, RunRecord

RULES = (StuckAtPrior(), LabelsUnrelated(), DoubleSoftmax(), ClassNeverPredicted())
TEN = {"task": "classification", "classes": tuple("0123456789"), "finished": True}
STEPS = np.arange(1, 301)
FLOOR = math.log(1 + 9 / math.e)


def record(values: np.ndarray, **known: object) -> RunRecord:
    noisy = values + np.random.default_rng(0).normal(0, 0.01, len(values))
    return RunRecord(loss=Curve.of(STEPS[: len(values)], noisy), **{**TEN, **known})  # type: ignore[arg-type]


def evals(values: np.ndarray | float) -> Curve:
    return Curve.of(STEPS[14::15], np.broadcast_to(values, 20))


def ids(known: RunRecord) -> list[str]:
    return [finding.id for finding in examine(RULES, known).findings]


# ------------------------------------------------------------------------------------------------ real trainings
def test_shuffled_labels(digits_run: Callable[..., RunRecord]) -> None:
    run = digits_run(mislabelled=1.0, rate=5e-3, epochs=12, width=128)
    (found,) = examine(RULES, run).findings
    assert (found.id, found.severity) == ("labels-unrelated", "warning")
    assert found.evidence["step"] < 0.7 * run.steps


@pytest.mark.parametrize("optimizer", ["adam", "momentum"])
def test_a_second_softmax_and_the_same_net_without(digits_run: Callable[..., RunRecord], optimizer: str) -> None:
    rate = {"adam": 5e-3, "momentum": 0.2}[optimizer]
    found = examine(RULES, digits_run(softmax=True, optimizer=optimizer, rate=rate)).findings
    assert found[0].id == "double-softmax"
    assert found[0].evidence["floor"] == pytest.approx(1.4612, abs=1e-4)
    assert ids(digits_run(optimizer=optimizer, rate=rate / 4)) == []


def test_dead_from_the_start(digits_run: Callable[..., RunRecord]) -> None:
    run = digits_run(rate=3.0, optimizer="sgd", epochs=8)
    assert [(found.id, found.because) for found in examine(RULES, run).findings] == [
        ("stuck-at-prior", "learning-rate-too-high")
    ]


@pytest.mark.parametrize("settings", [{"smoothing": 0.2}, {"dropout": 0.5}, {"per_class": (10,) * 10, "batch": 10}])
def test_clean_runs_have_none(digits_run: Callable[..., RunRecord], settings: dict[str, float]) -> None:
    assert ids(digits_run(**settings)) == []


# ------------------------------------------------------------------------------------------------ built curves
def test_the_prior_is_the_entropy_of_the_labels() -> None:
    assert ids(record(np.full(300, 2.25))) == ["stuck-at-prior"]
    assert ids(record(np.full(300, 2.1))) == []
    counts = (910, *(10,) * 9)
    # A guess that knows the frequencies costs 0.5, and learning nothing looks like a fall from 2.3.
    fallen = 0.5 + 1.8 * np.exp(-STEPS / 20)
    (found,) = examine(RULES, record(fallen, class_counts=counts)).findings
    assert found.evidence["guess"] == pytest.approx(0.5, abs=0.02)
    assert 60 <= found.evidence["step"] <= 120
    assert ids(record(fallen)) == []


def test_nothing_is_said_before_a_third_or_of_other_tasks() -> None:
    flat = np.full(90, 2.3)
    assert ids(record(flat, finished=False, budget=290)) == ["stuck-at-prior"]
    assert "30%" in examine(RULES, record(flat, finished=False, budget=310)).silent["stuck-at-prior"]
    assert "classification" in examine(RULES, record(flat, task="detection")).silent["stuck-at-prior"]


def test_a_plateau_that_ends_is_not_stuck() -> None:
    assert ids(record(0.1 + 2.2 / (1 + np.exp((STEPS - 220) / 12)))) == []


def test_learning_by_heart_shows_on_other_images_only() -> None:
    memorised = np.linspace(2.3, 0.5, 300)
    guessing = {"loss": evals(np.linspace(2.3, 4, 20)), "accuracy": evals(0.11)}
    assert ids(record(memorised, val=guessing)) == ["labels-unrelated"]
    assert ids(record(memorised, val={**guessing, "accuracy": evals(0.16)})) == []
    assert ids(record(memorised, val={**guessing, "loss": evals(np.linspace(2.3, 0.8, 20))})) == []


def test_validation_is_blind_until_norms_have_followed() -> None:
    early = {"accuracy": Curve.of([20, 30, 40, 50], [0.1] * 4), "loss": Curve.of([20, 30, 40, 50], [2.4] * 4)}
    assert "60 steps" in examine(RULES, record(np.linspace(2.3, 0.5, 50), val=early)).silent["labels-unrelated"]


def test_uneven_classes_do_not_make_a_guess_of_what_is_known() -> None:
    memorised, counts = np.linspace(1.8, 0.5, 300), (400, *(50,) * 9)
    scores = {"loss": evals(np.linspace(2.3, 4, 20)), "accuracy": evals(0.28)}
    blind = {str(digit): evals(1.0 if digit == 0 else 0.0) for digit in range(10)}
    partly = {str(digit): evals(0.28) for digit in range(10)}
    assert ids(record(memorised, val=scores, class_counts=counts, class_scores=blind))[0] == "labels-unrelated"
    assert ids(record(memorised, val=scores, class_counts=counts, class_scores=partly)) == []


def test_without_learning_by_heart_labels_are_not_blamed() -> None:
    memorised = np.linspace(2.3, 0.5, 300)
    guessing = {"loss": evals(np.linspace(2.3, 4, 20)), "accuracy": evals(0.11)}
    assert ids(record(memorised, val=guessing, train={"accuracy": evals(0.3)})) == ["labels-unrelated"]
    assert ids(record(memorised, val=guessing, train={"accuracy": evals(0.13)})) == []


def test_the_floor_of_smoothed_labels_is_near_a_guess() -> None:
    # Of nine tenths smoothing, 2.303 is a guess and 2.266 the least there is.
    recipe = {"model": {"label_smoothing": 0.9}}

    def smoothed(end: float, right: float) -> list[str]:
        curve = Curve.of(STEPS, end + 0.05 * np.exp(-STEPS / 30))
        return ids(RunRecord(loss=curve, recipe=recipe, train={"accuracy": evals(right)}, val={}, **TEN))  # type: ignore[arg-type]

    assert smoothed(2.272, 0.1) == []
    assert smoothed(2.302, 0.1) == ["stuck-at-prior"]


def test_a_model_that_is_often_right_is_not_stuck() -> None:
    def scored(right: float) -> list[str]:
        both = {"accuracy": evals(right)}
        return ids(record(np.full(300, 2.25), train=both, val=both))

    assert scored(0.6) == []
    assert scored(0.5) == ["stuck-at-prior"]


@pytest.mark.parametrize(
    ("end", "accuracy", "found"),
    [
        (FLOOR + 0.06, 0.96, ["double-softmax"]),
        (FLOOR + 0.3, 0.70, []),
        (FLOOR + 0.12, 0.85, ["double-softmax"]),
        (FLOOR + 0.2, 0.96, []),
        (FLOOR - 0.2, 0.96, []),
        (FLOOR + 0.06, 0.4, []),
    ],
)
def test_the_floor_of_two_softmaxes(end: float, accuracy: float, found: list[str]) -> None:
    course = end + (2.303 - end) * np.exp(-STEPS / 30)
    val = {"loss": evals(end + 0.01), "accuracy": evals(accuracy)}
    assert ids(record(course, val=val)) == found


def test_a_falling_loss_only_passes_the_floor() -> None:
    course = 2.3 - STEPS * (0.8 / 300)
    val = {"loss": evals(np.linspace(2.3, 1.5, 20)), "accuracy": evals(np.linspace(0.1, 0.96, 20))}
    assert ids(record(course, val=val)) == []


def test_a_class_that_is_never_named() -> None:
    course = 0.1 + 2.2 * np.exp(-STEPS / 30)
    good = {str(digit): evals(0.9) for digit in range(9)}
    lost = evals(np.r_[np.full(8, 0.2), np.zeros(12)])
    (found,) = examine(RULES, record(course, class_scores={**good, "9": lost})).findings
    assert (found.id, found.evidence["classes"], found.evidence["step"]) == ("class-never-predicted", ["9"], 135)
    assert found.because == ""
    rare = record(course, class_scores={**good, "9": lost}, class_counts=(*(100,) * 9, 2))
    assert [finding.because for finding in examine(RULES, rare).findings] == ["class-imbalance"]
    seldom = evals(np.r_[np.zeros(17), 0.01, 0, 0])
    assert ids(record(course, class_scores={**good, "9": seldom})) == []
    assert ids(record(course, class_scores={**good, "9": evals(math.nan)})) == []


def test_odd_records(odd_records: list[RunRecord], digits_run: Callable[..., RunRecord]) -> None:
    for odd in [*odd_records, replace(digits_run(epochs=1), val={}, class_scores={})]:
        assert [finding for finding in examine(RULES, odd).findings if finding.id == "rule-failed"] == []
