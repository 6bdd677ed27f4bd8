"""What operations cost that go from element to element, or sum elements up."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from clearsight.measure.products import Cost, Work

__all__ = ["ELEMENTWISE", "REDUCTIONS", "elementwise", "first_of"]


def first_of(out: Any) -> Tensor:  # noqa: ANN401
    """The first of an operation's results."""
    return out if isinstance(out, Tensor) else out[0]


# ------------------------------------------------------------------------------------------------ element by element
# FLOPs for each element, of operations that PyTorch does not mark as pointwise or that cost more than 1. A sigmoid is
# 1 / (1 + exp(−x)): four. Interpolation along one axis is two multiplications and an addition; cubic, four and three.
_EACH: dict[int, tuple[str, ...]] = {
    1: (
        "abs", "eq", "floor_divide", "ge", "gt", "hardshrink_backward", "hardsigmoid_backward", "hardtanh_backward",
        "le", "leaky_relu_backward", "lt", "ne", "softshrink_backward", "threshold",
    ),
    2: (
        "_fused_dropout", "_masked_scale", "_prelu_kernel", "addr", "hardshrink", "hardtanh", "leaky_relu",
        "native_dropout", "native_dropout_backward", "prelu", "rsqrt", "xlogy",
    ),
    3: (
        "_prelu_kernel_backward", "_weight_norm_interface", "addcdiv", "addcmul", "lerp", "logit", "sigmoid_backward",
        "softplus", "softshrink", "tanh_backward", "upsample_linear1d",
    ),
    4: (
        "celu", "elu", "elu_backward", "hardsigmoid", "hardswish_backward", "log_sigmoid_backward", "polar", "selu",
        "sigmoid", "softplus_backward", "upsample_linear1d_backward",
    ),
    5: ("gelu", "glu", "hardswish", "log_sigmoid_forward", "mish", "silu"),
    9: ("silu_backward", "upsample_bilinear2d"),
    10: ("gelu_backward", "glu_backward"),
    12: ("mish_backward", "upsample_bilinear2d_backward"),
    21: ("upsample_trilinear3d",),
    32: ("upsample_trilinear3d_backward",),
    35: ("upsample_bicubic2d",),
    48: ("upsample_bicubic2d_backward",),
}  # fmt: skip
_FLOPS = {name: flops for flops, names in _EACH.items() for name in names}


_SCALED, _VALUED = ("add", "sub", "rsub"), ("addcmul", "addcdiv")  # by alpha, by value, where that is not 1


def elementwise(name: str) -> Cost:
    """The cost of an operation that does the same for each element; 1 FLOP where the table has no other.

    Args:
        name: of the operation, `aten.` left away.
    """
    flops = _FLOPS.get(name, 1)
    # where the gradient that comes in, not the one that goes out, says how much there is to do
    by_gradient = name.endswith("_backward") and name.startswith(("upsample_", "glu_"))

    def work(args: Sequence[Any], kwargs: Mapping[str, Any], out: Any) -> Work:  # noqa: ANN401
        first = first_of(out)
        given = next((one for one in args if isinstance(one, Tensor)), first)
        if not (first.dtype.is_floating_point or first.dtype.is_complex or given.dtype.is_floating_point):
            return Work(0, 0)
        times = flops
        if (name in _SCALED and kwargs.get("alpha", 1) != 1) or (name in _VALUED and kwargs.get("value", 1) == 1):
            times = 2
        elif name == "clamp":
            times = sum(bound is not None for bound in (*args[1:3], kwargs.get("min"), kwargs.get("max")))
        if first.dtype.is_complex:
            times *= 6 if name in ("mul", "div") else 2
        return Work(0, times * (given if by_gradient else first).numel())

    return work


ELEMENTWISE: dict[str, Cost] = {name: elementwise(name) for name in _FLOPS}


# ------------------------------------------------------------------------------------------------ sums
def _reduced(each_in: int = 1, each_out: int = -1, *, at: int = 0) -> Cost:
    """So many FLOPs for each element that goes in (argument `at`) and comes out; n − 1 for a sum or a largest of n."""

    def work(args: Sequence[Any], kwargs: Mapping[str, Any], out: Any) -> Work:  # noqa: ANN401
        x = args[at]
        if not (x.dtype.is_floating_point or x.dtype.is_complex):
            return Work(0, 0)
        return Work(0, max(each_in * x.numel() + each_out * first_of(out).numel(), 0))

    return work


def _softmax(per_row: int) -> Cost:
    """max, −, exp, sum, ÷ of n values: 5n − 2; with the logarithm, one division less and one logarithm: 5n − 1."""

    def work(args: Sequence[Any], kwargs: Mapping[str, Any], out: Tensor) -> Work:
        return Work(0, 5 * out.numel() + per_row * _rows(out, args[1]))

    return work


def _softmax_backward(args: Sequence[Any], kwargs: Mapping[str, Any], out: Tensor) -> Work:
    """The gradient is y (g − Σ g·y), or g − exp(y) Σ g: 4n − 1."""
    return Work(0, 4 * out.numel() - _rows(out, args[2]))


def _rows(x: Tensor, axis: int) -> int:
    return x.numel() // max(x.shape[axis] if x.ndim else 1, 1)


REDUCTIONS: dict[str, Cost] = {
    **{name: _reduced() for name in ("sum", "nansum", "prod", "amax", "amin", "max", "min", "aminmax")},
    **{name: _reduced() for name in ("argmax", "argmin", "any", "all", "count_nonzero")},
    **{name: _reduced(1, 0) for name in ("mean", "cumsum", "cumprod", "col2im")},
    **{name: _reduced(1, 0, at=3) for name in ("scatter_add", "index_add")},
    **{name: _reduced(2, 0) for name in ("linalg_vector_norm", "norm")},
    **{name: _reduced(4, 0) for name in ("var", "var_mean", "logsumexp")},
    **{name: _reduced(4, 1) for name in ("std", "std_mean")},
    "_softmax": _softmax(-2),
    "_safe_softmax": _softmax(-2),
    "_log_softmax": _softmax(-1),
    "_softmax_backward_data": _softmax_backward,
    "_log_softmax_backward_data": _softmax_backward,
}
