"""What every operation of PyTorch costs: sums of products, and all others by a few rules.

A product that is summed is a multiply-add; nothing else is. A FLOP is one multiplication, addition, comparison,
division, exponential, logarithm, root or trigonometric function of a floating-point number. Moving, casting, indexing,
drawing random numbers and arithmetic on integers cost none. Of what has no rule it is said that it was not counted.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor
from torch._ops import OpOverload

from clearsight.measure.pointwise import ELEMENTWISE, REDUCTIONS, elementwise, first_of
from clearsight.measure.products import PRODUCTS, Cost, Work

__all__ = ["Reads", "Rule", "rule_of"]

Reads = Literal["all", "chosen", "others", "nothing"]
"""What an operation reads: its inputs; as much as it gives; all but the first; it does not touch memory at all."""


class Rule(NamedTuple):
    """How an operation is counted.

    Args:
        cost: its work; None for what moves numbers and computes none.
        reads: which of its tensors are read.
    """

    cost: Cost | None
    reads: Reads = "all"


def _flops(number: float) -> Work:
    return Work(0, max(int(number), 0))


# ------------------------------------------------------------------------------------------------ gradients of choices
def _accumulated(args: Sequence[Any], kwargs: Mapping[str, Any], out: Any) -> Work:  # noqa: ANN401
    accumulate = args[3] if len(args) > 3 else kwargs.get("accumulate", False)
    return _flops(args[2].numel() if accumulate else 0)


def _scattered(args: Sequence[Any], kwargs: Mapping[str, Any], out: Any) -> Work:  # noqa: ANN401
    """Gradients of what was chosen (a maximum, a row of a table) are added where they belong."""
    return _flops(args[0].numel())


# ------------------------------------------------------------------------------------------------ normalisation
def _batch_norm(training_at: int | None) -> Cost:
    """2 FLOPs a value with known statistics, 6 where mean and variance are taken first; 6 a channel beside."""

    def work(args: Sequence[Any], kwargs: Mapping[str, Any], out: Any) -> Work:  # noqa: ANN401
        x = args[0]
        place = 3 if training_at is not None and len(args) == 6 else training_at
        training = place is not None and bool(args[place])
        return _flops((6 if training else 2) * x.numel() + 6 * (x.shape[1] if x.ndim > 1 else 1))

    return work


def _batch_norm_backward(args: Sequence[Any], kwargs: Mapping[str, Any], out: Any) -> Work:  # noqa: ANN401
    """Through the batch's mean and variance 9 FLOPs a value; with known statistics 1, and 5 for scale and shift."""
    x, training, wanted = args[1], args[7], args[9]
    return _flops((9 if training else 1 + 5 * bool(wanted[1] or wanted[2])) * x.numel())


def _layer_norm(scale_at: int) -> Cost:
    """Layer or group norm: 6 FLOPs a value, 3 a mean, and 1 a value for the scale and for the shift."""

    def work(args: Sequence[Any], kwargs: Mapping[str, Any], out: Any) -> Work:  # noqa: ANN401
        x, scale, shift = args[0], args[scale_at], args[scale_at + 1]
        return _flops((6 + (scale is not None) + (shift is not None)) * x.numel() + 3 * out[1].numel())

    return work


def _layer_norm_backward(args: Sequence[Any], kwargs: Mapping[str, Any], out: Any) -> Work:  # noqa: ANN401
    wanted = args[-1]
    return _flops((9 + 3 * bool(wanted[1]) + bool(wanted[2])) * args[1].numel())


# ------------------------------------------------------------------------------------------------ pooling, FFT, others
def _pool(axes: int, *, divides: bool) -> Cost:
    """Windows of k values: k − 1 comparisons, or k − 1 additions and a division."""

    def work(args: Sequence[Any], kwargs: Mapping[str, Any], out: Any) -> Work:  # noqa: ANN401
        size = [args[1]] * axes if isinstance(args[1], int) else list(args[1])
        window = math.prod(size * axes if len(size) == 1 else size)
        return _flops(first_of(out).numel() * (window if divides else window - 1))

    return work


def _pool_backward(args: Sequence[Any], kwargs: Mapping[str, Any], out: Any) -> Work:  # noqa: ANN401
    """Average pooling: one division a window, one addition a value of it."""
    return _flops(args[0].numel() * (1 + math.prod(args[2])))


def _windows(inner: Sequence[int], outer: Sequence[int]) -> int:
    """Values in all windows of an adaptive pool: along each axis from ⌊i·n/m⌋ to ⌈(i + 1)·n/m⌉."""
    return math.prod(
        sum(-((-(i + 1) * n) // m) - i * n // m for i in range(m)) for n, m in zip(inner, outer, strict=True)
    )


def _adaptive(axes: int, *, divides: bool) -> Cost:
    def work(args: Sequence[Any], kwargs: Mapping[str, Any], out: Any) -> Work:  # noqa: ANN401
        x, y = args[0], first_of(out)
        maps = math.prod(y.shape[:-axes])
        return _flops(maps * _windows(x.shape[-axes:], y.shape[-axes:]) - (0 if divides else y.numel()))

    return work


def _adaptive_backward(args: Sequence[Any], kwargs: Mapping[str, Any], out: Tensor) -> Work:
    grad, axes = args[0], 2 if args[0].ndim < 5 else 3
    return _flops(grad.numel() + math.prod(grad.shape[:-axes]) * _windows(out.shape[-axes:], grad.shape[-axes:]))


def _fourier(factor: float, *, real_out: bool = False) -> Cost:
    """5·n·log2(n) FLOPs for n complex values, half where one side is real (the radix-2 algorithm's, any n)."""

    def work(args: Sequence[Any], kwargs: Mapping[str, Any], out: Tensor) -> Work:
        x = out if real_out else args[0]
        length = math.prod(x.shape[axis] for axis in args[1])
        return _flops(factor * x.numel() * math.log2(length) if length > 1 else 0)

    return work


def _sampled(args: Sequence[Any], kwargs: Mapping[str, Any], out: Tensor) -> Work:
    """`grid_sample`: pixels from coordinates, 3 FLOPs an axis, then bilinear, nearest or bicubic interpolation."""
    return _flops((9, 0, 35)[args[2]] * out.numel() + 3 * args[1].numel())


def _roi_align(args: Sequence[Any], kwargs: Mapping[str, Any], out: Tensor) -> Work | None:
    """Known only with a fixed number of samples a bin; each is interpolated, and they are averaged."""
    samples = args[5]
    return _flops(out.numel() * 10 * samples**2) if samples > 0 else None


COSTS: dict[str, Cost] = {
    **PRODUCTS,
    **ELEMENTWISE,
    **REDUCTIONS,
    **{name: _batch_norm(5) for name in ("native_batch_norm", "_native_batch_norm_legit", "cudnn_batch_norm")},
    "miopen_batch_norm": _batch_norm(5),
    "_native_batch_norm_legit_no_training": _batch_norm(None),
    "_batch_norm_no_update": _batch_norm(None),
    "native_batch_norm_backward": _batch_norm_backward,
    "batch_norm_backward": _batch_norm_backward,
    "cudnn_batch_norm_backward": lambda args, kwargs, out: _flops(9 * args[0].numel()),
    "native_layer_norm": _layer_norm(2),
    "native_group_norm": _layer_norm(1),
    "native_layer_norm_backward": _layer_norm_backward,
    "native_group_norm_backward": _layer_norm_backward,
    **{f"avg_pool{axes}d": _pool(axes, divides=True) for axes in (1, 2, 3)},
    **{f"avg_pool{axes}d_backward": _pool_backward for axes in (2, 3)},
    **{f"max_pool{axes}d_with_indices": _pool(axes, divides=False) for axes in (2, 3)},
    **{f"max_pool{axes}d_with_indices_backward": _scattered for axes in (2, 3)},
    **{f"_adaptive_avg_pool{axes}d": _adaptive(axes, divides=True) for axes in (2, 3)},
    **{f"_adaptive_avg_pool{axes}d_backward": _adaptive_backward for axes in (2, 3)},
    **{f"adaptive_max_pool{axes}d": _adaptive(axes, divides=False) for axes in (2, 3)},
    **{f"adaptive_max_pool{axes}d_backward": _scattered for axes in (2, 3)},
    "embedding_dense_backward": _scattered,
    **{f"{kind}_pad{axes}d_backward": _scattered for kind in ("reflection", "replication") for axes in (1, 2, 3)},
    "index_put": _accumulated,
    "_index_put_impl": _accumulated,
    "_unsafe_index_put": _accumulated,
    "_fft_c2c": _fourier(5),
    "_fft_r2c": _fourier(2.5),
    "_fft_c2r": _fourier(2.5, real_out=True),
    "grid_sampler_2d": _sampled,
    "torchvision.roi_align": _roi_align,
}

_COPIES = (
    "_local_scalar_dense", "_reshape_copy", "_to_copy", "_upsample_nearest_exact1d", "_upsample_nearest_exact2d",
    "_upsample_nearest_exact3d", "as_strided_scatter", "bincount", "cat", "channel_shuffle", "clone", "complex",
    "constant_pad_nd", "contiguous", "diag_embed", "diagonal_backward", "diagonal_scatter", "flip", "im2col",
    "index_copy", "index_fill", "isin", "masked_fill", "masked_select", "max_unpool2d", "max_unpool3d", "nonzero",
    "pixel_shuffle", "pixel_unshuffle", "reflection_pad1d", "reflection_pad2d", "reflection_pad3d", "repeat",
    "repeat_interleave", "replication_pad1d", "replication_pad2d", "replication_pad3d", "roll", "rot90", "scatter",
    "select_backward", "select_scatter", "slice_backward", "slice_scatter", "stack", "tril", "triu", "unfold_backward",
    "upsample_nearest1d", "upsample_nearest1d_backward", "upsample_nearest2d", "upsample_nearest2d_backward",
    "upsample_nearest3d", "where",
)  # fmt: skip
_CHOICES = ("_unsafe_index", "embedding", "gather", "index", "index_select", "take")
_FACTORIES = (
    "arange", "bernoulli", "copy", "exponential", "eye", "fill", "full", "full_like", "lift_fresh_copy", "linspace",
    "new_full", "new_ones", "new_zeros", "normal", "ones", "ones_like", "rand", "rand_like", "randint", "randint_like",
    "randn", "randn_like", "random", "randperm", "range", "scalar_tensor", "tril_indices", "triu_indices", "uniform",
    "zero", "zeros", "zeros_like",
)  # fmt: skip
_BOOKKEEPING = (
    "_assert_async", "_assert_tensor_metadata", "_fused_sdp_choice", "_lazy_clone", "_reshape_alias", "_unsafe_view",
    "empty", "empty_like", "empty_permuted", "empty_strided", "lift", "new_empty", "new_empty_strided", "resize", "set",
    "sym_numel", "sym_size", "sym_storage_offset", "sym_stride", "unsafe_split", "unsafe_split_with_sizes",
)  # fmt: skip
MOVES: dict[str, Reads] = {
    **dict.fromkeys(_COPIES, "all"),
    **dict.fromkeys(_CHOICES, "chosen"),
    **dict.fromkeys(_FACTORIES, "others"),
    **dict.fromkeys(_BOOKKEEPING, "nothing"),
}
"""Operations that compute nothing, with what they read."""


@cache
def rule_of(operation: OpOverload) -> Rule | None:
    """How an operation is counted.

    Args:
        operation: as a `TorchDispatchMode` sees it. In-place forms cost what the others do.

    Returns:
        None where nobody knows.
    """
    name = str(operation.overloadpacket).removeprefix("aten.")
    if name.endswith("_") and not name.endswith("__"):
        name = name[:-1]
    if name in MOVES:
        return Rule(None, MOVES[name])
    if name in COSTS:
        return Rule(COSTS[name])
    if operation.is_view or torch.Tag.inplace_view in operation.tags:
        return Rule(None, "nothing")
    if torch.Tag.view_copy in operation.tags:
        return Rule(None)
    if torch.Tag.pointwise in operation.tags:
        return Rule(elementwise(name))
    return None
