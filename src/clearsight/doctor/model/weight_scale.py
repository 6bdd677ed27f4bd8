"""How large weights start, beside what usual rules would make them."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from clearsight.doctor.model.evidence import ModelEvidence
from clearsight.doctor.model.fresh_weights import looks_drawn
from clearsight.doctor.model.kinds import is_convolution, is_linear, is_norm, is_transposed
from clearsight.doctor.run.layer_plan import untouched_statistics
from clearsight.errors import ConfigError

__all__ = ["as_drawn", "times_he"]

_LAYERS = 3  # fewest that say something
_VALUES = 100  # of a weight, from which its distribution is told from another
_EVEN = 3.0  # between the layers of one initialisation


def times_he(evidence: ModelEvidence) -> dict[str, float]:
    """Deviation of layers' weights in that of He's rule.

    The rule is He's for whichever is smaller of the numbers that a unit reads and that read a number, so that none of
    the usual rules (PyTorch's own, LeCun's, Glorot's, He's either way) gives more than 1. Layers with weights of zero,
    with fewer than 100 weights, and those whose output goes to the loss are left out, and so are transposed
    convolutions.

    Args:
        evidence: its model is not run, but for the flow.

    Returns:
        Name → ratio, in the order of the model; empty for fewer than 3 layers.
    """
    last = _goes_to_loss(evidence)
    found = {}
    for name, module in evidence.model.named_modules():
        if name in last or is_transposed(module) or not (is_convolution(module) or is_linear(module)):
            continue
        weight = module.weight
        if isinstance(weight, Tensor) and weight.is_floating_point() and weight.numel() >= _VALUES:
            deviation = _deviation(weight)
            if deviation > 0:
                found[name] = deviation * math.sqrt(min(_fans(weight)) / 2)
    return found if len(found) >= _LAYERS else {}


def as_drawn(model: nn.Module, names: Iterable[str]) -> bool:
    """Whether all of some layers look drawn by one rule and not trained.

    They are trained where a norm of the model has seen data, where one is not distributed as what is drawn is, and
    where they differ by more than a factor of 3 in each of: their deviation, and what it is beside either form of He's
    rule.

    Args:
        model: of the layers.
        names: of the layers, with 100 weights or more.
    """
    weights = [weight for name in names if isinstance(weight := model.get_submodule(name).weight, Tensor)]
    return _are_even(weights) and not _has_seen_data(model) and all(looks_drawn(weight) for weight in weights)


def _goes_to_loss(evidence: ModelEvidence) -> set[str]:
    try:
        return {call.module for call in evidence.flow.outputs}
    except ConfigError:  # a model that cannot be copied: the median bears one layer more
        return set()


def _has_seen_data(model: nn.Module) -> bool:
    norms = [module for module in model.modules() if is_norm(module)]
    tracking = [norm for norm in norms if isinstance(getattr(norm, "running_mean", None), Tensor)]
    return any(not untouched_statistics(norm) for norm in tracking)


def _deviation(weight: Tensor) -> float:
    return float(weight.detach().double().std())


def _fans(weight: Tensor) -> tuple[int, int]:
    """Numbers that a unit reads, and that read a number; of convolutions all places of the kernel count."""
    inside = weight[0, 0].numel()
    return weight.shape[1] * inside, weight.shape[0] * inside


def _are_even(weights: list[Tensor]) -> bool:
    """Whether one rule may have given all."""
    sizes = torch.tensor([[_deviation(one), *_fans(one)] for one in weights], dtype=torch.float64)
    by_rule = sizes[:, :1] * torch.cat([torch.ones_like(sizes[:, :1]), sizes[:, 1:].sqrt()], 1)
    return bool((by_rule.amax(0) <= _EVEN * by_rule.amin(0)).any())
