"""Activations by name, against their formulas."""

from __future__ import annotations

import math

import pytest
import torch

from clearsight.errors import ConfigError
from clearsight.nn.activation import ACTIVATIONS, activation


def _relu6(x: float) -> float:
    return min(max(x, 0.0), 6.0)


FORMULAS = {
    "none": lambda x: x,
    "relu": lambda x: max(x, 0.0),
    "leaky_relu": lambda x: x if x > 0 else 0.1 * x,
    "silu": lambda x: x / (1 + math.exp(-x)),
    "gelu": lambda x: 0.5 * x * (1 + math.erf(x / math.sqrt(2))),
    "hardswish": lambda x: x * _relu6(x + 3) / 6,
    "hardsigmoid": lambda x: _relu6(x + 3) / 6,
    "tanh": math.tanh,
    "sigmoid": lambda x: 1 / (1 + math.exp(-x)),
}


def test_every_name_has_a_formula_here() -> None:
    assert set(FORMULAS) == set(ACTIVATIONS)


@pytest.mark.parametrize("name", sorted(ACTIVATIONS))
def test_values_follow_the_formula(name: str) -> None:
    values = [-7.0, -3.0, -1.5, -0.2, 0.0, 0.3, 2.0, 3.0, 8.0]
    found = activation(name)(torch.tensor(values, dtype=torch.float64))
    expected = torch.tensor([FORMULAS[name](value) for value in values], dtype=torch.float64)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("name", sorted(ACTIVATIONS))
def test_each_call_gives_a_layer_of_its_own(name: str) -> None:
    assert activation(name) is not activation(name)


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(ConfigError, match=r"unknown name 'mish'; choose one of none, relu"):
        activation("mish")
