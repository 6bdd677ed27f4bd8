"""Folding: a layer with the norm after it, or layers side by side whose outputs are added, as one layer."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clearsight.errors import ConfigError, ShapeError
from clearsight.nn.checks import check_divides

__all__ = [
    "Foldable",
    "fold_into",
    "fold_norm",
    "folded_weights",
    "identity_kernel",
    "merge_convolutions",
    "norm_terms",
    "pad_kernel",
]

Convolution = nn.Conv1d | nn.Conv2d | nn.Conv3d
Transposed = nn.ConvTranspose1d | nn.ConvTranspose2d | nn.ConvTranspose3d
Foldable = Convolution | Transposed | nn.Linear
Layer = TypeVar("Layer", bound=Foldable)
Merged = TypeVar("Merged", nn.Conv1d, nn.Conv2d, nn.Conv3d)


def fold_norm(layer: Layer, norm: nn.Module) -> Layer:
    """A layer that does what a layer and the norm after it do in evaluation mode.

    `w' = γ w / √(v + ε)` and `b' = γ (b - m) / √(v + ε) + β`, computed in float64. Any padding, stride, dilation and
    groups; transposed convolutions with output padding too: a norm acts on each output channel alone.

    Method: Jacob et al. 2018, arXiv:1712.05877, section 3.2; Ding et al. 2021, arXiv:2101.03697, equation 3.

    Args:
        layer: a convolution, transposed or not, over 1, 2 or 3 axes, or a linear layer; with a bias or without.
        norm: what has running statistics: batch norm, with scale and shift or without, or a frozen one.

    Returns:
        A new layer like the first, with a bias; the two given are as before.

    Raises:
        ConfigError: the norm has no running statistics.
        ShapeError: it has other channels than the layer gives.

    Example:
        >>> conv, norm, x = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8).eval(), torch.randn(1, 3, 9, 9)
        >>> torch.allclose(fold_norm(conv, norm)(x), norm(conv(x)), atol=1e-5)
        True
    """
    folded = copy.deepcopy(layer)
    fold_into(folded, norm)
    return folded


def fold_into(layer: Foldable, norm: nn.Module) -> None:
    """`fold_norm` in place: the layer stays the object that it is, with its class and its hooks.

    Args:
        layer: as for `fold_norm`; it gets new parameters, so that others which shared the old ones keep those.
        norm: as for `fold_norm`.

    Raises:
        ConfigError: the norm has no running statistics.
        ShapeError: it has other channels than the layer gives.
    """
    weight, bias = folded_weights(layer, norm)
    learns = layer.weight.requires_grad
    kind = layer.weight.dtype
    layer.weight = nn.Parameter(weight.to(kind), requires_grad=learns)
    layer.bias = nn.Parameter(bias.to(kind), requires_grad=learns)


@torch.no_grad()
def folded_weights(layer: Foldable, norm: nn.Module) -> tuple[Tensor, Tensor]:
    """Weight and bias of a layer with the norm after it, in float64.

    Args:
        layer: as for `fold_norm`.
        norm: as for `fold_norm`.

    Raises:
        ConfigError: the norm has no running statistics.
        ShapeError: it has other channels than the layer gives.
    """
    scale, shift = norm_terms(norm)
    channels = layer.out_features if isinstance(layer, nn.Linear) else layer.out_channels
    if len(scale) != channels:
        raise ShapeError(f"norm: expected the {channels} channels that the layer gives, got {len(scale)}")
    weight = layer.weight.to(scale.dtype)
    if isinstance(layer, Transposed):
        ones = (1,) * (weight.ndim - 2)
        by_group = weight.unflatten(0, (layer.groups, -1))  # g c/g o/g …
        weight = (by_group * scale.view(layer.groups, 1, -1, *ones)).flatten(0, 1)
    else:
        weight = weight * scale.view(-1, *(1,) * (weight.ndim - 1))
    return weight, shift if layer.bias is None else layer.bias * scale + shift


@torch.no_grad()
def norm_terms(norm: nn.Module) -> tuple[Tensor, Tensor]:
    """What a norm with running statistics multiplies each channel by, and what it adds, `(c,)` float64 each.

    Args:
        norm: batch norm, with scale and shift or without, or a frozen one.

    Raises:
        ConfigError: it has no running statistics.
    """
    mean, var = getattr(norm, "running_mean", None), getattr(norm, "running_var", None)
    if not isinstance(mean, Tensor) or not isinstance(var, Tensor):
        raise ConfigError(f"norm: {type(norm).__name__} has no running statistics; it depends on each batch or image")
    # MPS has no float64.
    kind = torch.float32 if var.device.type == "mps" else torch.float64
    scale = (var.to(kind) + norm.eps).rsqrt()  # pyright: ignore[reportOperatorIssue, reportArgumentType]
    if isinstance(norm.weight, Tensor):
        scale = scale * norm.weight
    shift = -mean * scale
    return scale, shift + norm.bias if isinstance(norm.bias, Tensor) else shift


def identity_kernel(channels: int, size: Sequence[int], *, groups: int = 1) -> Tensor:
    """The weight of a convolution that, padded by half its size, gives what it gets.

    Args:
        channels: of input and output.
        size: sides of the kernel, odd.
        groups: of the convolution.

    Returns:
        `(channels, channels / groups, *size)`: ones at the centre, from each channel to itself.

    Raises:
        ConfigError: a side is even, or the groups do not divide the channels.
    """
    check_divides(channels, groups, "groups")
    _check_odd_sides(size)
    weight = torch.zeros(channels, channels // groups, *size)
    own = torch.arange(channels)
    weight[(own, own % (channels // groups), *(side // 2 for side in size))] = 1
    return weight


def pad_kernel(weight: Tensor, size: Sequence[int]) -> Tensor:
    """A kernel with zeros around it, its centre in the centre of the larger one.

    Args:
        weight: `(o, c, *sides)`, sides odd.
        size: the larger sides, odd.

    Raises:
        ConfigError: a side is even, or larger than it is to be.
        ShapeError: there are more or fewer sides.
    """
    if len(size) != weight.ndim - 2:
        raise ShapeError(f"size: expected {weight.ndim - 2} sides, got {tuple(size)}")
    _check_odd_sides((*weight.shape[2:], *size))
    before = [(new - old) // 2 for old, new in zip(weight.shape[2:], size, strict=True)]
    if min(before) < 0:
        raise ConfigError(f"size: a kernel of {tuple(weight.shape[2:])} does not fit in one of {tuple(size)}")
    return F.pad(weight, [side for half in reversed(before) for side in (half, half)])


@torch.no_grad()
def merge_convolutions(layers: Sequence[Merged]) -> Merged:
    """One convolution for several on the same input whose outputs are added: kernels are padded and added, too.

    Method: Ding et al. 2019, arXiv:1908.03930, section 3.2 (additivity), sums in float64.

    Args:
        layers: of odd kernels, with the same strides, groups and channels, whose kernels' centres lie on the same
            pixels: padding less half of the kernel is the same in all; the same dilation where kernels are larger
            than 1.

    Returns:
        A new convolution with the largest sides, and a bias where one of them has one.

    Raises:
        ConfigError: no layer is given, or they do not fit together; the message says in what.
    """
    if not layers:
        raise ConfigError("layers: expected at least one convolution, got none")
    merged = copy.deepcopy(layers[0])
    size = tuple(max(sides) for sides in zip(*(layer.kernel_size for layer in layers), strict=True))
    spread = tuple(_dilation(layers, axis) for axis in range(len(size)))
    first = _placement(layers[0], spread)
    for layer in layers[1:]:
        if _placement(layer, spread) != first:
            raise ConfigError(f"layers: these cannot be one convolution, their pixels differ: {layers[0]} and {layer}")
    kind = torch.float32 if merged.weight.device.type == "mps" else torch.float64
    weight = torch.stack([pad_kernel(layer.weight.to(kind), size) for layer in layers]).sum(0)
    biases = [layer.bias.to(kind) for layer in layers if layer.bias is not None]
    merged.weight = nn.Parameter(weight.to(merged.weight.dtype))
    merged.bias = nn.Parameter(torch.stack(biases).sum(0).to(merged.weight.dtype)) if biases else None
    merged.kernel_size = size
    merged.dilation = spread
    grown = zip(first[-1], spread, size, strict=True)
    merged.padding = tuple(off + step * (side // 2) for off, step, side in grown)
    reach = [side for both in reversed(merged.padding) for side in (both, both)]
    merged._reversed_padding_repeated_twice = reach  # pyright: ignore[reportPrivateUsage]  # of other padding modes
    return merged


def _dilation(layers: Sequence[Convolution], axis: int) -> int:
    """The step of the kernels along an axis; kernels of side 1 have none."""
    steps = {layer.dilation[axis] for layer in layers if layer.kernel_size[axis] > 1} or {1}
    if len(steps) > 1:
        raise ConfigError(f"layers: kernels of different dilation {sorted(steps)} cannot be one convolution")
    return steps.pop()


def _placement(
    layer: Convolution, dilation: Sequence[int]
) -> tuple[int, int, int, str, tuple[int, ...], tuple[int, ...]]:
    """What convolutions must have in common to be one; last, where the centres of their kernels start."""
    _check_odd_sides(layer.kernel_size)
    if isinstance(layer.padding, str):
        starts = (
            (0,) * len(dilation)
            if layer.padding == "same"
            else tuple(-step * (side // 2) for step, side in zip(dilation, layer.kernel_size, strict=True))
        )
    else:
        sizes = zip(layer.padding, dilation, layer.kernel_size, strict=True)
        starts = tuple(pad - step * (side // 2) for pad, step, side in sizes)
    return layer.in_channels, layer.out_channels, layer.groups, layer.padding_mode, tuple(layer.stride), starts


def _check_odd_sides(size: Sequence[int]) -> None:
    if any(side < 1 or side % 2 == 0 for side in size):
        raise ConfigError(f"size: kernels of odd sides have a centre, got {tuple(size)}")
