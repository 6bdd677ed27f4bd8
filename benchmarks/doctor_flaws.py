"""Modules with a mistake in them, and how they are put into a net."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from doctor_nets import layers_of
from doctor_training import Bench

__all__ = [
    "FLAWS",
    "AddsDropout",
    "ChangesInput",
    "Detached",
    "Flaw",
    "ForgetsInput",
    "MixesSamples",
    "insert",
    "replace_activations",
]


# ------------------------------------------------------------------------------------------------ values not finite
class Flaw(nn.Module):
    """An operation that gives NaN or an infinity once it is switched on; before, it does nothing.

    Args:
        kind: key of `FLAWS`.
    """

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.on = False

    def forward(self, x: Tensor) -> Tensor:
        """Same shape."""
        return FLAWS[self.kind][2](x) if self.on else x


# What is not finite has to get past a ReLU: +∞ and NaN do.
def _log(x: Tensor) -> Tensor:
    return x - 0.01 * torch.log(torch.relu(x))


def _log_negative(x: Tensor) -> Tensor:
    return x + 0.01 * torch.log(x - x.mean())


def _sqrt_at_zero(x: Tensor) -> Tensor:
    return x + torch.sqrt((x - x.detach()).square())  # the distance to itself


def _sqrt_negative(x: Tensor) -> Tensor:
    return x + 0.01 * torch.sqrt(x - x.mean())


def _divide(x: Tensor) -> Tensor:
    high = torch.relu(x)
    return x + 0.01 * (high / high)


def _exp(x: Tensor) -> Tensor:
    return x + 0.01 * torch.exp(100 + x.abs())


def _power(x: Tensor) -> Tensor:
    return x + 0.01 * (x - x.mean()) ** 0.5


def _acos_at_one(x: Tensor) -> Tensor:
    return x + torch.acos(1 - (x - x.detach()).square())  # the angle to itself


def _masked(x: Tensor) -> Tensor:
    rows = x.flatten(1)
    away = torch.zeros_like(rows, dtype=torch.bool)
    away[0] = True
    return x + torch.softmax(rows.masked_fill(away, float("-inf")), 1).view_as(x)


def _product(x: Tensor) -> Tensor:
    return x + 0.01 * ((x.abs() * 1e30) * 1e30)


def _root_of_sum(x: Tensor) -> Tensor:
    return x + 0.01 * torch.rsqrt((x * 0).square().sum(dim=1, keepdim=True))


# Kind → direction, operation, what it does.
FLAWS = {
    "log": ("forward", "log", _log),
    "log-negative": ("forward", "log", _log_negative),
    "sqrt-at-zero": ("backward", "sqrt", _sqrt_at_zero),
    "sqrt-negative": ("forward", "sqrt", _sqrt_negative),
    "divide": ("forward", "div", _divide),
    "exp": ("forward", "exp", _exp),
    "power": ("forward", "pow", _power),
    "acos-at-one": ("backward", "acos", _acos_at_one),
    "masked-row": ("forward", "softmax", _masked),
    "product": ("forward", "mul", _product),
    "rsqrt-of-zero": ("forward", "rsqrt", _root_of_sum),
}


# ------------------------------------------------------------------------------------------------ mistakes of code
class MixesSamples(nn.Module):
    """A view that takes the axis of the batch for that of the features."""

    def forward(self, x: Tensor) -> Tensor:
        """Same shape, the samples torn apart."""
        return x.flatten(1).t().reshape(x.shape)


class Detached(nn.Module):
    """What is below gets no gradient."""

    def forward(self, x: Tensor) -> Tensor:
        """The same."""
        return x.detach()


class ForgetsInput(nn.Module):
    """What is above sees nothing of the image."""

    def forward(self, x: Tensor) -> Tensor:
        """Zeros."""
        return torch.zeros_like(x) + 0 * x


class ChangesInput(nn.Module):
    """The images that it is given are changed in place."""

    def forward(self, x: Tensor) -> Tensor:
        """The same memory, 1.3 times as large."""
        return x.mul_(1.3) if self.training else x


class AddsDropout(nn.Module):
    """A layer with dropout behind it."""

    def __init__(self, layer: nn.Module, share: float) -> None:
        super().__init__()
        self.layer, self.drop = layer, nn.Dropout(share)

    def forward(self, x: Tensor) -> Tensor:
        """Same shape as the layer's."""
        return self.drop(self.layer(x))


# ------------------------------------------------------------------------------------------------ surgery
def insert(bench: Bench, module: nn.Module, place: float) -> str:
    """Put a module behind a layer; returns its name.

    Args:
        bench: whose model is changed.
        module: goes behind.
        place: 0 the first layer, 1 the last.
    """
    layers = [(name, one) for name, one in layers_of(bench.model) if ".gate." not in name]  # a gate swallows ∞
    name, layer = layers[round(place * (len(layers) - 1))]
    bench.model.set_submodule(name, nn.Sequential(layer, module))
    return f"{name}.1"


def replace_activations(model: nn.Module, kind: type[nn.Module]) -> None:
    """All non-linearities of a net, by name of their classes, become another."""
    for name, module in list(model.named_modules()):
        if isinstance(module, nn.ReLU | nn.GELU | nn.Tanh | nn.LeakyReLU):
            model.set_submodule(name, kind())
