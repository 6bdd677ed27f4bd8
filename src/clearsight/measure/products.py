"""What sums of products cost: convolutions, matrix products, attention."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from torch import Tensor

__all__ = ["ATTENTION", "PRODUCTS", "Cost", "Work"]


class Work(NamedTuple):
    """What one operation computes.

    Args:
        multiply_adds: products that are summed; one multiplication and its addition are 1.
        flops: floating-point multiplications, additions and others, each 1: a sum of k products is 2k − 1.
    """

    multiply_adds: int
    flops: int


Cost = Callable[[Sequence[Any], Mapping[str, Any], Any], Work | None]
"""Arguments, keyword arguments and result of an operation → its work; None where it cannot be told from these."""


def _sum(products: int, sums: int, *, more: int = 0) -> Work:
    """Products that are added up in so many sums, and FLOPs beside them."""
    return Work(products, 2 * products - min(sums, products) + more)


# ------------------------------------------------------------------------------------------------ convolution
def _convolution(args: Sequence[Any], kwargs: Mapping[str, Any], out: Tensor) -> Work:
    """(2·C_in/g·k² − 1)·C_out·h·w, and C_out·h·w with a bias; padded zeros are multiplied like other values.

    A transposed one spreads each input over C_out/g·k² places of the output, those that are cropped too; places that
    no input reaches, between kernels smaller than the stride, are no sums.
    """
    x, weight, bias, transposed = args[0], args[1], args[2], args[6]
    products = (x if transposed else out).numel() * math.prod(weight.shape[1:])
    sides = zip(out.shape[2:], x.shape[2:], weight.shape[2:], strict=True)
    reached = math.prod(min(side, before * kernel) if transposed else side for side, before, kernel in sides)
    return _sum(products, math.prod(out.shape[:2]) * reached, more=0 if bias is None else out.numel())


def _convolution_backward(args: Sequence[Any], kwargs: Mapping[str, Any], out: Any) -> Work:  # noqa: ANN401
    """Each gradient takes every product of the forward pass once, grouped or not; that of the bias is a sum."""
    grad, x, weight, transposed = args[0], args[1], args[2], args[7]
    to_input, to_weight, to_bias = args[10]
    products = (x if transposed else grad).numel() * math.prod(weight.shape[1:])
    channels = weight.shape[1] * args[9] if transposed else weight.shape[0]
    work = [_sum(products, x.numel())] * bool(to_input) + [_sum(products, weight.numel())] * bool(to_weight)
    more = grad.numel() - channels if to_bias else 0
    return Work(sum(one.multiply_adds for one in work), sum(one.flops for one in work) + max(more, 0))


def _deformable(args: Sequence[Any], kwargs: Mapping[str, Any], out: Tensor) -> Work:
    """Deformable convolution of torchvision: each input of a product is interpolated first, 9 FLOPs, and masked."""
    x, weight, mask, bias = args[0], args[1], args[3], args[4]
    places = out.numel() // max(out.shape[1], 1)  # n·h·w
    samples = places * x.shape[1] * math.prod(weight.shape[2:])
    sampling = samples * (9 + bool(mask.numel()))
    return _sum(
        out.numel() * math.prod(weight.shape[1:]), out.numel(), more=sampling + out.numel() * (bias is not None)
    )


# ------------------------------------------------------------------------------------------------ matrices
def _matrix(first: int) -> Cost:
    """`(…, m, k)` by `(…, k, n)`, at arguments `first` and `first + 1`; the one before them, if any, is added."""

    def work(args: Sequence[Any], kwargs: Mapping[str, Any], out: Tensor) -> Work:
        left, right = args[first], args[first + 1]
        products = left.numel() * (right.shape[-1] if right.ndim > 1 else 1)
        inner = left.shape[-1]
        sums = products // inner if inner else 0
        added = first == 1 and kwargs.get("beta", 1) != 0
        # addbmm adds the batch's products up, too
        more = max(sums - out.numel(), 0) + (out.numel() if added else 0)
        if left.is_complex():
            return Work(4 * products, 8 * products - 2 * sums + 2 * more)
        return _sum(products, sums, more=more)

    return work


def _activated(args: Sequence[Any], kwargs: Mapping[str, Any], out: Tensor) -> Work:
    """A linear layer with ReLU or GELU in one, as PyTorch fuses them on some devices."""
    products = args[1].numel() * args[2].shape[-1]
    return _sum(products, out.numel(), more=out.numel() * (6 if kwargs.get("use_gelu") else 2))


def _bilinear(args: Sequence[Any], kwargs: Mapping[str, Any], out: Tensor) -> Work:
    """`nn.Bilinear`: y_o = Σ_ij x_i W_oij z_j, one multiplication more for each product."""
    products = out.numel() * math.prod(args[1].shape[-2:])
    return _sum(products, out.numel(), more=products)


# ------------------------------------------------------------------------------------------------ attention
_MASK_AT = {"_scaled_dot_product_efficient_attention": 3, "_scaled_dot_product_cudnn_attention": 3}


def _attention(name: str) -> Cost:
    """Fused attention, `(n, heads, s, d)`: all pairs are counted, also those that a mask takes away."""

    def work(args: Sequence[Any], kwargs: Mapping[str, Any], out: Any) -> Work:  # noqa: ANN401
        query, key, value = args[:3]
        rows = math.prod(query.shape[:-1])
        scores = rows * key.shape[-2]
        place = _MASK_AT.get(name)
        masked = kwargs.get("attn_mask") is not None or (place is not None and args[place] is not None)
        likeness = _sum(scores * query.shape[-1], scores)
        mixing = _sum(scores * value.shape[-1], rows * value.shape[-1])
        # scaled, masked, softmax
        between = scores * (1 + masked) + 5 * scores - 2 * rows
        return Work(likeness.multiply_adds + mixing.multiply_adds, likeness.flops + mixing.flops + between)

    return work


def _attention_backward(args: Sequence[Any], kwargs: Mapping[str, Any], out: Any) -> Work:  # noqa: ANN401
    """Five products for the forward pass's two: what attends to what is not kept but computed again."""
    query, key, value = args[1:4]
    rows = math.prod(query.shape[:-1])
    scores = rows * key.shape[-2]
    deep, wide = query.shape[-1], value.shape[-1]
    sums = scores + math.prod(value.shape) + scores + math.prod(query.shape) + math.prod(key.shape)
    # again: scaled, shifted, exponential; then P (dP − D) scaled, with D the rows' sums of dO·O
    between = 3 * scores + 3 * scores + rows * (2 * wide - 1)
    return _sum(scores * (3 * deep + 2 * wide), sums, more=between)


ATTENTION = (
    "_scaled_dot_product_flash_attention_for_cpu",
    "_scaled_dot_product_flash_attention",
    "_scaled_dot_product_efficient_attention",
    "_scaled_dot_product_cudnn_attention",
    "_scaled_dot_product_fused_attention_overrideable",
)
"""PyTorch's fused attentions; each has a `_backward` beside it."""

PRODUCTS: dict[str, Cost] = {
    "convolution": _convolution,
    "_convolution": _convolution,
    "convolution_overrideable": _convolution,
    "convolution_backward": _convolution_backward,
    "torchvision.deform_conv2d": _deformable,
    "mm": _matrix(0),
    "bmm": _matrix(0),
    "mv": _matrix(0),
    "dot": _matrix(0),
    "vdot": _matrix(0),
    "_int_mm": _matrix(0),
    "_scaled_mm": _matrix(0),
    "addmm": _matrix(1),
    "addmv": _matrix(1),
    "baddbmm": _matrix(1),
    "addbmm": _matrix(1),
    "_addmm_activation": _activated,
    "_trilinear": _bilinear,
    **{name: _attention(name) for name in ATTENTION},
    **{f"{name}_backward": _attention_backward for name in ATTENTION},
}
"""Cost by name of the operation, `aten.` left away."""
