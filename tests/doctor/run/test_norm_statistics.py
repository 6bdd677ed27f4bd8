"""Running statistics that do not follow, and wrong modes."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn

from clearsight.doctor.run.norm_statistics import DriftingNormStatistics, WrongMode
from clearsight.doctor.run.record import Curve, LayerSeries, RunRecord

Build = Callable[..., LayerSeries]


def gap_and_ratio(momentum: float, steps: int = 150) -> tuple[float, float]:
    """Of a real batch norm behind a convolution of digits, after some steps in which nothing is learned."""
    torch.manual_seed(0)
    digits = torch.tensor(load_digits().images, dtype=torch.float32)[:, None] - 5
    conv, norm = nn.Conv2d(1, 8, 3, bias=False), nn.BatchNorm2d(8, momentum=momentum)
    for _ in range(steps):
        norm(conv(digits[torch.randint(0, len(digits), (32,))]))
    out = conv(digits[:32]).detach()
    mean, var = out.mean(dim=(0, 2, 3)), out.var(dim=(0, 2, 3))
    running, spread = norm.running_mean, norm.running_var
    assert running is not None
    assert spread is not None
    return float(((mean - running).abs() / spread.sqrt()).mean()), float((var / spread).log().mean().exp())


@pytest.mark.parametrize(("momentum", "found"), [(0.1, 0), (0.0001, 1)])
def test_a_momentum_too_small_leaves_the_statistics_behind(layer_series: Build, momentum: float, found: int) -> None:
    gap, ratio = gap_and_ratio(momentum)
    layers = layer_series(bn_gap=[gap], bn_ratio=[ratio], kinds=("BatchNorm2d",), times=12)
    findings = list(DriftingNormStatistics().check(RunRecord(layers=layers)))
    assert [one.id for one in findings] == ["norm-statistics-drift"] * found


@pytest.mark.parametrize(("gap", "ratio", "found"), [(0.95, 1.0, 0), (1.05, 1.0, 1), (0.1, 3.9, 0), (0.1, 0.24, 1)])
def test_bounds(layer_series: Build, gap: float, ratio: float, found: int) -> None:
    layers = layer_series(bn_gap=[0.1, gap], bn_ratio=[1.0, ratio], times=12)
    assert len(list(DriftingNormStatistics().check(RunRecord(layers=layers)))) == found


@pytest.mark.parametrize(
    ("gap", "ratio", "val", "found"),
    [(0.55, 1.0, 0.8, 1), (0.1, 2.1, 0.8, 1), (0.45, 1.9, 0.8, 0), (0.55, 2.1, 0.9, 0), (1.05, 1.0, 0.98, 1)],
)
def test_half_the_distance_counts_where_the_validation_score_lags(
    layer_series: Build, gap: float, ratio: float, val: float, found: int
) -> None:
    layers = layer_series(bn_gap=[0.1, gap], bn_ratio=[1.0, ratio], times=12)
    at = np.arange(10, 130, 10)
    scores = [{"accuracy": Curve.of(at, np.full(12, value))} for value in (val, 1.0)]
    findings = list(DriftingNormStatistics().check(RunRecord(layers=layers, val=scores[0], train=scores[1])))
    assert len(findings) == found


def test_the_first_hundred_steps_do_not_count(layer_series: Build) -> None:
    assert not list(
        DriftingNormStatistics().check(RunRecord(layers=layer_series(bn_gap=[9.0], bn_ratio=[9.0], times=6)))
    )


def test_a_layer_that_was_not_measured_is_left_out(layer_series: Build) -> None:
    layers = layer_series(bn_gap=[np.nan, 2.0], bn_ratio=[np.nan, 1.0], times=12)
    assert [one.where for one in DriftingNormStatistics().check(RunRecord(layers=layers))] == ["l1"]


def test_modes() -> None:
    rule = WrongMode()
    assert rule.lacks(RunRecord())
    scored = list(rule.check(RunRecord(facts={"eval_in_train_mode": ["", "net.drop"], "train_in_eval_mode": []})))
    assert [(one.severity, one.where) for one in scored] == [("warning", "model")]
    for untouched, severity in ((True, "warning"), (False, "info")):  # or norms have statistics from before
        facts = {"train_in_eval_mode": ["net.norm"], "untouched_statistics": untouched}
        assert [one.severity for one in rule.check(RunRecord(facts=facts))] == [severity]
    frozen = list(rule.check(RunRecord(facts={"train_in_eval_mode": ["backbone.bn1"], "eval_in_train_mode": []})))
    assert [(one.severity, one.where) for one in frozen] == [("info", "backbone.bn1")]
    assert not list(rule.check(RunRecord(facts={"train_in_eval_mode": [], "eval_in_train_mode": []})))
