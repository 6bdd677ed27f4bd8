"""Operations on elements and rows, against formulas that count their own arithmetic."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from clearsight.measure.count import count


class Layer(nn.Module):
    """A function as a module."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, *inputs):
        return self.function(*inputs)


def flops(function, *inputs):
    found = count(Layer(function), inputs)
    assert found.uncounted == {}
    assert found.multiply_adds == 0
    return found.flops


X = torch.empty(2, 3, 4)


def sigmoid(x):
    return type(x)() / ((type(x)(0) - x).exp() + 1)


@pytest.mark.parametrize(
    ("function", "by_hand"),
    [
        (torch.sigmoid, sigmoid),
        (F.silu, lambda x: x * sigmoid(x)),
        (F.relu, lambda x: x.largest(x)),
        (lambda x: F.leaky_relu(x, 0.1), lambda x: x.largest(x * 0.1)),
        (F.relu6, lambda x: x.largest(x).largest(x)),
        (F.hardsigmoid, lambda x: (x + 3).largest(x).largest(x) / 6),
        (F.hardswish, lambda x: x * ((x + 3).largest(x).largest(x) / 6)),
        (torch.rsqrt, lambda x: type(x)() / x.sqrt()),
        (lambda x: torch.addcmul(x, x, x, value=2), lambda x: x + x * x * 2),
        (lambda x: torch.addcdiv(x, x, x), lambda x: x + x / x),
        (lambda x: torch.lerp(x, x, 0.5), lambda x: x + (x - x) * 0.5),
        (lambda x: x.add(x, alpha=2), lambda x: x + x * 2),
        (lambda x: x.clamp(min=0), lambda x: x.largest(x)),
        (lambda x: x.clamp(0, 1), lambda x: x.largest(x).largest(x)),
        (lambda x: x > 0, lambda x: x.largest(x)),
    ],
    ids=[
        "sigmoid",
        "silu",
        "relu",
        "leaky_relu",
        "relu6",
        "hardsigmoid",
        "hardswish",
        "rsqrt",
        "addcmul",
        "addcdiv",
        "lerp",
        "add",
        "clamp",
        "clamp2",
        "greater",
    ],
)
def test_each_element_costs_what_its_formula_does(number, function, by_hand):
    by_hand(number())
    assert flops(function, X) == sum(number.done.values()) * X.numel()


def test_in_place_forms_cost_the_same_and_broadcasting_counts_what_comes_out():
    assert flops(lambda x: x.clone().sigmoid_(), X) == flops(torch.sigmoid, X) == 4 * 24
    assert flops(lambda x: x.clone().mul_(2).add_(x), X) == 2 * 24
    assert flops(torch.add, torch.empty(5, 1), torch.empty(1, 7)) == 35


def test_complex_arithmetic_is_counted_in_real_operations():
    z = torch.empty(6, dtype=torch.complex64)
    assert flops(torch.mul, z, z) == 6 * 6
    assert flops(torch.add, z, z) == 6 * 2


def test_whole_numbers_and_moves_cost_nothing():
    whole = torch.empty(5, dtype=torch.int64)
    assert flops(lambda n: (n + 1) * n, whole) == 0
    assert flops(lambda x: torch.cat([x, x]).flip(0).contiguous().to(torch.float64), X) == 0
    assert flops(lambda n: (n.sum(), n.max()), whole) == 0


# ------------------------------------------------------------------------------------------------ rows
def total(numbers):
    first, *others = numbers
    for one in others:
        first = first + one
    return first


def largest(numbers):
    first, *others = numbers
    for one in others:
        first = first.largest(one)
    return first


def softmax(numbers):
    top = largest(numbers)
    powers = [(one - top).exp() for one in numbers]
    whole = total(powers)
    return [power / whole for power in powers]


def log_softmax(numbers):
    top = largest(numbers)
    whole = total([(one - top).exp() for one in numbers]).exp()  # a logarithm is one function value, too
    return [one - whole for one in numbers]


def variance(numbers):
    mean = total(numbers) / len(numbers)
    gaps = [one - mean for one in numbers]
    return total([gap * gap for gap in gaps]) / (len(numbers) - 1)


@pytest.mark.parametrize(
    ("function", "by_hand"),
    [
        (lambda x: x.sum(-1), total),
        (lambda x: x.mean(-1), lambda row: total(row) / len(row)),
        (lambda x: x.amax(-1), largest),
        (lambda x: x.max(-1).values, largest),
        (lambda x: x.argmax(-1), largest),
        (lambda x: x.softmax(-1), softmax),
        (lambda x: x.log_softmax(-1), log_softmax),
        (lambda x: x.var(-1), variance),
        (lambda x: x.std(-1), lambda row: variance(row).sqrt()),
        (lambda x: x.norm(dim=-1), lambda row: total([one * one for one in row]).sqrt()),
    ],
    ids=["sum", "mean", "amax", "max", "argmax", "softmax", "log_softmax", "var", "std", "norm"],
)
def test_each_row_costs_what_its_formula_does(number, function, by_hand):
    by_hand([number() for _ in range(4)])
    assert flops(function, X) == sum(number.done.values()) * 6


@pytest.mark.parametrize(("function", "each"), [(F.softmax, 4), (F.log_softmax, 4)])
def test_softmax_backward(function, each):
    found = count(Layer(lambda x: function(x, -1)), X, training=True, input_gradient=True)
    assert found.backward_flops == each * 24 - 6


def test_interpolation_is_two_multiplications_and_an_addition_along_each_axis():
    x = torch.empty(1, 2, 3, 3)
    assert flops(lambda x: F.interpolate(x, scale_factor=2), x) == 0
    # along x twice, then along y once
    assert flops(lambda x: F.interpolate(x, scale_factor=2, mode="bilinear"), x) == 3 * 3 * 2 * 36
    assert flops(lambda x: F.interpolate(x, scale_factor=2, mode="bicubic"), x) == 5 * 7 * 2 * 36
    assert flops(lambda x: F.interpolate(x[0], scale_factor=2, mode="linear"), x) == 3 * 2 * 3 * 6
    back = count(
        Layer(lambda x: F.interpolate(x, scale_factor=2, mode="bilinear")), x, training=True, input_gradient=True
    )
    assert back.backward_flops == 12 * 2 * 36
