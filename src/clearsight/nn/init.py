"""Initial weights."""

from __future__ import annotations

import math

from torch import nn

from clearsight.errors import RangeError

__all__ = ["kaiming_init", "prior_bias"]


def kaiming_init(module: nn.Module) -> nn.Module:
    """Initialise every convolution and normalisation below a module, in place.

    Method: He et al. 2015, arXiv:1502.01852, equation 10, by fan-out for ReLU (as torchvision's ResNet); norms start at
    scale 1 and shift 0, biases at 0.

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
