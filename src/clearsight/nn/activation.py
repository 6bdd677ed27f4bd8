"""Activations by name."""

from __future__ import annotations

import inspect
from collections.abc import Callable

from torch import nn

from clearsight.errors import ConfigError, RangeError, nearest
from clearsight.nn.checks import check_positive

__all__ = ["ACTIVATIONS", "ACTIVATION_ALIASES", "activation"]


def _leaky_relu(*, slope: float = 0.1, inplace: bool = True) -> nn.LeakyReLU:
    return nn.LeakyReLU(_in_unit("slope", slope), inplace)


def _prelu(*, channels: int = 1, slope: float = 0.25) -> nn.PReLU:
    check_positive(channels, "activation: channels")
    return nn.PReLU(channels, _in_unit("slope", slope))


def _relu(*, inplace: bool = True) -> nn.ReLU:
    return nn.ReLU(inplace)


def _relu6(*, inplace: bool = True) -> nn.ReLU6:
    return nn.ReLU6(inplace)


# In place where backward needs only the output: the layer before must not need its own output (convolution, norm).
ACTIVATIONS: dict[str, Callable[..., nn.Module]] = {
    "none": lambda: nn.Identity(),
    "relu": _relu,
    "relu6": _relu6,
    "leaky_relu": _leaky_relu,
    "prelu": _prelu,
    "elu": lambda: nn.ELU(),
    "gelu": lambda: nn.GELU(),
    "gelu_tanh": lambda: nn.GELU(approximate="tanh"),
    "silu": lambda: nn.SiLU(),
    "mish": lambda: nn.Mish(),
    "softplus": lambda: nn.Softplus(),
    "hardswish": lambda: nn.Hardswish(),
    "hardsigmoid": lambda: nn.Hardsigmoid(),
    "tanh": lambda: nn.Tanh(),
    "sigmoid": lambda: nn.Sigmoid(),
}
ACTIVATION_ALIASES: dict[str, str] = {
    "identity": "none",
    "swish": "silu",
    "hswish": "hardswish",
    "h_swish": "hardswish",
    "hsigmoid": "hardsigmoid",
    "h_sigmoid": "hardsigmoid",
}


def activation(
    name: str, *, inplace: bool | None = None, slope: float | None = None, channels: int | None = None
) -> nn.Module:
    """An activation layer.

    Args:
        name: a key of `ACTIVATIONS` or `ACTIVATION_ALIASES`. `gelu` is the exact one, `gelu_tanh` its approximation;
            `hardswish` is `x · ReLU6(x + 3) / 6` and `hardsigmoid` `ReLU6(x + 3) / 6` (Howard et al. 2019,
            arXiv:1905.02244), not `clip(0.5 x + 0.5)`, which goes by that name too.
        inplace: of `relu`, `relu6` and `leaky_relu`: write over the input, True by default.
        slope: below zero, in [0, 1]: of `leaky_relu`, 0.1 by default, and where that of `prelu` starts, 0.25.
        channels: learned slopes of `prelu`: 1 for all by default, else one for each channel.

    Returns:
        The layer.

    Raises:
        ConfigError: the name is unknown, or the activation does not take an option.
        RangeError: the slope is out of range.
    """
    full = ACTIVATION_ALIASES.get(name, name)
    if full not in ACTIVATIONS:
        raise ConfigError(
            f"activation: there is none named {name!r}{nearest(name, (*ACTIVATIONS, *ACTIVATION_ALIASES))}"
        )
    options = {"inplace": inplace, "slope": slope, "channels": channels}
    given = {option: value for option, value in options.items() if value is not None}
    for option in given:
        if option not in inspect.signature(ACTIVATIONS[full]).parameters:
            takers = [other for other, build in ACTIVATIONS.items() if option in inspect.signature(build).parameters]
            raise ConfigError(f"activation: {full!r} takes no {option}; it is for {', '.join(takers)}")
    return ACTIVATIONS[full](**given)


def _in_unit(what: str, value: float) -> float:
    if not 0 <= value <= 1:
        raise RangeError(f"activation: {what} must be in [0, 1], got {value:g}")
    return value
