"""Errors of depth maps: by hand, image by image in NumPy, without a scale, of nothing."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from clearsight.errors import RangeError, ShapeError
from clearsight.metrics.depth import depth_errors, known_depth

NOTHING = (0.0, -1.0, math.nan, math.inf, -math.inf)


def depths(*shape: int) -> Tensor:
    """Metres, some unknown in each of the ways there are."""
    depth = torch.rand(*shape, dtype=torch.float64) * 20 + 0.5
    flat = depth.view(len(depth), -1)
    for place, value in enumerate(NOTHING):
        flat[:, place * 2] = value
    return depth


@pytest.mark.parametrize("nothing", NOTHING)
def test_where_a_depth_is_known(nothing: float) -> None:
    depth = torch.tensor([[1.0, nothing, 2.0]])
    assert known_depth(depth).tolist() == [[True, False, True]]
    assert known_depth(depth, torch.tensor([[False, True, True]])).tolist() == [[False, False, True]]


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(RangeError, match=r"pred: .* found -0.5 where depth is known"):
        depth_errors(torch.tensor([[1.0, -0.5]]), torch.ones(1, 2))
    with pytest.raises(ShapeError, match="depth: "):
        depth_errors(torch.ones(2, 1, 3), torch.ones(2, 3))


def test_errors_by_hand() -> None:
    truth = torch.tensor([[2.0, 4.0, 10.0, 5.0, 0.0]])
    pred = torch.tensor([[2.2, 5.0, 5.0, 8.0, math.nan]])  # ratios 1.1, 1.25, 2, 1.6
    found = depth_errors(pred, truth)
    assert found.abs_rel == pytest.approx((0.1 + 0.25 + 0.5 + 0.6) / 4)
    assert found.rmse == pytest.approx(math.sqrt((0.04 + 1 + 25 + 9) / 4))
    logs = [math.log(ratio) for ratio in (1.1, 1.25, 2, 1.6)]
    assert found.rmse_log == pytest.approx(math.sqrt(sum(x * x for x in logs) / 4))
    assert (found.delta_1, found.delta_2, found.delta_3) == (0.25, 0.5, 0.75)  # 1.25 is not below 1.25
    assert str(found).startswith("abs_rel 0.36")
    perfect = depth_errors(truth.where(truth > 0, 1.0), truth)
    assert (perfect.abs_rel, perfect.rmse, perfect.rmse_log, perfect.delta_1) == (0, 0, 0, 1)


@pytest.mark.parametrize("median_scaling", [False, True])
def test_errors_are_means_over_images(median_scaling: bool) -> None:
    truth, pred = depths(4, 1, 5, 6), torch.rand(4, 1, 5, 6, dtype=torch.float64) * 9 + 0.1
    truth[3] = 0
    pred[3] = -1  # nobody asks
    each = []
    for p, t in zip(pred[:3].numpy(), truth[:3].numpy(), strict=True):
        known = np.isfinite(t) & (t > 0)
        p, t = p[known], t[known]
        if median_scaling:
            p = p * np.median(t) / np.median(p)
        ratio = np.maximum(p / t, t / p)
        rmse, rmse_log = (math.sqrt(((f(p) - f(t)) ** 2).mean()) for f in (np.asarray, np.log))
        each.append([np.mean(abs(p - t) / t), rmse, rmse_log, *(np.mean(ratio < 1.25**k) for k in (1, 2, 3))])
    found = depth_errors(pred, truth, median_scaling=median_scaling)
    values = [found.abs_rel, found.rmse, found.rmse_log, found.delta_1, found.delta_2, found.delta_3]
    assert values == pytest.approx(np.mean(each, axis=0).tolist(), rel=1e-12)


def test_median_scaling_takes_a_factor_away() -> None:
    truth = depths(2, 20).abs()
    exact = depth_errors(truth.nan_to_num(1.0, 1.0).clamp(min=0.1) * 7, truth, median_scaling=True)
    assert exact.abs_rel == pytest.approx(0, abs=1e-12)
    assert exact.delta_1 == 1


def test_errors_of_nothing_are_not_numbers() -> None:
    for shape in ((2, 1, 3, 3), (0, 1, 3, 3), (2, 1, 0, 3)):
        for scaling in (False, True):
            assert math.isnan(depth_errors(torch.zeros(shape), torch.zeros(shape), median_scaling=scaling).abs_rel)
