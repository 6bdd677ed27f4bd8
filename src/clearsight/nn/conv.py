"""The blocks that most networks are made of: convolution, normalisation and activation, in either order."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clearsight.errors import ConfigError, nearest
from clearsight.nn.activation import activation as make_activation
from clearsight.nn.checks import check_divides, check_positive, check_rank
from clearsight.nn.cross_iteration_norm import CrossIterationBatchNorm
from clearsight.nn.cross_mini_batch_norm import CrossMiniBatchNorm
from clearsight.nn.frozen_norm import FrozenBatchNorm
from clearsight.nn.norm import NORM_ALIASES
from clearsight.nn.norm import norm as make_norm
from clearsight.nn.winograd import winograd_conv2d, winograd_pays

__all__ = [
    "ORDERS",
    "ConvNormAct",
    "ConvSequential",
    "NormActConv",
    "conv_block",
    "conv_norm",
    "convolve",
    "norm_after",
]

Size = int | tuple[int, ...]
Convolution = nn.Conv1d | nn.Conv2d | nn.Conv3d
CONVOLUTIONS: dict[int, type[Convolution]] = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
LAYOUTS = {1: "n c w", 2: "n c h w", 3: "n c d h w"}

# By exact type or method: a subclass may do something else with its weight or output, and is called as it is.
_CONVOLVE: dict[type[nn.Module], Callable[..., Tensor]] = {
    nn.Conv1d: F.conv1d,
    nn.Conv2d: F.conv2d,
    nn.Conv3d: F.conv3d,
}
_BATCH_NORM = (
    nn.BatchNorm2d.forward,
    nn.SyncBatchNorm.forward,
    CrossIterationBatchNorm.forward,
    CrossMiniBatchNorm.forward,
)
# Folding costs a pass over the weights and a fixed time, the norm one over the outputs. Measured on CPUs in outputs,
# forward alone and with backward.
_PER_WEIGHT, _PER_CALL = 4, 2**17


class ConvSequential(nn.Sequential):
    """`nn.Sequential` in which a convolution and the norm after it go through `conv_norm`; names are the same."""

    def forward(self, x: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        """The layers, one after the other."""
        convolution: nn.Module | None = None
        for layer in self:
            if convolution is not None:
                x = conv_norm(convolution, layer, x)
                convolution = None
            elif type(layer) in _CONVOLVE:
                convolution = layer
            else:
                x = layer(x)
        return x if convolution is None else convolve(convolution, x)


class ConvNormAct(ConvSequential):
    """Convolution, normalisation, activation; the convolution has a bias only where no normalisation follows.

    Indexed, and named in `state_dict`, as torchvision's `Conv2dNormActivation`: 0 convolution, 1 norm, 2 activation.

    Shape: x `(n, in_channels, h, w)` → `(n, out_channels, ceil(h / stride), ceil(w / stride))` for odd kernels; `h, w`
    is `w` with `dims=1` and `d, h, w` with `dims=3`.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        kernel: side of the kernel, or its sides; odd ones keep the size.
        stride: step, or steps.
        padding: on either side; None for `dilation * (kernel - 1) // 2`.
        dilation: distance between neighbours of the kernel.
        groups: channel groups of the convolution.
        bias: of the convolution; None for only where there is no norm.
        norm: a name of `nn.norm`, or None.
        activation: a name of `nn.activation`; `none` or None for no activation.
        dims: 1, 2 or 3 axes to convolve over.

    Raises:
        ConfigError: a name is unknown, groups do not divide the channels, or `dims` is none of 1, 2 and 3.
    """

    def __init__(  # noqa: PLR0913 - what a convolution, a norm and an activation take
        self,
        in_channels: int,
        out_channels: int,
        kernel: Size = 3,
        *,
        stride: Size = 1,
        padding: Size | None = None,
        dilation: Size = 1,
        groups: int = 1,
        bias: bool | None = None,
        norm: str | None = "batch",
        activation: str | None = "relu",
        dims: int = 2,
    ) -> None:
        bias = norm is None if bias is None else bias
        pad = _same(kernel, dilation, dims) if padding is None else padding
        convolution = _convolution(dims, in_channels, out_channels, kernel, stride, pad, dilation, groups, bias=bias)
        layers: list[nn.Module] = [convolution]
        if norm is not None:
            layers.append(norm_after(norm, convolution))
        if activation not in (None, "none"):
            layers.append(make_activation(activation))
        super().__init__(*layers)
        self.out_channels = out_channels
        self._layout = LAYOUTS[dims]

    def forward(self, x: Tensor) -> Tensor:
        """Convolve, normalise, activate."""
        check_rank(x, "ConvNormAct: x", self._layout)
        return super().forward(x)


class NormActConv(nn.Sequential):
    """Normalisation, activation, convolution: the order of a network whose shortcuts carry sums that nothing touches.

    Method: He et al. 2016, Identity Mappings in Deep Residual Networks, arXiv:1603.05027, section 4.1.

    Shape: as `ConvNormAct`. The input is left as it was, also where an activation works in place and there is no norm.

    Args:
        in_channels: channels of the input, and of the norm.
        out_channels: channels of the output.
        kernel: side of the kernel, or its sides; odd ones keep the size.
        stride: step, or steps.
        padding: on either side; None for `dilation * (kernel - 1) // 2`.
        dilation: distance between neighbours of the kernel.
        groups: channel groups of the convolution.
        bias: of the convolution; None for only where there is no norm: the next block's norm would take it away.
        norm: a name of `nn.norm`, or None.
        activation: a name of `nn.activation`; `none` or None for no activation.
        dims: 1, 2 or 3 axes to convolve over.

    Raises:
        ConfigError: a name is unknown, groups do not divide the channels, or `dims` is none of 1, 2 and 3.
    """

    def __init__(  # noqa: PLR0913 - what a convolution, a norm and an activation take
        self,
        in_channels: int,
        out_channels: int,
        kernel: Size = 3,
        *,
        stride: Size = 1,
        padding: Size | None = None,
        dilation: Size = 1,
        groups: int = 1,
        bias: bool | None = None,
        norm: str | None = "batch",
        activation: str | None = "relu",
        dims: int = 2,
    ) -> None:
        bias = norm is None if bias is None else bias
        pad = _same(kernel, dilation, dims) if padding is None else padding
        convolution = _convolution(dims, in_channels, out_channels, kernel, stride, pad, dilation, groups, bias=bias)
        layers = [] if norm is None else [make_norm(norm, in_channels, dims=dims)]
        if activation not in (None, "none"):
            act = make_activation(activation)
            if hasattr(act, "inplace") and (norm is None or isinstance(layers[0], nn.Identity)):
                act.inplace = False  # pyright: ignore[reportArgumentType]
            layers.append(act)
        super().__init__(*layers, convolution)
        self.out_channels = out_channels
        self._layout = LAYOUTS[dims]

    def forward(self, x: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Normalise, activate, convolve."""
        check_rank(x, "NormActConv: x", self._layout)
        return super().forward(x)


ORDERS: dict[str, type[ConvNormAct | NormActConv]] = {"conv-norm-act": ConvNormAct, "norm-act-conv": NormActConv}


def conv_block(  # noqa: PLR0913 - what a convolution, a norm and an activation take
    in_channels: int,
    out_channels: int,
    kernel: Size = 3,
    *,
    order: str = "conv-norm-act",
    stride: Size = 1,
    padding: Size | None = None,
    dilation: Size = 1,
    groups: int = 1,
    bias: bool | None = None,
    norm: str | None = "batch",
    activation: str | None = "relu",
    dims: int = 2,
) -> ConvNormAct | NormActConv:
    """A convolution with its norm and activation, in an order by name.

    Args:
        in_channels: as in `ConvNormAct`, like all others.
        out_channels: channels of the output.
        kernel: side of the kernel, or its sides.
        order: `conv-norm-act`, or `norm-act-conv` (pre-activation).
        stride: step, or steps.
        padding: on either side; None keeps the size at stride 1.
        dilation: distance between neighbours of the kernel.
        groups: channel groups of the convolution.
        bias: of the convolution; None for only where there is no norm.
        norm: a name of `nn.norm`, or None.
        activation: a name of `nn.activation`, or None.
        dims: 1, 2 or 3 axes to convolve over.

    Raises:
        ConfigError: a name is unknown, groups do not divide the channels, or `dims` is none of 1, 2 and 3.

    Example:
        >>> conv_block(3, 8, order="norm-act-conv", dilation=2)(torch.zeros(1, 3, 9, 9)).shape
        torch.Size([1, 8, 9, 9])
    """
    if order not in ORDERS:
        raise ConfigError(f"order: there is none named {order!r}{nearest(order, ORDERS)}")
    return ORDERS[order](
        in_channels,
        out_channels,
        kernel,
        stride=stride,
        padding=padding,
        dilation=dilation,
        groups=groups,
        bias=bias,
        norm=norm,
        activation=activation,
        dims=dims,
    )


def norm_after(name: str, convolution: Convolution) -> nn.Module:
    """The normalisation layer for a convolution's output.

    Args:
        name: a name of `nn.norm`; `cross_iteration` too, which has to know the convolution.
        convolution: the one before it.

    Raises:
        ConfigError: the name is unknown, or the norm does not go after this convolution.
    """
    knows = convolution if NORM_ALIASES.get(name, name) == "cross_iteration" else None
    dims = convolution.weight.ndim - 2
    return make_norm(name, convolution.out_channels, dims=dims, after=knows)  # pyright: ignore[reportArgumentType]


def conv_norm(convolution: nn.Module, norm: nn.Module, x: Tensor) -> Tensor:
    """A convolution and the normalisation after it; in one, where the norm has fixed statistics and it saves time.

    A batch norm in evaluation mode, or a frozen one, only scales and shifts each channel: `w' = γ w / √(v + ε)` and
    `b' = γ (b - m) / √(v + ε) + β`. That puts one pass over the weights in place of one over the activations forward
    and two backward, which on CPUs cost about as much as a 1×1 convolution of few channels. Small maps behind many
    weights, as in the last stages at small batches, would lose by it and go through the two layers. Gradients of w, γ
    and β are those of the two layers. Layers that somebody watches by a hook are called one after the other too.

    Args:
        convolution: without bias or with one; any module, folded where it is PyTorch's own of 1, 2 or 3 dimensions.
        norm: of its output channels; any module. `CrossIterationBatchNorm` is given the convolution and x.
        x: `(n, in_channels, h, w)`, or what the convolution takes.
    """
    operation = _CONVOLVE.get(type(convolution))
    if operation is None or not _pays(convolution, x) or not _fixed(norm) or _watched(convolution) or _watched(norm):
        y = convolve(convolution, x)
        return norm(y, convolution, x) if isinstance(norm, CrossIterationBatchNorm) else norm(y)
    scale = (norm.running_var + norm.eps).rsqrt()  # pyright: ignore
    if norm.weight is not None:
        scale = norm.weight * scale  # pyright: ignore
    before = norm.running_mean if convolution.bias is None else norm.running_mean - convolution.bias  # pyright: ignore
    weight = convolution.weight * scale.view(-1, *[1] * (x.ndim - 1))  # pyright: ignore
    bias = -before * scale if norm.bias is None else norm.bias - before * scale  # pyright: ignore
    if isinstance(convolution, nn.Conv2d) and winograd_pays(x, convolution):
        return winograd_conv2d(x, weight, bias)
    sizes = convolution.stride, convolution.padding, convolution.dilation, convolution.groups
    return operation(x, weight, bias, *sizes)


def convolve(convolution: nn.Module, x: Tensor) -> Tensor:
    """A convolution by itself, by the faster way where nobody watches.

    Args:
        convolution: any module; 3×3 ones of PyTorch's own go through `winograd_conv2d` where that pays.
        x: `(n, in_channels, h, w)`, or what the convolution takes.
    """
    if type(convolution) is nn.Conv2d and winograd_pays(x, convolution) and not _watched(convolution):
        return winograd_conv2d(x, convolution.weight, convolution.bias)
    return convolution(x)


def _fixed(norm: nn.Module) -> bool:
    """Whether a norm only scales and shifts each channel by what it knows already."""
    if isinstance(norm, FrozenBatchNorm):
        return True
    return not norm.training and type(norm).forward in _BATCH_NORM and norm.running_mean is not None


def _pays(convolution: nn.Module, x: Tensor) -> bool:
    """Whether folding is cheaper than the norm; compiled code has no say in it, where sizes may be open.

    It is asked at every call, and for small images at every call in vain: what costs nothing is looked at first.
    """
    weight = convolution._parameters.get("weight")  # pyright: ignore[reportPrivateUsage]  # by its name it takes longer
    if weight is None or x.ndim != weight.ndim or convolution.padding_mode != "zeros":
        return False
    if torch.compiler.is_compiling():
        return True
    outputs = x.numel() * convolution.out_channels // (convolution.in_channels * math.prod(convolution.stride))  # pyright: ignore
    return outputs > _PER_CALL + _PER_WEIGHT * weight.numel()


def _watched(layer: nn.Module) -> bool:
    return bool(layer._forward_hooks or layer._forward_pre_hooks or layer._backward_hooks or layer._backward_pre_hooks)  # pyright: ignore[reportPrivateUsage]


def _same(kernel: Size, dilation: Size, dims: int) -> tuple[int, ...]:
    """The padding that keeps the size at stride 1."""
    pairs = zip(_sizes(kernel, dims, "kernel"), _sizes(dilation, dims, "dilation"), strict=True)
    return tuple(step * (side - 1) // 2 for side, step in pairs)


def _sizes(size: Size, dims: int, what: str) -> tuple[int, ...]:
    sizes = (size,) * dims if isinstance(size, int) else tuple(size)
    if len(sizes) != dims:
        raise ConfigError(f"{what}: expected one number or {dims}, got {size}")
    return sizes


def _convolution(  # noqa: PLR0913 - PyTorch's own arguments
    dims: int,
    in_channels: int,
    out_channels: int,
    kernel: Size,
    stride: Size,
    padding: Size,
    dilation: Size,
    groups: int,
    *,
    bias: bool,
) -> Convolution:
    if dims not in CONVOLUTIONS:
        raise ConfigError(f"dims: there are convolutions over 1, 2 and 3 axes, got {dims}")
    check_positive(in_channels, "in_channels")
    check_positive(out_channels, "out_channels")
    check_divides(in_channels, groups, "groups")
    check_divides(out_channels, groups, "groups")
    sizes = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups, "bias": bias}
    return CONVOLUTIONS[dims](in_channels, out_channels, kernel, **sizes)  # pyright: ignore[reportArgumentType]
