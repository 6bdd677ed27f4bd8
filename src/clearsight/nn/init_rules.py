"""Rules for initial weights, and how many terms the sums over a weight have."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd  # pyright: ignore[reportPrivateUsage]  # of all dimensions

from clearsight.errors import ConfigError, nearest

__all__ = [
    "INIT_RULES",
    "Fans",
    "Rule",
    "fans",
    "kaiming",
    "normal",
    "orthogonal",
    "truncated_normal",
    "uniform",
    "xavier",
    "zeros",
]

Gain = Literal["linear", "relu", "leaky_relu", "tanh", "sigmoid", "selu"]
_CUT = 0.8796256610342398  # standard deviation of a standard normal that is cut at ±2


class Fans(NamedTuple):
    """How many terms the sums over a weight have.

    Args:
        inputs: in an output, on average over the pixels.
        outputs: in the gradient of an input, on average over the pixels.
        groups: along the first axis, that have nothing to do with each other.
    """

    inputs: float
    outputs: float
    groups: int = 1


@dataclass(frozen=True)
class Rule:
    """How a weight is filled.

    Args:
        name: for the table that `init` gives back.
        fill: changes a weight in place, given its fans.
    """

    name: str
    fill: Callable[[Tensor, Fans], object]


def fans(layer: nn.Module) -> Fans | None:
    """The fans of a layer's weight, None where it is no linear map or is computed from other parameters.

    With k taps, i and o channels, g groups and stride s, each output of a convolution sums `k i / g` products, and each
    input is in `k o / (g s)` outputs (the border left aside). In a transposed convolution each output sums
    `k i / (g s)` products, and each input is in `k o / g` outputs. `torch.nn.init` has these two the wrong way round,
    for it reads them off the shape of the weight, and counts no strides, nor in fan-out groups: variances then grow or
    shrink by those factors. For an embedding both are d, so that the length of its vectors does not depend on d.

    Args:
        layer: a convolution of any dimension, transposed or not, a linear layer or an embedding.
    """
    if not isinstance(dict(layer.named_parameters(recurse=False)).get("weight"), nn.Parameter):
        return None
    if isinstance(layer, nn.Linear):
        return Fans(layer.in_features, layer.out_features)
    if isinstance(layer, nn.Embedding | nn.EmbeddingBag):
        return Fans(layer.embedding_dim, layer.embedding_dim)
    if not isinstance(layer, _ConvNd):
        return None
    taps, step, groups = math.prod(layer.kernel_size), math.prod(layer.stride), layer.groups
    inputs, outputs = taps * layer.in_channels / groups, taps * layer.out_channels / groups
    if isinstance(layer, _ConvTransposeNd):
        return Fans(inputs / step, outputs, groups)
    return Fans(inputs, outputs / step, groups)


def normal(std: float = 0.01) -> Rule:
    """`std · N(0, 1)`, whatever the size of the layer."""
    return Rule(f"normal, std {std:g}", lambda weight, _: nn.init.normal_(weight, std=std))


def truncated_normal(std: float = 0.02) -> Rule:
    """A normal distribution cut at two of its standard deviations, widened so that `std` is what is left of it.

    As transformers start (Dosovitskiy et al. 2021, arXiv:2010.11929, by way of JAX). `torch.nn.init.trunc_normal_` cuts
    at ±2 whatever the deviation, which at 0.02 cuts nothing.
    """

    def fill(weight: Tensor, _: Fans) -> None:
        nn.init.trunc_normal_(weight, std=std / _CUT, a=-2 * std / _CUT, b=2 * std / _CUT)

    return Rule(f"truncated normal, std {std:g}", fill)


def uniform(scale: float = 1.0) -> Rule:
    """Even within `±scale / √d`, d the fan-in: a variance of `scale² / (3 d)`, so that √3 keeps that of the input."""
    return Rule(
        f"uniform, ±{scale:g}/√d",
        lambda weight, of: nn.init.uniform_(weight, -scale / math.sqrt(of.inputs), scale / math.sqrt(of.inputs)),
    )


def xavier(*, even: bool = True, gain: float = 1.0) -> Rule:
    """Variance `gain² · 2 / (fan-in + fan-out)`, a compromise between activations and gradients.

    Method: Glorot and Bengio 2010, Understanding the difficulty of training deep feedforward neural networks, equation
    12; equation 16 is the even distribution.

    Args:
        even: evenly distributed, else normally.
        gain: of the activation that follows.
    """
    return _spread("xavier", f"gain {gain:g}", lambda of: gain / math.sqrt((of.inputs + of.outputs) / 2), even=even)


def kaiming(
    *, fan: Literal["in", "out"] = "in", even: bool = False, activation: Gain = "relu", slope: float = 0.01
) -> Rule:
    """Variance `gain² / fan`: a network keeps the variance of its activations (fan-in) or gradients (fan-out).

    Method: He et al. 2015, arXiv:1502.01852, equations 10 and 14; gain² is 2 for ReLU, `2 / (1 + slope²)` for leaky
    ReLU, and 1 for none.

    Args:
        fan: which of the two.
        even: evenly distributed, else normally.
        activation: what follows; the gains are PyTorch's.
        slope: of leaky ReLU below zero.

    Raises:
        ConfigError: there is no such fan or activation.
    """
    if fan not in ("in", "out"):
        raise ConfigError(f"fan: expected 'in' or 'out', got {fan!r}")
    if activation not in get_args(Gain):
        raise ConfigError(f"activation: there is no gain for {activation!r}{nearest(activation, get_args(Gain))}")
    gain = nn.init.calculate_gain(activation, slope if activation == "leaky_relu" else None)
    leak = f" {slope:g}" if activation == "leaky_relu" else ""
    return _spread(
        "kaiming",
        f"fan-{fan}, {activation}{leak}",
        lambda of: gain / math.sqrt(of.inputs if fan == "in" else of.outputs),
        even=even,
    )


def orthogonal(gain: float = 1.0) -> Rule:
    """A random orthogonal matrix times the gain, of each group one; the rest of a kernel counts as columns.

    Method: Saxe et al. 2014, arXiv:1312.6120.
    """

    def fill(weight: Tensor, of: Fans) -> None:
        for group in weight.chunk(of.groups):
            nn.init.orthogonal_(group, gain)

    return Rule(f"orthogonal, gain {gain:g}", fill)


def zeros() -> Rule:
    """All zero: for last layers; hidden layers that start so all stay alike."""
    return Rule("zeros", lambda weight, _: nn.init.zeros_(weight))


def _spread(name: str, detail: str, std: Callable[[Fans], float], *, even: bool) -> Rule:
    """Weights of a standard deviation that depends on the fans, evenly or normally distributed."""

    def fill(weight: Tensor, of: Fans) -> None:
        if even:
            nn.init.uniform_(weight, -math.sqrt(3) * std(of), math.sqrt(3) * std(of))
        else:
            nn.init.normal_(weight, std=std(of))

    return Rule(f"{name} {'uniform' if even else 'normal'}, {detail}", fill)


INIT_RULES: dict[str, Rule] = {
    "zeros": zeros(),
    "normal": normal(),
    "truncated_normal": truncated_normal(),
    "uniform": uniform(),
    "xavier": xavier(),
    "xavier_normal": xavier(even=False),
    "kaiming": kaiming(),
    "kaiming_uniform": kaiming(even=True),
    "kaiming_fan_out": kaiming(fan="out"),
    "orthogonal": orthogonal(),
}
