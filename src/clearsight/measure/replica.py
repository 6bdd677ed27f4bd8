"""A copy of a model to be run without a trace on the model itself: without data at all, or sharing its weights."""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from clearsight.errors import ConfigError

__all__ = ["replicate", "tensors_in"]

_PLAIN = (int, float, str, bytes, type(None))
_REGISTERED = ("_parameters", "_buffers", "_modules")


def tensors_in(value: object) -> Iterator[Tensor]:
    """Every tensor in nested lists, tuples, mappings and objects with attributes, such as dataclasses."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, _PLAIN):
        return
    elif isinstance(value, dict) or (not isinstance(value, list | tuple) and isinstance(value, Mapping)):
        for one in value.values():
            yield from tensors_in(one)
    elif isinstance(value, list | tuple | Sequence):
        for one in value:
            yield from tensors_in(one)
    elif hasattr(value, "__dataclass_fields__"):
        for name in value.__dataclass_fields__:  # pyright: ignore[reportAttributeAccessIssue]
            yield from tensors_in(getattr(value, name, None))


def replicate(model: nn.Module, *, meta: bool) -> nn.Module:
    """A copy that can run, be trained and keep what it likes, and the model knows nothing of it.

    Args:
        model: any; hooks come along.
        meta: tensors have shapes and types and no data, so that nothing is computed. Otherwise parameters share their
            data with the model's, and buffers, which running changes, have data of their own.

    Raises:
        ConfigError: the model has parameters without a shape yet, or cannot be copied.
    """
    model = getattr(model, "_orig_mod", model)  # what `torch.compile` was given
    known = _twins(model, meta=meta)
    plain = [module for module in model.modules() if _is_plain(type(module))]
    for module in plain:
        known[id(module)] = object.__new__(type(module))
    try:
        for module in plain:
            for name, value in vars(module).items():
                known[id(module)].__dict__[name] = _copied(value, known)
        return copy.deepcopy(model, known)
    except (TypeError, RuntimeError, AttributeError, NotImplementedError) as error:
        raise ConfigError(
            f"{type(model).__name__}: to be counted it must allow copy.deepcopy, which says: {error}"
        ) from error


def _twins(model: nn.Module, *, meta: bool) -> dict[int, Any]:
    """What stands for each tensor of a model, by the id of the tensor."""
    known: dict[int, Any] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        if is_lazy(parameter):
            raise ConfigError(f"{name}: a lazy layer has no shape before its first use; run the model once, then ask")
        if id(parameter) not in known:
            data = _empty(parameter) if meta else parameter.detach()
            known[id(parameter)] = nn.Parameter(data, requires_grad=parameter.requires_grad)
    for buffer in model.buffers():
        known[id(buffer)] = _empty(buffer) if meta else buffer.detach().clone()
    for tensor in _others(model):
        if id(tensor) not in known:
            known[id(tensor)] = _empty(tensor) if meta else tensor.detach()
    return known


def _others(model: nn.Module) -> Iterator[Tensor]:
    """Tensors that are neither parameters nor buffers, such as a table of anchors or a normalised weight."""
    for module in model.modules():
        for name, value in vars(module).items():
            if name not in _REGISTERED and not isinstance(value, _PLAIN):
                yield from tensors_in(value)


def _empty(tensor: Tensor) -> Tensor:
    return torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device="meta")


def _is_plain(kind: type[nn.Module]) -> bool:
    """Whether all there is to a module are its attributes; then copying them one by one saves most of the time."""
    own = ("__deepcopy__", "__getstate__", "__reduce__", "__reduce_ex__", "__slots__")
    return all(getattr(kind, name, None) is getattr(nn.Module, name, None) for name in own)


def _copied(value: Any, known: dict[int, Any]) -> Any:  # noqa: ANN401
    """`copy.deepcopy`, faster for what modules consist of."""
    if isinstance(value, _PLAIN):
        return value
    if type(value) in (dict, OrderedDict):
        return type(value)((key, _copied(one, known)) for key, one in value.items())
    return known[id(value)] if id(value) in known else copy.deepcopy(value, known)
