"""Initial weights: their spread, and the prior."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from clearsight.errors import RangeError
from clearsight.nn.init import kaiming_init, prior_bias


def test_kaiming_by_fan_out() -> None:
    model = nn.Sequential(nn.Conv2d(64, 128, 3), nn.BatchNorm2d(128), nn.GroupNorm(2, 128))
    for parameter in model.parameters():
        nn.init.constant_(parameter, 7.0)
    assert kaiming_init(model) is model
    convolution = model[0]
    assert isinstance(convolution, nn.Conv2d)
    assert convolution.weight.std().item() == pytest.approx((2 / (128 * 9)) ** 0.5, rel=0.02)
    assert convolution.weight.mean().item() == pytest.approx(0, abs=1e-3)
    assert convolution.bias is not None
    assert convolution.bias.abs().max() == 0
    for layer in (model[1], model[2]):
        torch.testing.assert_close(layer.weight, torch.ones(128))
        torch.testing.assert_close(layer.bias, torch.zeros(128))


@pytest.mark.parametrize("p", [0.01, 0.5, 0.9])
def test_prior(p: float) -> None:
    assert torch.sigmoid(torch.tensor(prior_bias(p))).item() == pytest.approx(p)


@pytest.mark.parametrize("p", [0.0, 1.0, -1.0])
def test_prior_out_of_range(p: float) -> None:
    with pytest.raises(RangeError, match=r"must be in \(0, 1\)"):
        prior_bias(p)
