"""Folded layers give what the layers they came from give."""

from __future__ import annotations

from itertools import product

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval
from torchvision.ops import FrozenBatchNorm2d

from clearsight.errors import ConfigError, ShapeError
from clearsight.nn.fold import (
    fold_into,
    fold_norm,
    folded_weights,
    identity_kernel,
    merge_convolutions,
    norm_terms,
    pad_kernel,
)
from clearsight.nn.freeze import freeze_norm
from clearsight.nn.frozen_norm import FrozenBatchNorm

CONVOLUTIONS = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
TRANSPOSED = {1: nn.ConvTranspose1d, 2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}
NORMS = {1: nn.BatchNorm1d, 2: nn.BatchNorm2d, 3: nn.BatchNorm3d}


def learned(norm: nn.Module) -> nn.Module:
    """A norm with numbers that show when one is left out or in the wrong place."""
    for name, low, high in (
        ("running_mean", -1, 1),
        ("running_var", 0.3, 3),
        ("weight", -1.5, 1.5),
        ("bias", -1, 1),
    ):
        value = getattr(norm, name)
        if value is not None:
            value.data.uniform_(low, high)
    return norm.double().eval()


def same(layer: nn.Module, norm: nn.Module, x: Tensor) -> None:
    folded = fold_norm(layer, norm)  # pyright: ignore[reportArgumentType]
    assert type(folded) is type(layer)
    expected = norm(layer(x))
    torch.testing.assert_close(folded(x), expected, rtol=1e-12, atol=1e-12)
    assert (layer(x) - expected).abs().max() > 0.1  # the norm did something


@pytest.mark.parametrize("dims", [1, 2, 3])
@pytest.mark.parametrize(("groups", "bias"), list(product([1, 2, 4], [False, True])))
def test_convolutions(dims: int, groups: int, bias: bool) -> None:
    x = torch.randn(2, 4, *[9, 8, 7][:dims], dtype=torch.float64)
    for options in (
        {"padding": 1},
        {"stride": 2, "padding": 2, "dilation": 2},
        {"padding": "same"},
        {"padding": 1, "padding_mode": "reflect"},
    ):
        layer = CONVOLUTIONS[dims](4, 8, 3, groups=groups, bias=bias, **options).double()
        same(layer, learned(NORMS[dims](8)), x)


@pytest.mark.parametrize("dims", [1, 2, 3])
@pytest.mark.parametrize(("groups", "bias"), list(product([1, 2, 4], [False, True])))
def test_transposed_convolutions(dims: int, groups: int, bias: bool) -> None:
    x = torch.randn(2, 4, *[5, 4, 3][:dims], dtype=torch.float64)
    for options in ({}, {"stride": 2, "padding": 1, "output_padding": 1}, {"stride": 3, "dilation": 2}):
        layer = TRANSPOSED[dims](4, 8, 3, groups=groups, bias=bias, **options).double()
        same(layer, learned(NORMS[dims](8)), x)


@pytest.mark.parametrize("bias", [False, True])
def test_linear_layers(bias: bool) -> None:
    same(nn.Linear(5, 7, bias=bias).double(), learned(nn.BatchNorm1d(7)), torch.randn(3, 5, dtype=torch.float64))


def test_every_norm_with_running_statistics() -> None:
    x = torch.randn(2, 3, 6, 6, dtype=torch.float64)
    convolution = nn.Conv2d(3, 4, 3).double()
    frozen = nn.Sequential(nn.BatchNorm2d(4))
    freeze_norm(frozen, affine=True)
    for norm in (
        nn.BatchNorm2d(4, affine=False),
        nn.BatchNorm2d(4, eps=0.1),
        nn.SyncBatchNorm(4),
        FrozenBatchNorm(4, eps=1e-3),
        FrozenBatchNorm2d(4),
        frozen[0],
        nn.InstanceNorm2d(4, track_running_stats=True, affine=True),
    ):
        same(convolution, learned(norm), x)


@pytest.mark.parametrize(
    "layer", [nn.Conv2d(3, 6, 3), nn.ConvTranspose2d(3, 6, 3, stride=2)], ids=["plain", "transposed"]
)
def test_numbers_are_those_of_pytorchs_own_fusion(layer: nn.Conv2d | nn.ConvTranspose2d) -> None:
    layer, norm = layer.double(), learned(nn.BatchNorm2d(6))
    theirs = fuse_conv_bn_eval(layer.eval(), norm, transpose=isinstance(layer, nn.ConvTranspose2d))  # pyright: ignore
    ours = fold_norm(layer, norm)
    torch.testing.assert_close(ours.weight, theirs.weight)
    torch.testing.assert_close(ours.bias, theirs.bias)


def test_in_place_the_object_stays_and_sharers_keep_their_weights() -> None:
    first, second = nn.Conv2d(3, 3, 3, bias=False), nn.Conv2d(3, 3, 3, bias=False)
    second.weight = first.weight
    first.weight.requires_grad_(requires_grad=False)
    before = first.weight.clone()
    calls: list[int] = []
    first.register_forward_hook(lambda *_: calls.append(1))
    fold_into(first, learned(nn.BatchNorm2d(3)))
    first(torch.randn(1, 3, 5, 5))
    assert calls == [1]
    assert torch.equal(second.weight, before)
    assert not torch.equal(first.weight, before)
    assert first.bias is not None
    assert not first.weight.requires_grad
    assert not first.bias.requires_grad


def test_types_and_the_order_of_memory_stay_and_sums_have_all_digits() -> None:
    convolution = nn.Conv2d(3, 4, 3).to(torch.bfloat16, memory_format=torch.channels_last)
    norm = learned(nn.BatchNorm2d(4)).float()
    folded = fold_norm(convolution, norm)
    assert folded.weight.dtype == folded.bias.dtype == torch.bfloat16  # pyright: ignore[reportOptionalMemberAccess]
    assert folded.weight.is_contiguous(memory_format=torch.channels_last)
    weight, bias = folded_weights(convolution, norm)
    assert weight.dtype == bias.dtype == torch.float64
    scale, shift = norm_terms(norm)
    x = torch.randn(1, 4, 2, 2, dtype=torch.float64)
    torch.testing.assert_close(x * scale.view(4, 1, 1) + shift.view(4, 1, 1), norm.double()(x))


def test_identity_kernels_give_what_they_get() -> None:
    for groups in (1, 2, 4):
        x = torch.randn(1, 4, 6, 5)
        weight = identity_kernel(4, (3, 5), groups=groups)
        assert weight.shape == (4, 4 // groups, 3, 5)
        assert torch.equal(nn.functional.conv2d(x, weight, padding=(1, 2), groups=groups), x)


def test_padded_kernels_do_the_same() -> None:
    x, weight = torch.randn(1, 3, 8, 9), torch.randn(2, 3, 1, 3)
    grown = pad_kernel(weight, (5, 3))
    assert grown.shape == (2, 3, 5, 3)
    expected = nn.functional.conv2d(x, weight, padding=(0, 1))
    torch.testing.assert_close(nn.functional.conv2d(x, grown, padding=(2, 1)), expected)


@pytest.mark.parametrize("dims", [1, 2, 3])
def test_parallel_convolutions_are_one(dims: int) -> None:
    build = CONVOLUTIONS[dims]
    options = {"stride": 2, "groups": 2}
    layers = [
        build(4, 6, 3, padding=2, dilation=2, bias=False, **options),
        build(4, 6, 1, **options),
        build(4, 6, (5, *[1] * (dims - 1)), padding=(4, *[0] * (dims - 1)), dilation=2, **options),
    ]
    x = torch.randn(2, 4, *[11, 10, 9][:dims])
    merged = merge_convolutions(layers)
    assert merged.kernel_size == (5, *[3] * (dims - 1))
    expected = torch.stack([layer(x) for layer in layers]).sum(0)
    torch.testing.assert_close(merged(x), expected, rtol=1e-5, atol=1e-5)


def test_parallel_convolutions_of_other_padding_modes_and_without_bias() -> None:
    layers = [nn.Conv2d(2, 3, side, padding=side // 2, padding_mode="circular", bias=False) for side in (1, 5, 3)]
    x = torch.randn(1, 2, 9, 8)
    merged = merge_convolutions(layers)
    assert merged.bias is None
    torch.testing.assert_close(merged(x), torch.stack([layer(x) for layer in layers]).sum(0), rtol=1e-5, atol=1e-5)


def test_what_does_not_fit_is_refused() -> None:
    plain = nn.Conv2d(4, 4, 3, padding=1)
    for other in (
        nn.Conv2d(4, 4, 3),
        nn.Conv2d(4, 4, 3, padding=1, stride=2),
        nn.Conv2d(4, 4, 3, padding=1, groups=2),
        nn.Conv2d(4, 4, 3, padding=1, padding_mode="reflect"),
        nn.Conv2d(4, 2, 3, padding=1),
    ):
        with pytest.raises(ConfigError, match="cannot be one convolution, their pixels differ"):
            merge_convolutions([plain, other])
    with pytest.raises(ConfigError, match=r"different dilation \[1, 2\]"):
        merge_convolutions([plain, nn.Conv2d(4, 4, 3, padding=2, dilation=2)])
    with pytest.raises(ConfigError, match="at least one"):
        merge_convolutions([])
    with pytest.raises(ConfigError, match="odd sides"):
        merge_convolutions([nn.Conv2d(4, 4, 2)])
    with pytest.raises(ConfigError, match="no running statistics"):
        fold_norm(plain, nn.GroupNorm(2, 4))
    with pytest.raises(ConfigError, match="no running statistics"):
        fold_norm(plain, nn.BatchNorm2d(4, track_running_stats=False))
    with pytest.raises(ShapeError, match="the 4 channels that the layer gives, got 5"):
        fold_norm(plain, nn.BatchNorm2d(5))
    with pytest.raises(ConfigError, match="odd sides"):
        identity_kernel(4, (3, 4))
    with pytest.raises(ConfigError, match="does not divide 4"):
        identity_kernel(4, (3, 3), groups=3)
    with pytest.raises(ConfigError, match="does not fit"):
        pad_kernel(torch.zeros(1, 1, 5, 5), (3, 7))
    with pytest.raises(ShapeError, match="expected 2 sides"):
        pad_kernel(torch.zeros(1, 1, 5, 5), (7,))
