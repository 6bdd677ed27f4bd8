"""What a module is to rules on the order of layers."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations

from clearsight.doctor.model.kinds import (
    is_batch_norm,
    is_convolution,
    is_dropout,
    is_linear,
    is_norm,
    is_transposed,
    kernel_of,
    passes_linearly,
    units,
    width_of,
)
from clearsight.nn.instance_norm import InstanceNorm
from clearsight.nn.norm import norm


def test_layers():
    assert is_convolution(parametrizations.weight_norm(nn.Conv1d(3, 4, 3)))
    assert is_convolution(nn.ConvTranspose2d(3, 4, 2))
    assert is_transposed(nn.ConvTranspose2d(3, 4, 2))
    assert not is_transposed(nn.Conv2d(3, 4, 2))
    assert is_linear(nn.Linear(3, 4))
    assert not is_linear(nn.Bilinear(3, 3, 4))
    assert is_dropout(nn.Dropout2d())
    assert (units(nn.ConvTranspose2d(3, 4, 2)), units(nn.Linear(5, 6))) == ((3, 4), (5, 6))
    assert (kernel_of(nn.Conv2d(1, 1, (3, 1))), kernel_of(nn.Linear(1, 1))) == ((3, 1), ())
    with pytest.raises(TypeError, match="expected a convolution or a linear layer, got ReLU"):
        units(nn.ReLU())


@pytest.mark.parametrize("name", ["batch", "sync_batch", "group", "layer", "layer_channels", "instance"])
def test_norms(name):
    layer = norm(name, 8, groups=2) if name == "group" else norm(name, 8)
    assert is_norm(layer)
    assert is_batch_norm(layer) == (name in ("batch", "sync_batch"))
    assert width_of(layer) == (8 if name in ("batch", "sync_batch", "instance") else 0)


def test_a_norm_of_single_channels_takes_a_constant_away_and_others_do_not():
    x, shift = torch.randn(2, 8, 4, 4), torch.randn(1, 8, 1, 1)
    for layer in (nn.GroupNorm(8, 8), nn.GroupNorm(4, 8), InstanceNorm(8), nn.InstanceNorm2d(8), nn.BatchNorm2d(8)):
        same = torch.allclose(layer(x), layer(x + shift), atol=1e-4)
        assert same == (width_of(layer) == 8)


@pytest.mark.parametrize(
    "layer", [nn.Identity(), nn.AvgPool2d(2), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.BatchNorm2d(4).eval(),
              nn.ReLU(), nn.MaxPool2d(2), nn.GroupNorm(2, 4), nn.SiLU()]
)  # fmt: skip
def test_linear_is_what_maps_sums_to_sums(layer):
    a, b, zero = torch.randn(3, 2, 4, 4, 4).unbind(0)
    gap = layer(a + b) - layer(a) - layer(b) + layer(zero - zero)
    assert passes_linearly(layer) == bool(gap.abs().max() < 1e-4)
