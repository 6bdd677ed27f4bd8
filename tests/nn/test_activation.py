"""Activations by name, against their formulas and the derivatives in `clearsight.reference`."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from clearsight.errors import ConfigError, RangeError
from clearsight.nn.activation import ACTIVATION_ALIASES, ACTIVATIONS, activation
from clearsight.reference import activations as reference


def _relu6(x: float) -> float:
    return min(max(x, 0.0), 6.0)


FORMULAS = {
    "none": lambda x: x,
    "relu": lambda x: max(x, 0.0),
    "relu6": _relu6,
    "leaky_relu": lambda x: x if x > 0 else 0.1 * x,
    "prelu": lambda x: x if x > 0 else 0.25 * x,
    "elu": lambda x: x if x > 0 else math.exp(x) - 1,
    "silu": lambda x: x / (1 + math.exp(-x)),
    "mish": lambda x: x * math.tanh(math.log1p(math.exp(x))),
    "softplus": lambda x: math.log1p(math.exp(x)),
    "gelu": lambda x: 0.5 * x * (1 + math.erf(x / math.sqrt(2))),
    "gelu_tanh": lambda x: 0.5 * x * (1 + math.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))),
    "hardswish": lambda x: x * _relu6(x + 3) / 6,
    "hardsigmoid": lambda x: _relu6(x + 3) / 6,
    "tanh": math.tanh,
    "sigmoid": lambda x: 1 / (1 + math.exp(-x)),
}
Backward = Callable[[np.ndarray, np.ndarray], np.ndarray]
DERIVED: dict[str, Backward] = {
    "relu": reference.relu_backward,
    "relu6": reference.relu6_backward,
    "leaky_relu": lambda grad, x: reference.leaky_relu_backward(grad, x, slope=0.1),
    "prelu": lambda grad, x: reference.prelu_backward(grad, x, np.array([0.25]))[0],
    "elu": reference.elu_backward,
    "silu": reference.swish_backward,
    "gelu": reference.gelu_backward,
    "gelu_tanh": reference.gelu_tanh_backward,
    "hardswish": reference.hardswish_backward,
    "hardsigmoid": reference.hardsigmoid_backward,
    "tanh": reference.tanh_backward,
    "sigmoid": reference.sigmoid_backward,
}
POINTS = [-7.0, -3.0, -1.5, -0.2, 0.0, 0.3, 2.0, 3.0, 8.0]


def at_points(layer: nn.Module) -> Tensor:
    return layer(torch.tensor(POINTS, dtype=torch.float64))


def slopes(layer: nn.Module, x: Tensor) -> Tensor:
    leaf = x.clone().requires_grad_()
    return torch.autograd.grad(layer(leaf * 1).sum(), leaf)[0]


def test_every_name_has_a_formula_here() -> None:
    assert set(FORMULAS) == set(ACTIVATIONS)


@pytest.mark.parametrize("name", sorted(ACTIVATIONS))
def test_values_follow_the_formula(name: str) -> None:
    expected = torch.tensor([FORMULAS[name](value) for value in POINTS], dtype=torch.float64)
    torch.testing.assert_close(at_points(activation(name).double()), expected)


@pytest.mark.parametrize("name", sorted(DERIVED))
def test_derivatives_are_the_derived_ones(name: str) -> None:
    x = torch.cat((torch.randn(200) * 4, torch.tensor([0.0, 20.0, -20.0, 2.9, -2.9]))).double()
    expected = DERIVED[name](np.ones(len(x)), x.numpy())
    np.testing.assert_allclose(slopes(activation(name).double(), x).numpy(), expected, rtol=1e-7, atol=1e-12)


@pytest.mark.parametrize("name", ["mish", "softplus"])
def test_derivatives_without_a_reference_are_finite_differences(name: str) -> None:
    assert torch.autograd.gradcheck(activation(name), torch.randn(20, dtype=torch.float64, requires_grad=True))


def test_the_forms_in_circulation_are_others() -> None:
    x = torch.tensor(POINTS, dtype=torch.float64)
    for wrong in (x * (6 * (x + 3)).relu() / 6, x * (x + 3).relu() / 6):
        assert (at_points(activation("hswish")) - wrong).abs().max() > 1
    assert (at_points(activation("hsigmoid")) - (0.5 * x + 0.5).clamp(0, 1)).abs().max() > 0.2
    derivative = slopes(activation("sigmoid"), x)
    torch.testing.assert_close(derivative, x.exp() / (x.exp() + 1) ** 2)
    assert (derivative - 1 / (x.exp() + 1) ** 2).abs().max() > 0.9


@pytest.mark.parametrize("name", sorted(ACTIVATIONS))
def test_each_call_gives_a_layer_of_its_own(name: str) -> None:
    assert activation(name) is not activation(name)


def test_other_names_mean_the_same() -> None:
    assert {"swish", "hswish", "hsigmoid"} < set(ACTIVATION_ALIASES)
    for other, name in ACTIVATION_ALIASES.items():
        assert type(activation(other)) is type(activation(name))


def test_options_reach_the_layer() -> None:
    x = torch.tensor([[-2.0, 1.0]])
    for name in ("relu", "relu6", "leaky_relu"):
        kept, changed = x.clone(), x.clone()
        activation(name, inplace=False)(kept)
        activation(name)(changed)
        assert torch.equal(kept, x)
        assert changed[0, 0] != x[0, 0]
    torch.testing.assert_close(activation("leaky_relu", slope=0.2, inplace=False)(x), torch.tensor([[-0.4, 1.0]]))
    prelu = activation("prelu", channels=2, slope=0.5)
    assert prelu.weight.tolist() == [0.5, 0.5]
    torch.testing.assert_close(prelu(x), torch.tensor([[-1.0, 1.0]]))
    assert activation("prelu").weight.numel() == 1


def test_a_slope_is_learned() -> None:
    layer = activation("prelu", channels=3).double()
    x, grad = torch.randn(2, 2, 3, 4, 5, dtype=torch.float64).unbind()
    (found,) = torch.autograd.grad(layer(x), layer.weight, grad)
    _, expected = reference.prelu_backward(grad.numpy(), x.numpy(), layer.weight.detach().numpy())
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-9)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"name": "rellu"}, ConfigError, r"none named 'rellu'; did you mean 'relu'\?"),
        ({"name": "squash"}, ConfigError, r"none named 'squash'; choose one of none, relu, relu6"),
        ({"name": "gelu", "inplace": True}, ConfigError, "'gelu' takes no inplace; it is for relu, relu6, leaky_relu"),
        ({"name": "relu", "slope": 0.1}, ConfigError, "'relu' takes no slope; it is for leaky_relu, prelu"),
        ({"name": "relu", "channels": 4}, ConfigError, "'relu' takes no channels; it is for prelu"),
        ({"name": "prelu", "channels": 0}, ConfigError, "channels: must be at least 1, got 0"),
        ({"name": "leaky_relu", "slope": -0.1}, RangeError, r"slope must be in \[0, 1\], got -0.1"),
        ({"name": "prelu", "slope": 1.5}, RangeError, "slope must be in"),
    ],
)
def test_what_cannot_be_is_refused(options: dict[str, object], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        activation(**options)
