"""Activations by name."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from clearsight.errors import ConfigError

__all__ = ["ACTIVATIONS", "activation"]

# In place where backward needs only the output: the layer before must not need its own output (convolution, norm).
ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "none": nn.Identity,
    "relu": lambda: nn.ReLU(inplace=True),
    "leaky_relu": lambda: nn.LeakyReLU(0.1, inplace=True),
    "silu": nn.SiLU,
    "gelu": nn.GELU,
    "hardswish": nn.Hardswish,
    "hardsigmoid": nn.Hardsigmoid,
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
}


def activation(name: str) -> nn.Module:
    """An activation layer.

    Args:
        name: a key of `ACTIVATIONS`; `relu` and `leaky_relu` (slope 0.1) work in place.

    Returns:
        The layer.

    Raises:
        ConfigError: the name is unknown.
    """
    if name not in ACTIVATIONS:
        raise ConfigError(f"activation: unknown name {name!r}; choose one of {', '.join(ACTIVATIONS)}")
    return ACTIVATIONS[name]()
