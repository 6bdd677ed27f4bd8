"""Memory of activations: what is alive at once when a model is used, and what is kept for its backward pass."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable

import torch
from torch import Tensor

__all__ = ["LiveBytes", "SavedBytes"]

Storage = torch.UntypedStorage


class _Held(weakref.ref[Storage]):
    """A storage that is alive, without keeping it so."""

    __slots__ = ("key", "size")

    def __init__(self, storage: Storage, gone: Callable[[_Held], None]) -> None:
        super().__init__(storage, gone)  # pyright: ignore[reportCallIssue, reportArgumentType]
        self.key = id(storage)
        self.size = storage.nbytes()

    def __new__(cls, storage: Storage, gone: Callable[[_Held], None]) -> _Held:
        """A weak reference that calls `gone` with itself when its storage dies."""
        return super().__new__(cls, storage, gone)  # pyright: ignore[reportArgumentType]


class LiveBytes:
    """Follows the storages that a run makes, from birth to death; views of one are the same one.

    Args:
        outside: tensors that were there before: inputs, parameters, buffers. They are not counted.

    Attributes:
        now: bytes alive.
    """

    def __init__(self, outside: Iterable[Tensor]) -> None:
        self.now = 0
        self._held: dict[int, _Held | Storage] = {}
        for tensor in outside:
            storage = tensor.untyped_storage()
            self._held[id(storage)] = storage

    def add(self, tensor: Tensor) -> None:
        """Take note of a result; nothing happens where its storage is known."""
        storage = tensor.untyped_storage()
        if id(storage) not in self._held:
            held = self._held[id(storage)] = _Held(storage, self._forget)
            self.now += held.size

    def _forget(self, held: _Held) -> None:
        del self._held[held.key]
        self.now -= held.size


class SavedBytes:
    """Sizes what autograd keeps, storage by storage; parameters and buffers, which are kept anyway, are not counted.

    Args:
        outside: parameters and buffers.
    """

    def __init__(self, outside: Iterable[Tensor]) -> None:
        self._known = {id(storage): storage for storage in (tensor.untyped_storage() for tensor in outside)}

    def add(self, tensor: Tensor) -> int:
        """Bytes that this tensor adds to what is kept: those of its storage, 0 where that is kept already."""
        storage = tensor.untyped_storage()
        if id(storage) in self._known:
            return 0
        self._known[id(storage)] = storage  # held, so that no other storage can get its id
        return storage.nbytes()
