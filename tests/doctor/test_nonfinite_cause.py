from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from clearsight.doctor.nonfinite_cause import Call, explain, floats_in, is_meant, takes_infinities, users_name

NAN = torch.tensor([math.nan])
INF = torch.tensor([math.inf])


def cause(aten: str, *args: Any, out: Tensor = INF, operation: str = "", **more: Any):
    return explain(Call(aten, operation or users_name(aten, args), args, {}, out, **more))


def test_numbers_of_a_logarithm() -> None:
    found = cause("log", torch.tensor([1.0, 0.0, -2.0, -3.0]), out=NAN)
    assert found.kind == "log-of-negative"
    assert found.numbers == {"outside": 2, "at_end": 1, "smallest": -3.0, "largest": 1.0, "values": 4}
    assert "log of a negative number in 2 of 4 values (smallest -3)" in found.text
    assert cause("log", torch.tensor([1.0, 0.0])).kind == "log-of-zero"
    assert cause("log2", torch.tensor([0.0])).text == "log2 of 0 in 1 of 1 values"


@pytest.mark.parametrize(
    ("aten", "value", "kind"),
    [
        ("log1p", -1.0, "log-of-zero"), ("log1p", -1.1, "log-of-negative"), ("sqrt", -1e-9, "sqrt-of-negative"),
        ("acos", 1.0001, "outside-domain"), ("asin", -1.0001, "outside-domain"), ("atanh", 1.0, "domain-edge"),
        ("atanh", 1.5, "outside-domain"), ("acosh", 0.5, "outside-domain"), ("logit", 1.0, "domain-edge"),
        ("erfinv", -1.0, "domain-edge"), ("reciprocal", 0.0, "division-by-zero"), ("rsqrt", 0.0, "division-by-zero"),
        ("rsqrt", -1.0, "sqrt-of-negative"), ("exp", 89.0, "exp-overflow"), ("sinh", -100.0, "exp-overflow"),
    ],
)  # fmt: skip
def test_functions_of_one_number(aten: str, value: float, kind: str) -> None:
    x = torch.tensor([0.5, value])
    out = getattr(torch, aten)(x)
    assert not torch.isfinite(out).all()
    assert cause(aten, x, out=out).kind == kind


def test_division() -> None:
    a, b = torch.tensor([[1.0], [0.0]]), torch.tensor([0.0, 2.0])
    found = cause("div", a, b)
    assert (found.kind, found.numbers) == ("division-by-zero", {"zeros": 2, "zero_over_zero": 1, "values": 4})
    assert cause("div", torch.zeros(3), 0.0).kind == "zero-over-zero"
    assert cause("div", torch.ones(3), 0).kind == "division-by-zero"
    assert cause("div", torch.tensor([1e38]), torch.tensor([1e-5])).kind == "overflow"


def test_powers() -> None:
    assert cause("pow", torch.tensor([-8.0]), 1 / 3, out=NAN).kind == "power-of-negative"
    assert cause("pow", torch.tensor([0.0]), -1).kind == "division-by-zero"
    assert cause("pow", torch.tensor([-1e30]), 2).kind == "overflow"
    assert cause("pow", 2.0, torch.tensor([200.0])).kind == "overflow"


def test_slopes_are_told_from_values() -> None:
    args = (torch.ones(2), torch.tensor([0.0, 1.0]))
    found = cause("div", *args, operation="sqrt", backward=True)
    assert found.kind == "root-at-zero"
    assert "the slope of sqrt is infinite at 0" in found.text
    assert cause("div", *args, operation="norm", backward=True).kind == "norm-at-zero"
    assert cause("div", *args, operation="log", backward=True).kind == "log-of-zero"
    assert cause("rsqrt", torch.zeros(1), operation="acos", backward=True).kind == "domain-edge"
    assert cause("div", *args, operation="Mine", backward=True).kind == "division-by-zero"


def test_overflow_by_number_format() -> None:
    found = cause("mul", torch.tensor([300.0], dtype=torch.float16), 300.0, out=INF.half())
    assert (found.kind, found.numbers) == (
        "half-overflow",
        {"largest_input": 300.0, "limit": 65504.0, "format": "float16"},
    )
    assert "torch.float16 ends at" in found.text
    assert cause("mul", torch.tensor([1e30]), 1e30).kind == "overflow"
    assert cause("mm", torch.tensor([[1e20]]), torch.tensor([[1e20]]), out=NAN).kind == "overflow"
    assert cause("mm", torch.ones(1, 1), torch.ones(1, 1), out=NAN).kind == "undefined"


def test_means_and_variances() -> None:
    assert cause("mean", torch.zeros(0), out=NAN).kind == "empty-mean"
    assert cause("mean", torch.full((9,), 3e38)).kind == "overflow"
    assert cause("var", torch.ones(3, 1), [1], out=torch.full((3,), math.nan)).kind == "one-value-variance"
    assert cause("var", torch.full((4, 3), 1e30), [1], out=INF).kind == "overflow"
    ignored = torch.tensor([-100, -100])
    assert cause("nll_loss_forward", torch.zeros(2, 3), ignored, None, 1, -100, out=NAN).kind == "empty-mean"
    assert cause("nll_loss_forward", torch.zeros(2, 3), ignored + 1, None, 1, -100, out=NAN).kind == "undefined"


def test_infinities_that_were_put_there() -> None:
    masked = torch.tensor([[-math.inf, -math.inf], [0.0, -math.inf]])
    found = cause("_softmax", masked, 1, False, out=NAN, infinite=True)
    assert (found.kind, found.numbers) == ("masked-row", {"rows": 1})
    assert cause("mul", torch.zeros(1), INF, out=NAN, infinite=True).kind == "zero-times-infinity"
    assert cause("sub", INF, INF, out=NAN, infinite=True).kind == "infinity-minus-infinity"
    assert cause("mul", torch.zeros(1), math.inf, out=NAN).kind == "zero-times-infinity"
    assert cause("masked_fill", torch.zeros(1), torch.ones(1) > 0, -math.inf).kind == "explicit-infinity"
    assert cause("empty", [1], out=NAN).kind == "uninitialised"


def test_what_is_meant() -> None:
    assert is_meant("full", ([2], -math.inf), {})
    assert is_meant("fill", (INF,), {"value": math.inf})
    assert is_meant("lift_fresh", (INF,), {})
    assert not is_meant("mul", (INF, 2.0), {})
    assert not is_meant("full", ([2], math.nan), {})
    assert takes_infinities("_softmax")
    assert takes_infinities("_scaled_dot_product_flash_attention_for_cpu")
    assert not takes_infinities("convolution")


def test_names_that_users_know() -> None:
    weight = torch.zeros(1, 1, 3)
    assert users_name("convolution", (weight, weight, None, [1], [0], [1], False, [0], 1)) == "conv1d"
    assert users_name("convolution", (weight, weight, None, [1], [0], [1], True, [0], 1)) == "conv_transpose1d"
    assert users_name("mm", (), "Linear") == "linear"
    assert users_name("mm", (), "Attention") == "matmul"
    assert users_name("_native_batch_norm_legit", ()) == "batch_norm"
    assert users_name("_scaled_dot_product_efficient_attention", ()) == "scaled_dot_product_attention"
    assert users_name("_log_softmax", ()) == "log_softmax"
    assert users_name("gelu", ()) == "gelu"


def test_floats_among_arguments() -> None:
    a, b, c = torch.ones(1), torch.ones(1, dtype=torch.complex64), torch.ones(1, dtype=torch.int64)
    assert list(floats_in([a, [b, c], {"x": (a,)}, 3.0, None])) == [a, b, a]


def test_complex_numbers_are_no_obstacle() -> None:
    x = torch.tensor([complex(0, 0)])
    assert cause("log", x, out=INF).kind == "overflow"
