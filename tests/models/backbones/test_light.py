"""The light backbone: shapes for any size, and blocks that start as the identity."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from clearsight.models.backbones.light import LightBackbone


@pytest.mark.parametrize("size", [(240, 320), (97, 65), (32, 32)])
@pytest.mark.parametrize("channels", [1, 3, 5])
def test_levels_have_the_promised_channels_and_sizes(size: tuple[int, int], channels: int) -> None:
    backbone = LightBackbone(channels=channels).eval()
    found = backbone.features(torch.rand(2, channels, *size))
    assert list(found) == ["c2", "c3", "c4", "c5"]
    for level, feature in found.items():
        stride = backbone.strides[level]
        sides = (math.ceil(size[0] / stride), math.ceil(size[1] / stride))
        assert feature.shape == (2, backbone.channels[level], *sides)


@pytest.mark.parametrize("norm", ["batch", "group", "layer", "layer_channels"])
def test_a_new_block_is_the_identity_after_its_activation(norm: str) -> None:
    backbone = LightBackbone(norm=norm)
    stage = backbone.stages[1]
    assert isinstance(stage, nn.Sequential)
    block = stage[1]
    x = torch.rand(2, 48, 8, 8)
    torch.testing.assert_close(block(x), x)


def test_forward_is_the_deepest_level() -> None:
    backbone = LightBackbone().eval()
    images = torch.rand(1, 3, 64, 64)
    torch.testing.assert_close(backbone(images), backbone.features(images)["c5"])
