"""Layers that stand still, and weights that grow."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import nn

from clearsight.doctor.run.record import Curve, LayerSeries, RunRecord
from clearsight.doctor.run.updates import NotUpdated, WeightDrift

Build = Callable[..., LayerSeries]


def measured(*, forget: bool) -> tuple[list[float], list[float]]:
    """Gradient norm and relative change of each layer of a real net in one step of an optimiser."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 4))
    lines = [layer for layer in net if isinstance(layer, nn.Linear)]
    known = [p for line in (lines[1:] if forget else lines) for p in line.parameters()]
    before = [line.weight.detach().clone() for line in lines]
    nn.functional.cross_entropy(net(torch.rand(32, 8)), torch.randint(0, 4, (32,))).backward()
    torch.optim.SGD(known, 0.1).step()
    norms = [float(line.weight.grad.norm()) for line in lines]  # pyright: ignore[reportOptionalMemberAccess]
    moved = [float((line.weight.detach() - old).norm() / old.norm()) for line, old in zip(lines, before, strict=True)]
    return norms, moved


def test_a_layer_that_the_optimiser_does_not_know(layer_series: Build) -> None:
    norms, moved = measured(forget=True)
    found = list(NotUpdated().check(RunRecord(layers=layer_series(grad_norm=norms, update_ratio=moved))))
    assert [(one.id, one.severity, one.where) for one in found] == [("not-updated", "error", "l0")]
    assert found[0].evidence["layers"] == ["l0"]


def test_a_sound_step_is_quiet(layer_series: Build) -> None:
    norms, moved = measured(forget=False)
    assert not list(NotUpdated().check(RunRecord(layers=layer_series(grad_norm=norms, update_ratio=moved))))


def test_frozen_layers_and_a_rate_of_zero_are_no_fault(layer_series: Build) -> None:
    """No gradient: frozen. Nothing moves: a rate of zero, which is another fault."""
    frozen = layer_series(grad_norm=[0.0, 1.0], update_ratio=[0.0, 0.01])
    assert not list(NotUpdated().check(RunRecord(layers=frozen)))
    nothing = layer_series(grad_norm=[1.0, 1.0], update_ratio=[0.0, 0.0])
    assert not list(NotUpdated().check(RunRecord(layers=nothing)))
    warm = layer_series(grad_norm=[1.0, 1.0], update_ratio=[[0.0, 0.01]] * 3 + [[0.01, 0.01]], times=4)
    rates = Curve.of([10, 20, 30, 40], [0.0, 0.0, 0.0, 0.1])
    assert not list(NotUpdated().check(RunRecord(layers=warm, lr=rates)))


def test_weights_too_large_for_their_steps_are_known_to_the_optimiser(layer_series: Build) -> None:
    moved = [[0.5, 0.5]] * 2 + [[0.0, 0.01]] * 4
    for grown, expected in ((1e6, []), (1.5, ["not-updated"])):
        norms = [[1.0, 1.0]] + [[grown, 1.0]] * 5
        layers = layer_series(grad_norm=[[1.0, 1.0]] * 6, update_ratio=moved, weight_norm=norms)
        assert [one.id for one in NotUpdated().check(RunRecord(layers=layers))] == expected


def test_growing_weights_are_told(layer_series: Build) -> None:
    rows = np.stack([np.array([10.0 * 1.6**t, 10.0, 1e-6 * 100.0**t]) for t in range(6)])
    layers = layer_series(weight_norm=rows, parameters=np.array([1000.0, 1000.0, 1000.0]))
    found = list(WeightDrift().check(RunRecord(layers=layers)))
    assert [(one.severity, one.where) for one in found] == [("info", "l0")]
    slower = layer_series(weight_norm=np.stack([np.array([10.0 * 1.5**t]) for t in range(6)]))
    assert not list(WeightDrift().check(RunRecord(layers=slower)))
