"""Dead and saturated units: counted in real nets, and near misses."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn

from clearsight.doctor.run.record import Curve, LayerSeries, RunRecord
from clearsight.doctor.run.units import DeadUnits, SaturatedUnits

Build = Callable[..., LayerSeries]


def inactive_share(bias: float) -> float:
    """Units of a real layer that no digit wakes, with biases lowered by so much."""
    torch.manual_seed(0)
    digits = torch.tensor(load_digits().data, dtype=torch.float32) / 16
    line = nn.Linear(64, 100)
    line.bias.data -= bias
    return float((line(digits).amax(dim=0) <= 0).float().mean())


def test_units_of_a_real_layer_that_biases_have_put_to_sleep(layer_series: Build) -> None:
    share = inactive_share(0.8)
    assert share > 0.5
    found = list(DeadUnits().check(RunRecord(layers=layer_series(inactive=[0.05, share], activation="relu"))))
    assert [(one.severity, one.where) for one in found] == [("warning", "l1")]
    assert found[0].evidence["share"] == pytest.approx(share)
    assert found[0].evidence["step"] == 10


def test_a_real_healthy_layer_is_quiet(layer_series: Build) -> None:
    share = inactive_share(0.0)
    assert share < 0.14
    assert not list(DeadUnits().check(RunRecord(layers=layer_series(inactive=[share, share]))))


@pytest.mark.parametrize(
    ("share", "low", "severities"),
    [
        (0.29, 2.0, []),
        (0.31, 2.0, ["info"]),
        (0.49, 2.0, ["info"]),
        (0.51, 2.0, ["warning"]),
        (0.51, 1.0, ["info"]),
        (0.79, 1.0, ["info"]),
        (0.81, 1.0, ["warning"]),
    ],
)
def test_bounds_of_dead_units(layer_series: Build, share: float, low: float, severities: list[str]) -> None:
    """Half of the units may be spared where the loss falls."""
    loss = Curve.of(np.arange(1, 61), np.linspace(2.3, low, 60))
    found = DeadUnits().check(RunRecord(loss=loss, layers=layer_series(inactive=[share, 0.0])))
    assert [one.severity for one in found] == severities


def test_what_half_of_the_units_cost_is_seen_later(layer_series: Build) -> None:
    loss = Curve.of(np.arange(1, 61), np.full(60, 2.3))
    known = RunRecord(loss=loss, layers=layer_series(inactive=[0.6, 0.0]), budget=190)
    assert not list(DeadUnits().check(known))
    assert [one.severity for one in DeadUnits().check(replace(known, budget=170))] == ["warning"]


def test_one_measurement_is_not_enough_and_units_may_wake(layer_series: Build) -> None:
    assert not list(DeadUnits().check(RunRecord(layers=layer_series(inactive=[0.9], times=1))))
    assert not list(DeadUnits().check(RunRecord(layers=layer_series(inactive=[[0.9], [0.9], [0.1], [0.9]]))))


def test_death_in_the_middle_of_a_run_has_its_step(layer_series: Build) -> None:
    rows = np.array([[0.0, 0.1], [0.0, 0.1], [0.0, 0.7], [np.nan, np.nan], [0.0, 0.8]])
    found = list(DeadUnits().check(RunRecord(layers=layer_series(inactive=rows), recipe={"optimizer": {"lr": 0.3}})))
    assert found[0].evidence["step"] == 30
    assert found[0].remedy == {"optimizer.lr": 0.1}


def test_saturation_is_grave_where_it_is_general(layer_series: Build) -> None:
    most = list(SaturatedUnits().check(RunRecord(layers=layer_series(saturated=[0.8, 0.6, 0.1], activation="tanh"))))
    assert [(one.severity, one.where) for one in most] == [("warning", "l0")]
    assert "tanh" in most[0].explanation
    gate = SaturatedUnits().check(RunRecord(layers=layer_series(saturated=[0.1, 0.9, 0.2, np.nan])))
    assert [one.severity for one in gate] == ["info"]


@pytest.mark.parametrize("share", [0.0, 0.49])
def test_sound_sigmoids_are_quiet(layer_series: Build, share: float) -> None:
    assert not list(SaturatedUnits().check(RunRecord(layers=layer_series(saturated=[share, share]))))


def test_saturation_must_last(layer_series: Build) -> None:
    rows = [[0.9, 0.9], [0.9, 0.9], [0.1, 0.1], [0.9, 0.9], [0.9, 0.9]]
    assert not list(SaturatedUnits().check(RunRecord(layers=layer_series(saturated=rows))))


def test_what_is_lacking_is_said(layer_series: Build) -> None:
    record = RunRecord(layers=layer_series(grad_norm=[1.0]))
    assert DeadUnits().lacks(record)
    assert SaturatedUnits().lacks(record)
    assert DeadUnits().lacks(RunRecord())
