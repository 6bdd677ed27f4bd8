"""Why an operation gave NaN or an infinity: what it was called with, in words and numbers."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

__all__ = ["Call", "Cause", "explain", "floats_in", "is_meant", "takes_infinities", "users_name"]


@dataclass(frozen=True, slots=True)
class Cause:
    """Why.

    Args:
        kind: in kebab case: `log-of-zero`, `division-by-zero`, `half-overflow`, `input`, `weights`, ….
        text: what happened, with its numbers, as a part of a sentence.
        numbers: plain and finite.
    """

    kind: str
    text: str
    numbers: dict[str, int | float | str] = field(default_factory=dict)


class Call(NamedTuple):
    """One operation as it ran.

    Args:
        aten: PyTorch's own name, without a trailing underscore.
        operation: the name that the user knows; in the backward pass that of the forward operation.
        args: as they were before it ran.
        kwargs: likewise.
        out: the first tensor that is not finite.
        backward: it belongs to the backward pass.
        infinite: infinities that were meant, such as those of a mask, were among its inputs.
    """

    aten: str
    operation: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    out: Tensor
    backward: bool = False
    infinite: bool = False

    @property
    def meant(self) -> bool:
        """Whether it gives infinities because it was told to."""
        return is_meant(self.aten, self.args, self.kwargs) and not bool(self.out.isnan().any())


# ------------------------------------------------------------------------------------------------ names
_NAMES = {
    "_to_copy": "to", "_softmax": "softmax", "_log_softmax": "log_softmax", "_safe_softmax": "softmax",
    "nll_loss_forward": "nll_loss", "nll_loss2d_forward": "nll_loss", "native_layer_norm": "layer_norm",
    "native_group_norm": "group_norm", "linalg_vector_norm": "norm", "addmm": "linear", "mm": "matmul",
    "bmm": "matmul", "baddbmm": "matmul", "addbmm": "matmul", "true_divide": "div", "divide": "div",
    "mv": "matmul", "dot": "matmul", "addmv": "linear", "special_log1p": "log1p", "special_expm1": "expm1",
    "_adaptive_avg_pool2d": "adaptive_avg_pool2d", "_cdist_forward": "cdist",
    "_euclidean_dist": "cdist", "var_mean": "var", "std_mean": "std", "arccos": "acos", "arcsin": "asin",
    "rsub": "sub", "amax": "max", "amin": "min", "upsample_bilinear2d": "interpolate",
}  # fmt: skip
_LINEAR = {"Linear", "NonDynamicallyQuantizableLinear", "LazyLinear"}


def users_name(aten: str, args: tuple[Any, ...], layer: str = "") -> str:
    """The name under which the user knows an operation.

    Args:
        aten: PyTorch's own name, without a trailing underscore.
        args: of the call.
        layer: class of the module that it runs in.
    """
    if aten in ("convolution", "_convolution", "mkldnn_convolution", "cudnn_convolution"):
        axes = args[1].ndim - 2
        turned = aten == "convolution" and len(args) > 6 and bool(args[6])
        return f"conv_transpose{axes}d" if turned else f"conv{axes}d"
    if "scaled_dot_product" in aten:
        return "scaled_dot_product_attention"
    if "batch_norm" in aten:
        return "batch_norm"
    if layer in _LINEAR and aten in ("mm", "bmm", "addmm", "mv", "addmv"):
        return "linear"
    return _NAMES.get(aten, aten.lstrip("_"))


def floats_in(values: Any) -> Iterator[Tensor]:  # noqa: ANN401
    """Floating-point and complex tensors among arguments or results, lists of them too."""
    if isinstance(values, Tensor):
        numbers = values.is_floating_point() or values.is_complex()
        if numbers and values.layout == torch.strided and values.element_size() > 1:  # 8-bit formats have no isfinite
            yield values
    elif isinstance(values, list | tuple):
        for one in values:
            yield from floats_in(one)
    elif isinstance(values, dict):
        yield from floats_in(list(values.values()))


def is_meant(aten: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Whether an operation was told to give infinities: it fills with one, or copies a constant of the source code."""
    if aten.startswith("lift_fresh"):
        return True
    scalars = [one for one in (*args, *kwargs.values()) if isinstance(one, float)]
    return any(math.isinf(one) for one in scalars)


# ------------------------------------------------------------------------------------------------ numbers
def _count(mask: Tensor) -> int:
    return int(mask.sum())


def _number(value: Any) -> int | float | str:  # noqa: ANN401
    """Plain; what is not finite as text, since JSON has no word for it."""
    if isinstance(value, Tensor):
        value = value.item()
    if isinstance(value, complex):
        return str(value)
    return value if math.isfinite(value) else str(value)


def _values(call: Call, place: int) -> Tensor | None:
    """An argument as a real tensor; scalars too."""
    if place >= len(call.args):
        return None
    value = call.args[place]
    if isinstance(value, int | float):
        value = torch.tensor(float(value), dtype=torch.float64, device=call.out.device)
    return value.detach() if isinstance(value, Tensor) and not value.is_complex() else None


def _largest(call: Call) -> float:
    """The largest absolute value among the finite inputs."""
    found = [0.0]
    for one in floats_in([call.args, call.kwargs]):
        if one.numel():
            found.append(float(torch.nan_to_num(one.detach().abs(), nan=0.0, posinf=0.0).max()))
    return max(found)


# ------------------------------------------------------------------------------------------------ rules
_Rule = Callable[[Call], "Cause | None"]


def _bounds(low: float, high: float, *, zero: str = "domain-edge", below: str = "outside-domain") -> _Rule:
    """Of functions that are infinite at the ends of their domain or undefined beyond them."""

    def rule(call: Call) -> Cause | None:
        x = _values(call, 0)
        if x is None:
            return None
        outside, at_end = _count((x < low) | (x > high)), _count((x == low) | (x == high))
        reach = {"smallest": _number(x.min()), "largest": _number(x.max()), "values": x.numel()}
        if outside:
            said = "a negative number" if (low, high) == (0.0, math.inf) else f"a number outside [{low:g}, {high:g}]"
            text = f"{call.operation} of {said} in {outside} of {x.numel()} values (smallest {float(x.min()):.4g})"
            return Cause(below, text, {"outside": outside, "at_end": at_end, **reach})
        if at_end:
            ends = "0" if (low, high) == (0.0, math.inf) else f"the end of its domain [{low:g}, {high:g}]"
            text = f"{call.operation} of {ends} in {at_end} of {x.numel()} values"
            return Cause(zero, text, {"outside": 0, "at_end": at_end, **reach})
        return None

    return rule


def _division(call: Call) -> Cause | None:
    a, b = _values(call, 0), _values(call, 1)
    if a is None or b is None:
        return None
    a, b = torch.broadcast_tensors(a, b)
    zeros = _count(b == 0)
    if not zeros:
        return None
    both = _count((b == 0) & (a == 0))
    kind = "zero-over-zero" if both == zeros else "division-by-zero"
    text = f"division by 0 in {zeros} of {b.numel()} values" + (f", {both} of them 0 / 0" if both else "")
    return Cause(kind, text, {"zeros": zeros, "zero_over_zero": both, "values": b.numel()})


def _reciprocal(call: Call) -> Cause | None:
    x = _values(call, 0)
    if x is None:
        return None
    zeros, negative = _count(x == 0), _count(x < 0) if call.aten == "rsqrt" else 0
    if negative:
        text = f"{call.operation} of a negative number in {negative} of {x.numel()} values (smallest {x.min():.4g})"
        return Cause("sqrt-of-negative", text, {"negative": negative, "smallest": _number(x.min())})
    text = f"division by 0 in {zeros} of {x.numel()} values"
    return Cause("division-by-zero", text, {"zeros": zeros, "values": x.numel()}) if zeros else None


def _power(call: Call) -> Cause | None:
    base, exponent = _values(call, 0), _values(call, 1)
    if base is None or exponent is None:
        return None
    base, exponent = torch.broadcast_tensors(base, exponent)
    negative = _count((base < 0) & (exponent != exponent.round()))
    zeros = _count((base == 0) & (exponent < 0))
    numbers = {"smallest_base": _number(base.min()), "exponent": _number(exponent.flatten()[0])}
    if negative:
        text = f"a negative number to a fractional power in {negative} of {base.numel()} values"
        return Cause("power-of-negative", text, {"negative": negative, **numbers})
    text = f"0 to a negative power in {zeros} of {base.numel()} values"
    return Cause("division-by-zero", text, {"zeros": zeros, **numbers}) if zeros else None


def _exponential(call: Call) -> Cause | None:
    x = _values(call, 0)
    if x is None or not x.numel():
        return None
    limit = math.log(torch.finfo(call.out.dtype).max)
    over = _count(x.abs() > limit if call.aten in ("sinh", "cosh") else x > limit)
    text = f"{call.operation} of {float(x.max()):.4g}: in {call.out.dtype} it overflows above {limit:.4g}"
    return Cause("exp-overflow", text, {"overflowing": over, "largest": _number(x.max()), "limit": limit})


def _spread(call: Call) -> Cause | None:
    """Variance with Bessel's correction divides by one less than the number of values."""
    x = _values(call, 0)
    if x is None or not call.out.numel() or x.numel() > call.out.numel():
        return None
    return Cause("one-value-variance", f"{call.operation} of a single value divides by 0", {"values": 1})


def _mean(call: Call) -> Cause | None:
    x = _values(call, 0)
    return Cause("empty-mean", "mean of no values", {"values": 0}) if x is not None and not x.numel() else None


def _nll(call: Call) -> Cause | None:
    target, ignored = call.args[1], call.args[4]
    if _count(target != ignored):
        return None
    text = f"mean over no target: all {target.numel()} are {ignored}, which is ignored"
    return Cause("empty-mean", text, {"targets": target.numel(), "ignored": int(ignored)})


def _norm(call: Call) -> Cause | None:
    """A norm layer without epsilon divides by the deviation of values that are all alike."""
    x, (eps,) = call.args[0].detach(), [one for one in call.args[-2:] if isinstance(one, float)][-1:] or [1.0]
    if eps > 0 or call.backward:
        return None
    return Cause("division-by-zero", "the values are all alike and eps is 0: their deviation is 0", {
        "eps": eps, "deviation": _number(x.float().std()) if x.numel() > 1 else 0.0
    })  # fmt: skip


_LOG = _bounds(0.0, math.inf, zero="log-of-zero", below="log-of-negative")
_RULES: dict[str, _Rule] = {
    "log": _LOG, "log2": _LOG, "log10": _LOG,
    "log1p": _bounds(-1.0, math.inf, zero="log-of-zero", below="log-of-negative"),
    "sqrt": _bounds(0.0, math.inf, below="sqrt-of-negative"),
    "logit": _bounds(0.0, 1.0), "special_logit": _bounds(0.0, 1.0), "acos": _bounds(-1.0, 1.0),
    "asin": _bounds(-1.0, 1.0), "atanh": _bounds(-1.0, 1.0), "erfinv": _bounds(-1.0, 1.0),
    "acosh": _bounds(1.0, math.inf),
    "div": _division, "remainder": _division, "fmod": _division, "reciprocal": _reciprocal, "rsqrt": _reciprocal,
    "pow": _power, "exp": _exponential, "exp2": _exponential, "expm1": _exponential, "sinh": _exponential,
    "cosh": _exponential, "var": _spread, "std": _spread, "var_mean": _spread, "std_mean": _spread, "mean": _mean,
    "nll_loss_forward": _nll, "nll_loss2d_forward": _nll, "native_layer_norm": _norm, "native_group_norm": _norm,
    "native_batch_norm": _norm, "_native_batch_norm_legit": _norm,
}  # fmt: skip

# What an infinite slope means: the operation of the forward pass → kind, and where the slope is infinite.
_SLOPES = {
    **dict.fromkeys(("sqrt", "pow"), ("root-at-zero", "at 0")),
    **dict.fromkeys(("norm", "dist", "cdist"), ("norm-at-zero", "at 0")),
    **dict.fromkeys(("log", "log2", "log10"), ("log-of-zero", "at 0")),
    **dict.fromkeys(("log1p",), ("log-of-zero", "at −1")),
    **dict.fromkeys(("div", "reciprocal", "rsqrt"), ("division-by-zero", "for a divisor of 0")),
    **dict.fromkeys(("acos", "asin", "acosh", "atanh", "erfinv", "logit"), ("domain-edge", "at the end of its domain")),
    "atan2": ("domain-edge", "at (0, 0)"),
}
_MASKED = {
    **dict.fromkeys(("_softmax", "_log_softmax", "_safe_softmax"), "masked-row"),
    "mul": "zero-times-infinity",
    **dict.fromkeys(("add", "sub", "rsub", "sum", "mean", "cumsum"), "infinity-minus-infinity"),
}
_SAID = {
    "masked-row": "{operation} over nothing but −∞: {rows} rows are masked whole",
    "zero-times-infinity": "0 × ∞ in {operation}",
    "infinity-minus-infinity": "∞ − ∞ in {operation}",
    "infinite-input": "{operation} of an infinity",
}


def takes_infinities(aten: str) -> bool:
    """Whether infinities are put before an operation on purpose, so that a NaN that it makes of them is its own."""
    return aten in _MASKED or "scaled_dot_product" in aten


def explain(call: Call) -> Cause:
    """Why an operation gave what is not finite.

    Args:
        call: its inputs are finite, but for infinities that were meant.

    Returns:
        The first that fits: infinities taken apart, a number outside a function's domain, an infinite slope, an
        overflow; `undefined` where nothing does. In 16 bits, `numbers["format"]` says so.
    """
    found = _explain(call)
    if call.out.element_size() != 2:
        return found
    return replace(found, numbers={**found.numbers, "format": str(call.out.dtype).removeprefix("torch.")})


def _explain(call: Call) -> Cause:
    if call.meant and not call.infinite:
        return Cause("explicit-infinity", f"{call.operation} puts an infinity there, as the code says", {})
    if call.infinite or is_meant(call.aten, call.args, call.kwargs):
        return _of_infinities(call)
    if call.aten.startswith(("empty", "new_empty")):
        return Cause("uninitialised", "memory that was never written is read", {})
    rule = _RULES.get(call.aten)
    found = rule(call) if rule is not None else None
    if found is not None and call.backward and call.operation in _SLOPES:
        kind, where = _SLOPES[call.operation]
        return Cause(kind, f"the slope of {call.operation} is infinite {where} ({found.text})", found.numbers)
    return found if found is not None else _overflow(call)


def _of_infinities(call: Call) -> Cause:
    kind = "masked-row" if "scaled_dot_product" in call.aten else _MASKED.get(call.aten, "infinite-input")
    rows = 0
    if kind == "masked-row" and call.aten.endswith("softmax"):
        x = call.args[0]
        rows = _count((x == -math.inf).all(dim=call.args[1]))
    return Cause(kind, _SAID[kind].format(operation=call.operation, rows=rows), {"rows": rows} if rows else {})


def _overflow(call: Call) -> Cause:
    largest, limit = _largest(call), torch.finfo(call.out.dtype).max
    numbers: dict[str, int | float | str] = {"largest_input": _number(largest), "limit": limit}
    way = "the backward pass of " if call.backward else ""
    text = f"{way}{call.operation} overflows: its largest input is {largest:.4g}, {call.out.dtype} ends at {limit:.4g}"
    if call.out.dtype == torch.float16:
        return Cause("half-overflow", text, numbers)
    if bool(torch.isinf(call.out).any()) or largest > limit**0.5 / 1e4:
        return Cause("overflow", text, numbers)
    text = f"{way}{call.operation} of finite numbers (the largest is {largest:.4g}) is undefined"
    return Cause("undefined", text, numbers)
