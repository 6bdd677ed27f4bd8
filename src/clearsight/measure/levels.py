"""Listens to the levels that a model works with, those of its backbone and those of its neck, whoever asks for them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from torch import Tensor, nn

__all__ = ["listen_to_levels"]


@contextmanager
def listen_to_levels(model: nn.Module, note: Callable[[str, Tensor], None]) -> Iterator[None]:
    """Call `note` with the name and the tensor of each level when it is made.

    Levels of a backbone, which is the model itself, its `backbone` or that of its `net`, are what its `features` gives;
    those of a `neck` are named by its `strides`.

    Args:
        model: any; inside the context its `features` is replaced, afterwards it is as before.
        note: called in the order of the levels.
    """
    holder = model if hasattr(model, "backbone") else getattr(model, "net", None)
    backbone = model if hasattr(model, "strides") else getattr(holder, "backbone", None)
    features = getattr(backbone, "features", None)
    if not isinstance(backbone, nn.Module) or isinstance(features, nn.Module) or not callable(features):
        yield
        return
    neck = getattr(model, "neck", None)
    names = [str(name) for name in getattr(neck, "strides", {})]

    def noted(*args: object, **kwargs: object) -> object:
        given = features(*args, **kwargs)
        if isinstance(given, Mapping):
            for name, level in given.items():
                note(str(name), level)
        return given

    def combined(module: nn.Module, args: object, given: object) -> None:
        parts = list(given.values()) if isinstance(given, Mapping) else given
        if isinstance(parts, list | tuple) and len(parts) == len(names):
            for name, part in zip(names, parts, strict=True):
                note(name, part)

    handle = neck.register_forward_hook(combined) if isinstance(neck, nn.Module) else None
    backbone.__dict__["features"] = noted
    try:
        yield
    finally:
        del backbone.__dict__["features"]
        if handle is not None:
            handle.remove()
