"""Residual blocks: those of torchvision and timm, number by number."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import timm.models.resnet
import timm.models.resnetv2
import torch
from timm.layers.create_conv2d import create_conv2d
from timm.layers.norm_act import BatchNormAct2d
from torch import nn
from torchvision.models import resnet

from clearsight.errors import ConfigError, ShapeError
from clearsight.nn.dropout import DropPath
from clearsight.nn.norm import NORMS
from clearsight.nn.residual import BasicBlock, Bottleneck, PreActBasicBlock, PreActBottleneck

Block = type[BasicBlock | Bottleneck | PreActBasicBlock | PreActBottleneck]
BLOCKS: list[Block] = [BasicBlock, Bottleneck, PreActBasicBlock, PreActBottleneck]
every_block = pytest.mark.parametrize("block", BLOCKS)

preact = {"conv_layer": create_conv2d, "norm_layer": BatchNormAct2d}
shrinking = {**preact, "proj_layer": timm.models.resnetv2.DownsampleConv, "stride": 2}


def down(channels: int, out: int, stride: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(channels, out, 1, stride, bias=False), nn.BatchNorm2d(out))


# Channels of the input, our block, theirs.
PEERS: dict[str, tuple[int, Callable[[], nn.Module], Callable[[], nn.Module]]] = {
    "basic": (16, lambda: BasicBlock(16, 16), lambda: resnet.BasicBlock(16, 16)),
    "basic, smaller": (
        16,
        lambda: BasicBlock(16, 24, stride=2),
        lambda: resnet.BasicBlock(16, 24, 2, down(16, 24, 2)),
    ),
    "basic, dilated": (
        16,
        lambda: BasicBlock(16, 16, dilation=2),
        lambda: timm.models.resnet.BasicBlock(16, 16, dilation=2),
    ),
    "basic, gated": (
        16,
        lambda: BasicBlock(16, 32, stride=2, squeeze_excite=16),
        lambda: timm.models.resnet.BasicBlock(16, 32, 2, down(16, 32, 2), attn_layer="se"),
    ),
    "basic, silu": (
        16,
        lambda: BasicBlock(16, 16, activation="silu"),
        lambda: timm.models.resnet.BasicBlock(16, 16, act_layer=nn.SiLU),
    ),
    "bottleneck": (16, lambda: Bottleneck(16, 4), lambda: resnet.Bottleneck(16, 4)),
    "bottleneck, smaller": (
        16,
        lambda: Bottleneck(16, 8, stride=2),
        lambda: resnet.Bottleneck(16, 8, 2, down(16, 32, 2)),
    ),
    "bottleneck, dilated": (16, lambda: Bottleneck(16, 4, dilation=2), lambda: resnet.Bottleneck(16, 4, dilation=2)),
    "ResNeXt": (
        32,
        lambda: Bottleneck(32, 8, groups=4, base_width=16),
        lambda: resnet.Bottleneck(32, 8, groups=4, base_width=16),
    ),
    "wide": (32, lambda: Bottleneck(32, 8, base_width=128), lambda: resnet.Bottleneck(32, 8, base_width=128)),
    "bottleneck, gated": (
        128,
        lambda: Bottleneck(128, 32, squeeze_excite=16),
        lambda: timm.models.resnet.Bottleneck(128, 32, attn_layer="se"),
    ),
    "pre-activation basic": (
        16,
        lambda: PreActBasicBlock(16, 16),
        lambda: timm.models.resnetv2.PreActBasic(16, 16, **preact),
    ),
    "pre-activation basic, smaller": (
        16,
        lambda: PreActBasicBlock(16, 24, stride=2),
        lambda: timm.models.resnetv2.PreActBasic(16, 24, **shrinking),
    ),
    "pre-activation bottleneck": (
        32,
        lambda: PreActBottleneck(32, 8, dilation=2, groups=2),
        lambda: timm.models.resnetv2.PreActBottleneck(32, 32, dilation=2, groups=2, **preact),
    ),
    "pre-activation bottleneck, smaller": (
        16,
        lambda: PreActBottleneck(16, 8, stride=2),
        lambda: timm.models.resnetv2.PreActBottleneck(16, 32, **shrinking),
    ),
}


@pytest.mark.parametrize("name", PEERS)
def test_names_values_gradients_and_statistics_are_those_of(name: str, same_block: Callable[..., None]) -> None:
    channels, ours, theirs = PEERS[name]
    same_block(ours(), theirs(), torch.randn(3, channels, 9, 7))


@every_block
@pytest.mark.parametrize("same", [True, False])
def test_gradients_are_those_of_finite_differences(
    block: Block, same: bool, right_gradients: Callable[..., None]
) -> None:
    shape = {} if same else {"stride": 2}
    made = block(8, 8 // block.expansion if same else 4, activation="silu", squeeze_excite=4, **shape)
    right_gradients(made, 3, 8, 5, 4)


@every_block
def test_a_dropped_branch_leaves_the_shortcut_and_a_kept_one_is_scaled(block: Block) -> None:
    made = block(8, 8 // block.expansion, drop_path=0.5, activation="none")
    x = torch.randn(64, 8, 4, 4)
    found = made(x)
    dropped = (found == x).flatten(1).all(1)
    assert 10 < dropped.sum() < 54
    (path,) = (layer for layer in made.modules() if isinstance(layer, DropPath))
    path.p = 0.0
    torch.testing.assert_close(found[~dropped], (2 * made(x) - x)[~dropped])
    path.p = 0.5
    assert torch.equal(made.eval()(x), made(x))
    assert not any(isinstance(layer, DropPath) for layer in block(8, 8).modules())


@pytest.mark.parametrize("block", [BasicBlock, Bottleneck])
def test_a_zero_scale_in_the_last_norm_makes_the_block_its_shortcut(block: Block) -> None:
    made = block(8, 8 // block.expansion, squeeze_excite=4)
    assert made.last_norm is not None
    nn.init.zeros_(made.last_norm.weight)
    x = torch.rand(2, 8, 5, 5)
    torch.testing.assert_close(made(x), x)
    made(x).square().sum().backward()
    assert made.last_norm.weight.grad.abs().max() > 0  # and it can learn its way out


@pytest.mark.parametrize("block", [PreActBasicBlock, PreActBottleneck])
def test_no_norm_ends_a_branch_that_ends_in_a_convolution(block: Block) -> None:
    made = block(8, 8 // block.expansion)
    assert made.last_norm is None
    last = [layer for layer in made.modules() if isinstance(layer, nn.BatchNorm2d)][-1]
    nn.init.zeros_(last.weight)
    made(torch.rand(2, 8, 5, 5)).square().sum().backward()
    assert made.conv2.weight.grad.abs().max() == 0  # why: the branch would never learn


@every_block
@pytest.mark.parametrize("norm", sorted(set(NORMS) - {"sync_batch"}))
def test_any_norm_stands_the_sum_in_place(block: Block, norm: str) -> None:
    if norm == "cross_iteration" and block in (PreActBasicBlock, PreActBottleneck):
        with pytest.raises(ConfigError, match="after=convolution"):
            block(8, 8, norm=norm)
        return
    made = block(8, 8, stride=2, norm=norm)
    for _ in range(2):
        made(torch.randn(4, 8, 6, 6)).square().mean().backward()
    assert all(value.grad is not None and value.grad.isfinite().all() for value in made.parameters())


def test_the_input_is_left_as_it_was() -> None:
    x = torch.randn(2, 8, 5, 5)
    before = x.clone()
    for block in BLOCKS:
        block(8, 8 // block.expansion)(x)
        assert torch.equal(x, before)


@every_block
def test_bad_input_and_names_are_refused(block: Block) -> None:
    with pytest.raises(ShapeError, match=rf"{block.__name__}: x: expected \(n, c, h, w\), got \(8, 5, 5\)"):
        block(8, 8)(torch.randn(8, 5, 5))
    with pytest.raises(ConfigError, match="did you mean 'batch'"):
        block(8, 8, norm="bath")
    with pytest.raises(ConfigError, match="did you mean 'silu'"):
        block(8, 8, activation="sillu")
