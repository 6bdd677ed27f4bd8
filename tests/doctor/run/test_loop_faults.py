"""Gradients left over, parameters left out."""

from __future__ import annotations

import numpy as np

from clearsight.doctor.run.loop_faults import GradientsNotCleared, NotInOptimizer
from clearsight.doctor.run.record import Curve, RunRecord

LOSS = Curve.of(np.arange(1, 21), np.ones(20))


def test_gradients_left_over() -> None:
    rule = GradientsNotCleared()
    found = list(rule.check(RunRecord(loss=LOSS, facts={"gradient_before_backward": 0.95})))
    assert [(one.id, one.severity) for one in found] == [("gradients-not-cleared", "error")]
    assert not list(rule.check(RunRecord(loss=LOSS, facts={"gradient_before_backward": 0.0})))
    assert not list(rule.check(RunRecord(loss=LOSS, facts={"gradient_before_backward": 0.75}, accumulate=4)))
    assert rule.lacks(RunRecord(loss=LOSS))


def test_parameters_left_out() -> None:
    rule = NotInOptimizer()
    names = [f"head.{number}.weight" for number in range(30)]
    found = list(rule.check(RunRecord(facts={"not_in_optimizer": names})))
    assert found[0].where == "head.0.weight"
    assert found[0].evidence["count"] == 30
    assert len(found[0].evidence["parameters"]) == 20
    assert not list(rule.check(RunRecord(facts={"not_in_optimizer": []})))
    assert rule.lacks(RunRecord())
