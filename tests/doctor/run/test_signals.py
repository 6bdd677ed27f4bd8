"""What is read of a record, against entropies of scipy and by hand."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from scipy.stats import entropy

from clearsight.doctor.run.record import Curve, LayerSeries, RunRecord
from clearsight.doctor.run.signals import (
    chance_loss,
    chance_score,
    done,
    label_smoothing,
    learning_rate,
    loss_floor,
    score,
    setting,
    starting_loss,
    training_loss,
    training_score,
    update_ratio,
)

FEW = Curve.of([10, 20, 30], [0.1, 0.2, 0.3])


def test_a_guess_costs_the_entropy_of_the_labels() -> None:
    counts = (50, 30, 15, 5)
    known = RunRecord(task="classification", classes=tuple("abcd"), class_counts=counts)
    assert chance_loss(known) == pytest.approx(entropy(counts))
    assert chance_score(known) == 0.5
    assert chance_loss(RunRecord(task="classification", classes=tuple("abcd"))) == pytest.approx(math.log(4))
    assert chance_loss(RunRecord(task="classification", classes=("a", "b"), class_counts=(7, 0))) == 0
    assert chance_loss(RunRecord(task="detection", classes=tuple("abcd"), class_counts=counts)) is None
    assert chance_loss(RunRecord(task="classification", classes=("a",))) is None


def test_smoothed_labels_raise_the_least_loss_and_even_a_guess() -> None:
    counts, shares = (50, 30, 15, 5), np.array([0.5, 0.3, 0.15, 0.05])
    known = RunRecord(task="classification", classes=tuple("abcd"), class_counts=counts)
    assert (label_smoothing(known), loss_floor(known)) == (0, 0)
    smoothed = RunRecord(
        task="classification", class_counts=counts, recipe={"model": {"label_smoothing": 0.4}}, classes=tuple("abcd")
    )
    assert label_smoothing(smoothed) == 0.4
    assert loss_floor(smoothed) == pytest.approx(entropy([0.7, 0.1, 0.1, 0.1]))
    assert chance_loss(smoothed) == pytest.approx(entropy(0.6 * shares + 0.1))
    assert loss_floor(RunRecord(recipe={"model": {"label_smoothing": 0.4}})) == 0


def test_scores_are_fractions_of_the_most_telling_name() -> None:
    percent = Curve.of([10, 20, 30], [10.0, np.nan, 93.0])
    record = RunRecord(val={"loss": FEW, "map_50": FEW, "accuracy": percent}, train={"accuracy": percent})
    name, found = score(record)
    assert name == "accuracy"
    assert found.values.tolist() == [0.1, 0.93]
    assert training_score(record).values.tolist() == [0.1, 0.93]
    measured = RunRecord(val={"accuracy": FEW}, train={"accuracy": percent}, train_in_eval={"accuracy": FEW})
    assert training_score(measured).values.tolist() == FEW.values.tolist()
    assert score(RunRecord(val={"loss": FEW}))[0] == ""


def test_losses_come_by_step_or_by_epoch() -> None:
    epochs = RunRecord(train={"loss": Curve.of([5, 10], [np.nan, 3.0])})
    assert training_loss(epochs) is epochs.train["loss"]
    assert starting_loss(epochs) == 3
    assert math.isnan(starting_loss(RunRecord()))


def test_how_far_a_run_is() -> None:
    assert done(RunRecord(loss=FEW, budget=120)) == 0.25
    assert done(RunRecord(loss=FEW, budget=10)) == 1
    assert done(RunRecord(loss=FEW)) is None
    assert done(RunRecord(loss=FEW, budget=120, finished=True)) == 1


def test_rates_and_settings() -> None:
    given = RunRecord(recipe={"optimizer": {"lr": 0.003, "nesterov": True}}, lr=FEW)
    assert learning_rate(given) == 0.003
    assert setting(given, "optimizer", "nesterov") is None
    assert learning_rate(RunRecord(lr=FEW)) == 0.3
    assert setting(RunRecord(recipe={"optimizer": 3}), "optimizer", "lr") is None


def test_the_update_ratio_is_the_median_of_layers_that_count(layer_series: Callable[..., LayerSeries]) -> None:
    rows = np.array([[0.1, 0.2, 9.0], [np.nan, 0.4, 9.0], [np.nan, np.nan, 9.0]])
    layers = layer_series(update_ratio=rows)
    exempt = LayerSeries(
        names=layers.names, kinds=layers.kinds, activations=layers.activations, exempt=(False, False, True),
        steps=layers.steps, values=layers.values,
    )  # fmt: skip
    found = update_ratio(RunRecord(layers=exempt))
    assert found.steps.tolist() == [10, 20]
    assert found.values.tolist() == pytest.approx([0.15, 0.4])
    assert len(update_ratio(RunRecord(layers=layer_series(grad_norm=rows)))) == 0
    assert len(update_ratio(RunRecord())) == 0
