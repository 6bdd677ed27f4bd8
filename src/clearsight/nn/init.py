"""Initial weights, by rule for a whole model."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from torch import nn
from torch.nn.modules.batchnorm import _NormBase  # pyright: ignore[reportPrivateUsage]  # batch and instance norms

from clearsight.errors import ConfigError, RangeError, nearest
from clearsight.nn.init_rules import INIT_RULES, Rule, fans
from clearsight.nn.upsample import PixelShuffle

__all__ = ["Initialised", "init", "kaiming_init", "prior_bias"]


class Initialised(NamedTuple):
    """One row of what `init` did.

    Args:
        parameter: its name in the model.
        rule: what it was filled by, or `left alone`.
    """

    parameter: str
    rule: str


def init(
    model: nn.Module,
    rule: str | Rule = "kaiming",
    *,
    classifier: str | Sequence[str] = (),
    prior: float = 0.01,
    zero_last_norm: bool | str | Sequence[str] = False,
) -> list[Initialised]:
    """Initialise a whole model, in place.

    Weights of convolutions (all dimensions, transposed too), linear layers and embeddings by the rule; their biases at
    0; norms at scale 1 and shift 0, their running statistics as new. Pixel shuffles get their repeated kernels back.
    Draws come from PyTorch's global generator, in the order of the model's modules.

    Args:
        model: any module.
        rule: a key of `INIT_RULES`, or one with other numbers, such as `kaiming(activation="leaky_relu", slope=0.1)`.
        classifier: names of layers that end in a sigmoid; their bias starts at `prior_bias(prior)`.
        prior: the share of positives that they start with, in (0, 1).
        zero_last_norm: start residual blocks as the identity, by a scale of 0 in the last norm of each (Goyal et al.
            2017, arXiv:1706.02677, section 5.1): True for the norms that blocks name as their `last_norm`, or names.

    Returns:
        One row for each parameter, in the order of the model; other parameters are `left alone`, and say so.

    Raises:
        ConfigError: the rule is unknown, a named layer is not there or has no bias or scale, or no block of the model
            has a `last_norm`.
        RangeError: `prior` lies outside (0, 1).
    """
    if isinstance(rule, str):
        if rule not in INIT_RULES:
            raise ConfigError(f"init: there is no rule named {rule!r}{nearest(rule, INIT_RULES)}")
        rule = INIT_RULES[rule]
    start = prior_bias(prior)
    biases = [_parameter(model, name, "bias", "classifier") for name in _listed(classifier)]
    scales = _last_scales(model, zero_last_norm)
    done: dict[int, str] = {}
    for layer in model.modules():
        _fill(layer, rule, done)
    for layer in model.modules():
        if isinstance(layer, PixelShuffle):
            layer.repeat_kernels()
            done[id(layer.conv.weight)] = f"{rule.name}, repeated"
    for bias in biases:
        nn.init.constant_(bias, start)
        done[id(bias)] = f"prior {prior:g}"
    for scale in scales:
        nn.init.zeros_(scale)
        done[id(scale)] = "zeros, last norm"
    return [Initialised(name, done.get(id(value), "left alone")) for name, value in model.named_parameters()]


def _fill(layer: nn.Module, rule: Rule, done: dict[int, str]) -> None:
    """Initialise one layer's own parameters, of those that layers share the first's."""
    own = {name: value for name, value in layer.named_parameters(recurse=False) if id(value) not in done}
    of = fans(layer)
    if of is not None:
        if "weight" in own:
            with torch.no_grad():
                rule.fill(own["weight"], of)
            done[id(own["weight"])] = rule.name
        if isinstance(layer, nn.Embedding | nn.EmbeddingBag) and layer.padding_idx is not None:
            nn.init.zeros_(layer.weight[layer.padding_idx])
    elif isinstance(layer, _NormBase | nn.GroupNorm | nn.LayerNorm | nn.RMSNorm):
        if isinstance(layer, _NormBase):
            layer.reset_running_stats()
        if "weight" in own:
            nn.init.ones_(own["weight"])
            done[id(own["weight"])] = "ones"
    else:
        return
    if "bias" in own:
        nn.init.zeros_(own["bias"])
        done[id(own["bias"])] = "zeros"


def _listed(names: str | Sequence[str]) -> Sequence[str]:
    return [names] if isinstance(names, str) else names


def _last_scales(model: nn.Module, chosen: bool | str | Sequence[str]) -> list[nn.Parameter]:  # noqa: FBT001
    if not isinstance(chosen, bool):
        return [_parameter(model, name, "weight", "zero_last_norm") for name in _listed(chosen)]
    if not chosen:
        return []
    blocks = [(name, getattr(block, "last_norm", None)) for name, block in model.named_modules()]
    found = [(name, layer) for name, layer in blocks if isinstance(layer, nn.Module)]
    if not found:
        raise ConfigError("zero_last_norm: no block of the model has a last_norm; pass the names of the norms")
    return [_parameter(layer, "", "weight", f"zero_last_norm: the last norm of {name!r}") for name, layer in found]


def _parameter(model: nn.Module, name: str, kind: Literal["weight", "bias"], what: str) -> nn.Parameter:
    """A parameter of the layer that somebody named."""
    layers = dict(model.named_modules())
    if name not in layers:
        raise ConfigError(f"{what}: there is no layer named {name!r}{nearest(name, filter(None, layers))}")
    value = dict(layers[name].named_parameters(recurse=False)).get(kind)
    if value is None:
        raise ConfigError(f"{what}: {name or type(model).__name__} ({type(layers[name]).__name__}) has no {kind}")
    return value


def kaiming_init(module: nn.Module) -> nn.Module:
    """Initialise every convolution and normalisation below a module, in place.

    Method: He et al. 2015, arXiv:1502.01852, equation 10, by fan-out for ReLU (as torchvision's ResNet, with PyTorch's
    fans, which count neither groups nor strides: `init` does); norms start at scale 1 and shift 0, biases at 0.

    Args:
        module: any module.

    Returns:
        The same module.
    """
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
        elif isinstance(layer, nn.BatchNorm2d | nn.GroupNorm):
            nn.init.ones_(layer.weight)
            nn.init.zeros_(layer.bias)
    return module


def prior_bias(p: float = 0.01) -> float:
    """The bias at which a sigmoid starts at probability `p`, so that rare positives do not swamp the first steps.

    Method: Lin et al. 2017, arXiv:1708.02002, section 4.1: `-log((1 - p) / p)`.

    Args:
        p: in (0, 1).

    Returns:
        The bias.

    Raises:
        RangeError: `p` lies outside (0, 1).
    """
    if not 0 < p < 1:
        raise RangeError(f"p: must be in (0, 1), got {p}")
    return -math.log((1 - p) / p)
