"""Weights as a length times a direction."""

from __future__ import annotations

from torch import nn
from torch.nn.utils import parametrizations, parametrize

from clearsight.errors import ConfigError, RangeError, nearest

__all__ = ["remove_weight_norm", "weight_norm"]


def weight_norm(module: nn.Module, *, name: str = "weight", dim: int | None = 0) -> nn.Module:
    """Train a layer's weight as `w = g · v / ‖v‖`: its lengths g and its directions v apart.

    The layer computes what it did before. In the state dict the weight's place is taken by
    `parametrizations.weight.original0` (g) and `parametrizations.weight.original1` (v); those of older PyTorch,
    `weight_g` and `weight_v`, load too. `module.weight` is still the weight.

    Method: Salimans and Kingma 2016, arXiv:1602.07868, equation 2; the start from data of its section 3 is left out.

    Args:
        module: a layer with the parameter; changed in place.
        name: of the parameter.
        dim: the axis that keeps its lengths: 0 for one an output channel (1 for transposed convolutions), None for one
            length of the whole weight.

    Returns:
        The same module.

    Raises:
        ConfigError: there is no such parameter, it is normalised already, or has no such axis.
        RangeError: a length is 0, such as after initialisation with zeros: there is no direction.
    """
    _check_name(module, name, "weight_norm")
    if _normalised(module, name):
        raise ConfigError(f"weight_norm: {name!r} of {type(module).__name__} is normalised already")
    weight = module.get_parameter(name)
    if dim is not None and not -weight.ndim <= dim < weight.ndim:
        raise ConfigError(f"weight_norm: dim must be one of the {weight.ndim} axes of {name!r} or None, got {dim}")
    axis = None if dim is None else dim % weight.ndim
    rows = weight.detach().flatten() if axis is None else weight.detach().movedim(axis, 0).flatten(1)
    lengths = rows.norm(dim=-1)
    if bool((lengths == 0).any()):
        raise RangeError(
            f"weight_norm: {int((lengths == 0).sum())} of {lengths.numel()} lengths of {name!r} are 0, and a zero "
            "weight has no direction; initialise it first"
        )
    # PyTorch's kernel takes -1 for the whole weight, so that the last axis must be given by its number.
    return parametrizations.weight_norm(module, name, axis)  # pyright: ignore[reportArgumentType]


def remove_weight_norm(module: nn.Module, *, name: str = "weight") -> nn.Module:
    """Make the weight a plain parameter again, with the value it has.

    Args:
        module: changed in place.
        name: of the parameter.

    Returns:
        The same module.

    Raises:
        ConfigError: the parameter is not normalised.
    """
    if not _normalised(module, name):
        _check_name(module, name, "remove_weight_norm")
        raise ConfigError(f"remove_weight_norm: {name!r} of {type(module).__name__} is not normalised")
    return parametrize.remove_parametrizations(module, name)


def _normalised(module: nn.Module, name: str) -> bool:
    if not parametrize.is_parametrized(module, name):
        return False
    found = module.parametrizations[name]  # pyright: ignore
    return any(isinstance(one, parametrizations._WeightNorm) for one in found)  # pyright: ignore


def _check_name(module: nn.Module, name: str, what: str) -> None:
    known = [key for key, _ in module.named_parameters(recurse=False)]
    if name not in known and not parametrize.is_parametrized(module, name):
        hint = nearest(name, known) if known else "; it has no parameters of its own"
        raise ConfigError(f"{what}: {type(module).__name__} has no parameter {name!r}{hint}")
