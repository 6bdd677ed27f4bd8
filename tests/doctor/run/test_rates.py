"""Rates told from first steps: by hand, and in trainings with rates that are wrong by a known factor."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from clearsight.doctor.run.rates import HEALTHY, HEALTHY_ADAM, faster, slower, times
from clearsight.doctor.run.record import EMPTY, Curve, RunRecord
from clearsight.doctor.watch import Watch

RECIPE = {"optimizer": {"lr": 0.2}}


@pytest.fixture
def record(layer_series: Callable[..., object]) -> RunRecord:
    """A first step of 0.02, at half of the highest rate."""
    layers = replace(layer_series(update_ratio=[[0.02, 0.02, 0.02]] * 3), steps=np.array([1, 2, 4]))
    lr = Curve.of([1, 2, 3, 4], [0.1, 0.2, 0.2, 0.2])
    return RunRecord(layers=layers, lr=lr, recipe=RECIPE)


def test_a_first_step_is_what_it_would_be_at_the_full_rate(record: RunRecord) -> None:
    assert times(record) == pytest.approx(HEALTHY / 0.04)
    assert slower(record) == {"optimizer.lr": pytest.approx(0.02)}


def test_first_steps_of_adam_are_longer(record: RunRecord) -> None:
    adam = replace(record, recipe={"optimizer": {"name": "adamw", "lr": 0.2}})
    assert times(adam) == pytest.approx(HEALTHY_ADAM / 0.04)


def test_a_rate_that_the_recipe_does_not_set_is_not_patched(record: RunRecord) -> None:
    jumped = replace(record, lr=Curve.of([1, 2, 3, 4], [0.1, 0.2, 0.2, 6.0]))
    assert slower(jumped) == {}
    assert slower(replace(record, lr=Curve.of([1, 2, 3, 4], [0.1, 0.2, 0.2, 0.4]))) != {}  # such as of a large batch


def test_remedies_go_the_way_they_are_asked_to(record: RunRecord) -> None:
    assert faster(record) == {"optimizer.lr": pytest.approx(0.67)}
    assert slower(record, 1e-3) == {"optimizer.lr": pytest.approx(6e-4)}


def test_without_a_first_step_the_factor_is_the_usual_one(record: RunRecord) -> None:
    for unknown in (replace(record, layers=None), replace(record, lr=EMPTY)):
        assert times(unknown) is None
        assert slower(unknown) == {"optimizer.lr": pytest.approx(0.02)}
        assert faster(unknown) == {"optimizer.lr": pytest.approx(2.0)}
    late = replace(record, layers=replace(record.layers, steps=np.array([50, 100, 150])))
    assert times(late) is None
    still = replace(record, layers=replace(record.layers, values={"update_ratio": np.zeros((3, 3))}))
    assert times(still) is None


def test_a_rate_that_fell_too_early_asks_for_another_schedule(record: RunRecord) -> None:
    fallen = replace(record, budget=100, lr=Curve.of(range(1, 61), [0.2] * 10 + [0.001] * 50))
    recipe = {**RECIPE, "schedule": {"name": "step"}}
    assert faster(replace(fallen, recipe=recipe)) == {"schedule.name": "cosine"}
    assert "optimizer.lr" in faster(fallen)
    later = replace(fallen, recipe=recipe, lr=Curve.of(range(1, 61), [0.2] * 50 + [0.001] * 10))
    assert "optimizer.lr" in faster(later)


def test_a_run_without_a_recipe_has_no_patch(record: RunRecord) -> None:
    assert slower(replace(record, recipe={})) == faster(replace(record, recipe={})) == {}


def test_odd_records_give_a_number_or_none(odd_records: list[RunRecord]) -> None:
    for odd in odd_records:
        factor = times(odd)
        assert factor is None or 1e-4 <= factor <= 1e4


@pytest.mark.parametrize("wrong", [100.0, 1e-3])
def test_a_wrong_rate_is_mended_within_a_factor_of_five(digits: tuple[Tensor, Tensor], wrong: float) -> None:
    images, labels = digits
    net = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
    optimizer = torch.optim.SGD(net.parameters(), 0.05 * wrong, momentum=0.9)
    about = RunRecord(recipe={"optimizer": {"lr": 0.05 * wrong}})
    with Watch(net, optimizer, about=about, rules=()) as watch:
        for start in range(0, 320, 40):
            loss = nn.functional.cross_entropy(net(images[start : start + 40]), labels[start : start + 40])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            watch.step(loss)
    (patched,) = (slower if wrong > 1 else faster)(watch.record()).values()
    assert 0.01 <= float(patched) <= 0.25
