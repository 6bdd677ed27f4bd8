"""Squeeze-and-excitation beside torchvision's and timm's, and the rule by which widths are rounded."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import timm.layers.squeeze_excite
import torch
from torch import nn
from torchvision.models._utils import _make_divisible
from torchvision.ops import SqueezeExcitation

from clearsight.errors import ConfigError, ShapeError
from clearsight.nn.squeeze_excite import SqueezeExcite, make_divisible


@pytest.mark.parametrize("gate", ["sigmoid", "hardsigmoid"])
def test_it_is_torchvisions(gate: str, same_block: Callable[..., None]) -> None:
    scale = {"sigmoid": nn.Sigmoid, "hardsigmoid": nn.Hardsigmoid}[gate]
    ours = SqueezeExcite(24, reduction=4, gate=gate)
    same_block(ours, SqueezeExcitation(24, 8, scale_activation=scale), torch.randn(3, 24, 5, 4))


@pytest.mark.parametrize("channels", [24, 64, 256])
def test_by_default_it_is_timms(channels: int, same_block: Callable[..., None]) -> None:
    theirs = timm.layers.squeeze_excite.SEModule(channels)
    same_block(SqueezeExcite(channels), theirs, torch.randn(2, channels, 3, 5))


def test_it_is_equations_2_to_4() -> None:
    layer = SqueezeExcite(6, squeezed=2)
    x = torch.randn(2, 6, 4, 3)
    z = x.numpy().mean((2, 3))
    w1, b1, w2, b2 = (value.detach().numpy().reshape(len(value), -1).squeeze() for value in layer.parameters())
    s = 1 / (1 + np.exp(-(np.maximum(z @ w1.T + b1, 0) @ w2.T + b2)))
    torch.testing.assert_close(layer(x), x * torch.from_numpy(s).view(2, 6, 1, 1))


def test_gradients_are_those_of_finite_differences(right_gradients: Callable[..., None]) -> None:
    right_gradients(SqueezeExcite(6, squeezed=3, activation="silu"), 2, 6, 3, 4)


@pytest.mark.parametrize(("options", "between"), [({}, 8), ({"divisor": 1}, 4), ({"squeezed": 5}, 5)])
def test_channels_between_the_layers(options: dict[str, int], between: int) -> None:
    assert SqueezeExcite(64, **options).fc1.out_channels == between


@pytest.mark.parametrize("divisor", [1, 4, 8])
def test_widths_are_rounded_as_in_the_published_networks(divisor: int) -> None:
    for width in np.arange(0.5, 200, 0.25):
        assert make_divisible(width, divisor) == _make_divisible(width, divisor)
        assert make_divisible(width, divisor) % divisor == 0
        assert make_divisible(width, divisor) >= 0.9 * width
    assert make_divisible(11) == 16  # 8 is nearer, but more than a tenth below


def test_bad_arguments_are_refused() -> None:
    for options in ({"reduction": 0}, {"divisor": 0}, {"squeezed": 0}):
        with pytest.raises(ConfigError, match=rf"{next(iter(options))}: must be at least 1, got 0"):
            SqueezeExcite(8, **options)
    with pytest.raises(ConfigError, match="did you mean 'hardsigmoid'"):
        SqueezeExcite(8, gate="hardsigmod")
    with pytest.raises(ShapeError, match=r"SqueezeExcite: x: expected \(n, c, h, w\), got \(8, 8\)"):
        SqueezeExcite(8)(torch.randn(8, 8))
