"""Gradients that vanish, explode, are clipped: built series, a real deep net of sigmoids, healthy ones beside them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from clearsight.doctor.run.gradients import ClippedSteps, ExplodingGradient, VanishingGradient
from clearsight.doctor.run.record import Curve, LayerSeries, RunRecord

Build = Callable[..., LayerSeries]
STEPS = np.arange(1, 101)
FLAT = Curve.of(STEPS, np.full(100, 2.3))
FALLING = Curve.of(STEPS, 2.3 * 0.97**STEPS)


def profile(net: nn.Sequential, seed: int = 0) -> list[float]:
    """Gradient norm of each linear layer after one backward pass on random digits."""
    torch.manual_seed(seed)
    nn.functional.cross_entropy(net(torch.rand(64, 64)), torch.randint(0, 10, (64,))).backward()
    return [float(layer.weight.grad.norm()) for layer in net if isinstance(layer, nn.Linear)]  # pyright: ignore


def deep(activation: Callable[[], nn.Module]) -> nn.Sequential:
    """Twelve layers."""
    torch.manual_seed(1)
    layers: list[nn.Module] = []
    for number in range(12):
        layers += [nn.Linear(64 if number == 0 else 32, 32), activation()]
    return nn.Sequential(*layers, nn.Linear(32, 10))


def test_a_real_stack_of_sigmoids_loses_its_gradient(layer_series: Build) -> None:
    found = list(
        VanishingGradient().check(RunRecord(loss=FLAT, layers=layer_series(grad_norm=profile(deep(nn.Sigmoid)))))
    )
    assert [(one.id, one.severity) for one in found] == [("vanishing-gradient", "warning")]
    assert found[0].evidence["ratio"] < 1e-3
    assert found[0].evidence["layers"][0] == "l0"
    assert found[0].evidence["step"] == 10


def test_a_real_residual_net_has_neither(layer_series: Build) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Linear(64, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 10)
    )
    record = RunRecord(loss=FLAT, layers=layer_series(grad_norm=profile(net)), grad_norm=FLAT)
    assert not list(VanishingGradient().check(record))
    assert not list(ExplodingGradient().check(record))


@pytest.mark.parametrize(
    ("loss", "first", "found"),
    [(FLAT, 0.9e-3, 1), (FLAT, 1.1e-3, 0), (FALLING, 0.9e-3, 0), (FALLING, 0.9e-5, 1), (FLAT, 0.0, 0)],
)
def test_near_misses_of_vanishing(layer_series: Build, loss: Curve, first: float, found: int) -> None:
    """A falling loss asks for more; a gradient of exactly zero has other reasons."""
    layers = layer_series(grad_norm=[first, 0.1, 0.5, 1.0])
    assert len(list(VanishingGradient().check(RunRecord(loss=loss, layers=layers)))) == found


@pytest.mark.parametrize(("sound", "severity"), [(5, "warning"), (6, "info")])
def test_a_gradient_lost_late_has_another_cause(layer_series: Build, sound: int, severity: str) -> None:
    rows = [[0.5, 0.5, 0.5, 1.0]] * sound + [[1e-4, 0.1, 0.5, 1.0]] * (12 - sound)
    known = RunRecord(loss=FLAT, layers=layer_series(grad_norm=rows), budget=120)
    assert [one.severity for one in VanishingGradient().check(known)] == [severity]


@pytest.mark.parametrize(("left", "found"), [(0.4, 0), (0.6, 1)])
def test_weights_decayed_away_pass_no_gradient_on(layer_series: Build, left: float, found: int) -> None:
    norms = np.linspace(1, left, 6)[:, None].repeat(4, 1)
    layers = layer_series(grad_norm=np.tile([1e-4, 0.1, 0.5, 1.0], (6, 1)), weight_norm=norms)
    assert len(list(VanishingGradient().check(RunRecord(loss=FLAT, layers=layers)))) == found


def test_it_must_hold_for_three_measurements(layer_series: Build) -> None:
    weak, sound = [1e-4, 0.1, 0.5, 1.0], [0.5, 0.5, 0.5, 1.0]
    record = RunRecord(loss=FLAT, layers=layer_series(grad_norm=[weak, weak, weak, sound, weak, weak]))
    assert not list(VanishingGradient().check(record))


def test_layers_that_vanish_by_construction_do_not_count(layer_series: Build) -> None:
    layers = layer_series(grad_norm=[1e-9, 0.5, 0.5, 0.6, 1.0])
    assert not list(
        VanishingGradient().check(RunRecord(loss=FLAT, layers=replace(layers, exempt=(True, *[False] * 4))))
    )


def test_a_norm_that_grows_while_the_loss_does_not_fall() -> None:
    growing = Curve.of(STEPS, 1.1**STEPS)
    found = list(ExplodingGradient().check(RunRecord(loss=FLAT, grad_norm=growing)))
    assert len(found) == 1
    assert found[0].evidence["growth"] > 30
    assert not list(ExplodingGradient().check(RunRecord(loss=FALLING, grad_norm=growing)))


def test_a_jump_after_which_the_loss_stays_worse() -> None:
    norms, loss = np.ones(100), np.full(100, 1.0)
    norms[60:63], loss[60:] = 50.0, 3.0
    recipe = {"optimizer": {"lr": 0.01}}
    record = RunRecord(loss=Curve.of(STEPS, loss), grad_norm=Curve.of(STEPS, norms), recipe=recipe)
    found = list(ExplodingGradient().check(record))
    assert found[0].evidence["step"] == 61
    assert found[0].remedy == {"trainer.clip_norm": 1.0}
    recovered = replace(record, loss=Curve.of(STEPS, np.full(100, 1.0)))
    assert not list(ExplodingGradient().check(recovered))
    assert next(iter(ExplodingGradient().check(replace(record, clip_norm=1.0)))).remedy == {"optimizer.lr": 0.0033}


def test_clipping_is_told_where_it_is_the_rule() -> None:
    norms = Curve.of(STEPS, np.where(STEPS % 10 < 6, 5.0, 0.5))
    rule = ClippedSteps()
    assert [one.severity for one in rule.check(RunRecord(clip_norm=1.0, grad_norm=norms))] == ["info"]
    assert not list(rule.check(RunRecord(clip_norm=10.0, grad_norm=norms)))
    assert rule.lacks(RunRecord(grad_norm=norms))


def test_clipping_that_leaves_next_to_nothing_is_a_warning_where_steps_are_short(layer_series: Build) -> None:
    recipe = {"trainer": {"clip_norm": 0.01}}
    for update, bound, severity in ((1e-4, 0.01, "warning"), (0.01, 0.01, "info"), (1e-4, 1.0, "info")):
        layers = layer_series(update_ratio=[[update, update]])
        run = RunRecord(clip_norm=bound, grad_norm=Curve.of(STEPS, np.full(100, 5.0)), layers=layers, recipe=recipe)
        (found,) = ClippedSteps().check(run)
        assert found.severity == severity
        assert found.remedy == ({"trainer.clip_norm": 10.0} if severity == "warning" else {})


def test_norms_that_were_taken_after_clipping_end_at_the_bound(layer_series: Build) -> None:
    norms = Curve.of(STEPS, np.full(100, 0.01 * (1 - 1e-7)))
    run = RunRecord(clip_norm=0.01, grad_norm=norms, layers=layer_series(update_ratio=[[1e-5]]), recipe={"trainer": {}})
    (found,) = ClippedSteps().check(run)
    assert (found.severity, found.evidence["share"]) == ("warning", 1.0)
    assert found.remedy["trainer.clip_norm"] == pytest.approx(0.1)


def test_what_is_lacking_is_said() -> None:
    assert VanishingGradient().lacks(RunRecord()) == "gradient norms by layer"
    assert ExplodingGradient().lacks(RunRecord()) == "20 gradient norms"
