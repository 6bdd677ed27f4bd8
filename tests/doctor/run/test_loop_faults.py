"""Gradients left over or changed, parameters left out."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from clearsight.doctor.run.loop_faults import GradientChanged, GradientsNotCleared, NotInOptimizer
from clearsight.doctor.run.record import Curve, RunRecord
from clearsight.doctor.watch import Watch

LOSS = Curve.of(np.arange(1, 21), np.ones(20))


def test_gradients_left_over() -> None:
    rule = GradientsNotCleared()
    found = list(rule.check(RunRecord(loss=LOSS, facts={"gradient_before_backward": 0.95})))
    assert [(one.id, one.severity) for one in found] == [("gradients-not-cleared", "error")]
    assert not list(rule.check(RunRecord(loss=LOSS, facts={"gradient_before_backward": 0.0})))
    assert not list(rule.check(RunRecord(loss=LOSS, facts={"gradient_before_backward": 0.75}, accumulate=4)))
    assert rule.lacks(RunRecord(loss=LOSS))


@pytest.mark.parametrize(
    ("clears", "found"),
    [
        (lambda step: True, []),
        (lambda step: False, [2]),
        (lambda step: step <= 60, [70]),  # the first measured step after it
        (lambda step: step != 40, []),
        (lambda step: step <= 60 and step != 20, [70]),
    ],
    ids=["always", "never", "no longer", "once not", "once not and later never"],
)
def test_gradients_that_are_no_longer_cleared(clears, found) -> None:
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 1))
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    rules, told = [GradientsNotCleared()], []
    with Watch(model, optimizer, budget=100, every=10, rules=rules, on_finding=told.append) as watch:
        for step in range(1, 101):
            if clears(step):
                optimizer.zero_grad()
            loss = model(torch.randn(16, 4)).square().mean()
            loss.backward()
            optimizer.step()
            watch.step(loss)
    assert [one.evidence["step"] for one in told] == found


@pytest.mark.parametrize("batches", [2, 3])
def test_batches_that_are_accumulated_without_a_word_are_no_fault(batches) -> None:
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 1))
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    with Watch(model, optimizer, budget=60, every=5, rules=[GradientsNotCleared(), GradientChanged()]) as watch:
        for step in range(60):
            # The last step of an epoch of 20 has one batch alone, so that its layers run once.
            for _ in range(1 if step % 20 == 19 else batches):
                model(torch.randn(16, 4)).square().mean().backward()
            optimizer.step()
            optimizer.zero_grad()
            watch.step(1.0)
    assert watch.findings == []


def test_changed_gradients_in_three_measured_steps() -> None:
    rule = GradientChanged()
    found = list(rule.check(RunRecord(loss=LOSS, facts={"gradient_cosines": [1.0, 0.3, 0.32, 0.79]})))
    assert [(one.id, one.severity, one.evidence["cosine"]) for one in found] == [("gradient-changed", "warning", 0.79)]
    for cosines in ([0.3, 0.3, 0.3, 0.8], [0.3, 0.3, 1.0, 0.3], [1.0, 1.0, 1.0]):
        assert not list(rule.check(RunRecord(loss=LOSS, facts={"gradient_cosines": cosines})))
    assert rule.lacks(RunRecord(facts={"gradient_cosines": [0.1, 0.1]}))
    assert not rule.lacks(RunRecord(facts={"gradient_cosines": [0.1, 0.1, 0.1]}))


def test_parameters_left_out() -> None:
    rule = NotInOptimizer()
    names = [f"head.{number}.weight" for number in range(30)]
    found = list(rule.check(RunRecord(facts={"not_in_optimizer": names})))
    assert found[0].where == "head.0.weight"
    assert found[0].evidence["count"] == 30
    assert len(found[0].evidence["parameters"]) == 20
    assert not list(rule.check(RunRecord(facts={"not_in_optimizer": []})))
    assert rule.lacks(RunRecord())
