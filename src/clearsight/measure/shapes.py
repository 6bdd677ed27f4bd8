"""Results of frequent operations on the meta device, without PyTorch's checks, which take longer than a small network.

Each rule gives what PyTorch would, shape, type and strides, or None: then PyTorch is asked.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch._ops import OpOverload

__all__ = ["shape_rule"]

ShapeRule = Callable[[Sequence[Any], Mapping[str, Any]], Any]


def _alike(first: Tensor, args: Sequence[Any]) -> bool:
    """Whether every tensor has the shape and type of the first, and that is a floating-point type."""
    shape, dtype = first.shape, first.dtype
    if not dtype.is_floating_point:
        return False
    return all(
        not isinstance(one, complex) and (not isinstance(one, Tensor) or (one.shape == shape and one.dtype == dtype))
        for one in args
    )


def _like(x: Tensor) -> Tensor:
    """Its shape, type and strides: `torch.empty_like`, which is slow on the meta device."""
    if x.is_contiguous():
        return x.new_empty(x.shape)
    return x.new_empty_strided(x.shape, x.stride()) if _channels_last(x) else torch.empty_like(x)


def _like_first(args: Sequence[Any], kwargs: Mapping[str, Any]) -> Tensor | None:
    return _like(args[0]) if _alike(args[0], args) else None


def _first_itself(args: Sequence[Any], kwargs: Mapping[str, Any]) -> Tensor | None:
    """What works in place; counters, such as a batch norm's, have one whole number added."""
    first = args[0]
    if len(args) > 1 and isinstance(args[1], Tensor) and first.ndim == args[1].ndim == 0:
        return first if first.dtype == args[1].dtype else None
    return first if _alike(first, args) else None


def _softmax(args: Sequence[Any], kwargs: Mapping[str, Any]) -> Tensor | None:
    plain = len(args) > 2 and args[2] is False
    return args[0].new_empty(args[0].shape) if plain else None


# ------------------------------------------------------------------------------------------------ convolution
def _channels_last(x: Tensor) -> bool:
    return x.ndim == 4 and not x.is_contiguous() and x.is_contiguous(memory_format=torch.channels_last)


def _convolution(args: Sequence[Any], kwargs: Mapping[str, Any]) -> Tensor | None:
    x, weight, _, stride, padding, dilation, transposed, _, groups = args
    axes = x.ndim - 2
    if transposed or x.ndim != weight.ndim or x.shape[1] != weight.shape[1] * groups or x.dtype != weight.dtype:
        return None
    if len(stride) != axes or len(padding) != axes or len(dilation) != axes:
        return None
    sides = [
        (size + 2 * pad - step * (kernel - 1) - 1) // jump + 1
        for size, kernel, jump, pad, step in zip(x.shape[2:], weight.shape[2:], stride, padding, dilation, strict=True)
    ]
    if min(sides) < 1:
        return None
    y = x.new_empty((x.shape[0], weight.shape[0], *sides))
    return y.to(memory_format=torch.channels_last) if _channels_last(x) or _channels_last(weight) else y


def _convolution_backward(args: Sequence[Any], kwargs: Mapping[str, Any]) -> tuple[Tensor | None, ...]:
    _, x, weight, bias = args[:4]
    to_input, to_weight, to_bias = args[10]
    return (
        _like(x) if to_input else None,
        _like(weight) if to_weight else None,
        weight.new_empty(bias) if to_bias else None,
    )


# ------------------------------------------------------------------------------------------------ normalisation
def _batch_norm(args: Sequence[Any], kwargs: Mapping[str, Any]) -> tuple[Tensor, Tensor, Tensor] | None:
    x, training = args[0], args[5]
    if x.ndim < 2 or (training and x.dtype != torch.float32) or not x.dtype.is_floating_point:
        return None
    if any(one is not None and len(one) != x.shape[1] for one in args[1:5]):
        return None
    channels = x.shape[1] if training else 0
    return _like(x), x.new_empty(channels), x.new_empty(channels)


def _batch_norm_backward(args: Sequence[Any], kwargs: Mapping[str, Any]) -> tuple[Tensor | None, ...] | None:
    x, weight, wanted = args[1], args[2], args[9]
    if x.dtype != torch.float32:
        return None
    return (
        _like(x) if wanted[0] else None,
        x.new_empty(x.shape[1]) if wanted[1] and weight is not None else None,
        x.new_empty(x.shape[1]) if wanted[2] and weight is not None else None,
    )


def _layer_norm(args: Sequence[Any], kwargs: Mapping[str, Any]) -> tuple[Tensor, Tensor, Tensor] | None:
    x, inner, weight = args[0], args[1], args[2]
    axes = len(inner)
    if x.dtype != torch.float32 or tuple(x.shape[x.ndim - axes :]) != tuple(inner):
        return None
    if weight is not None and weight.shape != torch.Size(inner):
        return None
    rows = (*x.shape[: x.ndim - axes], *(1,) * axes)
    y = x.new_empty(x.shape)
    return y, x.new_empty(rows), x.new_empty(rows)


def _layer_norm_backward(args: Sequence[Any], kwargs: Mapping[str, Any]) -> tuple[Tensor | None, ...] | None:
    x, weight, bias, wanted = args[1], args[5], args[6], args[7]
    if x.dtype != torch.float32:
        return None
    return (
        x.new_empty(x.shape) if wanted[0] else None,
        _like(weight) if wanted[1] and weight is not None else None,
        _like(bias) if wanted[2] and bias is not None else None,
    )


# ------------------------------------------------------------------------------------------------ matrices
def _mm(args: Sequence[Any], kwargs: Mapping[str, Any]) -> Tensor | None:
    left, right = args[-2:]
    fits = left.ndim == 2 and right.ndim == 2 and left.shape[1] == right.shape[0] and left.dtype == right.dtype
    return left.new_empty((left.shape[0], right.shape[1])) if fits else None


def _addmm(args: Sequence[Any], kwargs: Mapping[str, Any]) -> Tensor | None:
    added, right = args[0], args[2]
    fits = added.shape == right.shape[1:] and added.dtype == right.dtype
    return _mm(args, kwargs) if fits else None


_LIKE = (
    "add.Tensor", "sub.Tensor", "mul.Tensor", "div.Tensor", "mul.Scalar", "div.Scalar", "gelu", "gelu_backward",
    "hardsigmoid", "hardsigmoid_backward", "hardswish", "hardswish_backward", "hardtanh", "hardtanh_backward",
    "leaky_relu", "leaky_relu_backward", "relu", "sigmoid", "sigmoid_backward", "silu", "silu_backward", "tanh",
    "tanh_backward", "threshold_backward",
)  # fmt: skip
_ITSELF = (
    "add_.Tensor", "mul_.Tensor", "div_.Tensor", "mul_.Scalar", "div_.Scalar", "hardsigmoid_", "hardswish_",
    "hardtanh_", "leaky_relu_", "relu_", "sigmoid_", "silu_", "tanh_",
)  # fmt: skip
RULES: dict[str, ShapeRule] = {
    **dict.fromkeys(_LIKE, _like_first),
    **dict.fromkeys(_ITSELF, _first_itself),
    "_softmax": _softmax,
    "_log_softmax": _softmax,
    "convolution": _convolution,
    "convolution_backward": _convolution_backward,
    "native_batch_norm": _batch_norm,
    "_native_batch_norm_legit": _batch_norm,
    "native_batch_norm_backward": _batch_norm_backward,
    "native_layer_norm": _layer_norm,
    "native_layer_norm_backward": _layer_norm_backward,
    "mm": _mm,
    "addmm": _addmm,
}
"""By name, `aten.` and `.default` left away."""


@cache
def shape_rule(operation: OpOverload) -> ShapeRule | None:
    """What gives an operation's result from its arguments and keyword arguments, or None where PyTorch is asked."""
    return RULES.get(str(operation).removeprefix("aten.").removesuffix(".default"))
