"""The hybrid's convolutions: standardised weights by NumPy and timm, the maps, and timm's numbers."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch
from timm.layers.std_conv import StdConv2dSame
from timm.models.resnetv2 import ResNetV2
from torch import nn

from clearsight.errors import ConfigError, ShapeError
from clearsight.models.segment.transunet import TransUNet
from clearsight.models.segment.transunet_resnet import HybridResNet, StandardisedConv2d, standardise
from clearsight.nn.residual import Bottleneck
from clearsight.reference.convolution import convolution


@pytest.mark.parametrize(
    ("kernel", "stride", "around"), [(7, 2, (2, 3)), (3, 2, (0, 1)), (3, 1, (1, 1)), (1, 2, (0, 0))]
)
def test_kernels_are_standardised_and_same_padding_has_the_odd_pixel_behind(
    kernel: int, stride: int, around: tuple[int, int]
) -> None:
    layer, x = StandardisedConv2d(4, 6, kernel, stride=stride), torch.randn(2, 4, 8, 10)
    nn.init.normal_(layer.weight, 0.3, 0.02)
    weight = layer.weight.detach().double().numpy()
    flat = weight.reshape(6, -1)
    flat = (flat - flat.mean(1, keepdims=True)) / np.sqrt(flat.var(1, keepdims=True) + 1e-8)
    padded = np.pad(x.double().numpy(), ((0, 0), (0, 0), around, around))
    expected = convolution(padded, flat.reshape(weight.shape), stride=stride)
    np.testing.assert_allclose(layer(x).detach().numpy(), expected, rtol=0, atol=2e-4)
    theirs = StdConv2dSame(4, 6, kernel, stride=stride, eps=1e-8)
    theirs.load_state_dict(layer.state_dict())
    torch.testing.assert_close(layer(x), theirs(x), rtol=1e-4, atol=1e-4)


def test_what_is_standardised_has_no_length_and_no_mean() -> None:
    layer, x = StandardisedConv2d(3, 5, 3), torch.randn(1, 3, 6, 6)
    before = layer(x)
    with torch.no_grad():
        layer.weight.mul_(4.0).add_(0.7)
    torch.testing.assert_close(layer(x), before, rtol=1e-4, atol=1e-4)
    double = StandardisedConv2d(2, 2, 3, stride=2).double()
    assert torch.autograd.gradcheck(double, (torch.randn(1, 2, 4, 4, dtype=torch.float64, requires_grad=True),))
    layer(x).square().sum().backward()
    assert layer.weight.grad is not None
    assert layer.weight.grad.sum((1, 2, 3)).abs().max() < 1e-2 * layer.weight.grad.abs().sum()


def test_every_convolution_of_a_block_is_replaced() -> None:
    block = Bottleneck(8, 4, stride=2, norm="group")
    standardise(block)
    found = [(layer.kernel_size, layer.stride) for layer in block.modules() if isinstance(layer, nn.Conv2d)]
    assert sorted(found) == [((1, 1), (1, 1)), ((1, 1), (1, 1)), ((1, 1), (2, 2)), ((3, 3), (2, 2))]
    assert all(isinstance(layer, StandardisedConv2d) for layer in block.modules() if isinstance(layer, nn.Conv2d))
    assert block(torch.randn(2, 8, 6, 4)).shape == (2, 16, 3, 2)
    assert [block.bn1.num_groups, block.bn3.num_groups] == [2, 8]  # of 4 and 16 channels: two in each group
    assert [layer.num_groups for layer in HybridResNet().modules() if isinstance(layer, nn.GroupNorm)] == [32] * 52


@pytest.mark.parametrize("width", [8, 64])
def test_maps(width: int) -> None:
    net = HybridResNet(width, (1, 1, 1), channels=2)
    maps = net(torch.randn(1, 2, 48, 32))
    assert [tuple(each.shape[1:]) for each in maps] == [
        (width, 24, 16),
        (4 * width, 12, 8),
        (8 * width, 6, 4),
        (16 * width, 3, 2),
    ]
    assert net.channels == tuple(each.shape[1] for each in maps)
    assert all((each >= 0).all() for each in maps)  # each ends in a ReLU


@pytest.mark.parametrize("train", [False, True])
def test_numbers_are_timms(train: bool) -> None:
    blocks = (2, 1, 2)
    theirs = ResNetV2(
        blocks,
        num_classes=0,
        global_pool="",
        preact=False,
        stem_type="same",
        conv_layer=partial(StdConv2dSame, eps=1e-8),
    ).train(train)
    for name, parameter in theirs.named_parameters():
        if "norm" in name:
            parameter.data.add_(0.2 * torch.randn_like(parameter))
    ours = HybridResNet(64, blocks).train(train)
    whole = TransUNet(2, layers=1, width=8, heads=2, backbone_width=4)

    def renamed(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        adapted = whole.adapt_weights({f"patch_embed.backbone.{name}": value for name, value in state.items()})
        return {name.removeprefix("resnet."): value for name, value in adapted.items()}

    assert ours.load_state_dict(renamed(theirs.state_dict()), strict=False).unexpected_keys == []
    assert ours.load_state_dict(renamed(theirs.state_dict()), strict=False).missing_keys == []
    x = torch.randn(2, 3, 32, 64)
    mine, other = x.clone().requires_grad_(), x.clone().requires_grad_()
    found, expected = ours(mine)[-1], theirs.forward_features(other)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    found.square().sum().backward()
    expected.square().sum().backward()
    assert mine.grad is not None
    assert other.grad is not None
    torch.testing.assert_close(mine.grad, other.grad, rtol=0, atol=1e-4 * float(other.grad.abs().max()))


def test_bad_arguments_and_images() -> None:
    with pytest.raises(ConfigError, match=r"expected three stages of at least one block each, got \(3, 4\)"):
        HybridResNet(64, (3, 4))
    with pytest.raises(ConfigError, match=r"got \(3, 0, 9\)"):
        HybridResNet(64, (3, 0, 9))
    with pytest.raises(ShapeError, match=r"images \(n, 3, h, w\), got \(1, 1, 32, 32\)"):
        HybridResNet(8, (1, 1, 1))(torch.zeros(1, 1, 32, 32))
