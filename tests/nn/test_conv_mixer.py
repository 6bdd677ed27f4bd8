"""ConvMixer's block beside timm's."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from timm.models.convmixer import ConvMixer
from torch import nn

from clearsight.errors import ConfigError, ShapeError
from clearsight.nn.conv_mixer import ConvMixerBlock


@pytest.mark.parametrize(("kernel", "activation"), [(9, nn.GELU), (7, nn.ReLU)])
def test_it_is_timms(kernel: int, activation: type[nn.Module], same_block: Callable[..., None]) -> None:
    theirs = ConvMixer(12, 1, kernel, 2, num_classes=0, act_layer=activation).blocks[0]
    same_block(ConvMixerBlock(12, kernel, activation=activation.__name__.lower()), theirs, torch.randn(3, 12, 10, 7))


def test_gradients_are_those_of_finite_differences(right_gradients: Callable[..., None]) -> None:
    right_gradients(ConvMixerBlock(4, 3), 3, 4, 5, 4)


def test_at_a_zero_scale_only_channels_are_mixed() -> None:
    block = ConvMixerBlock(6, 5).eval()
    nn.init.zeros_(block.last_norm.weight)
    x = torch.randn(2, 6, 8, 8)
    torch.testing.assert_close(block(x), block[3](block[2](block[1](x))))


def test_bad_arguments_are_refused() -> None:
    with pytest.raises(ConfigError, match="kernel: must be odd and at least 1, got 8"):
        ConvMixerBlock(8, 8)
    with pytest.raises(ShapeError, match=r"ConvMixerBlock: x: expected \(n, c, h, w\), got \(8, 5, 5\)"):
        ConvMixerBlock(8)(torch.randn(8, 5, 5))
