"""A hook that stays with the module it was put on: copies and pickles of that module do not have it."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

__all__ = ["Hook"]


class Hook:
    """Calls a method as long as its object lives.

    Averaging copies a model and `torch.save(model)` pickles it, hooks and all; what the hooks belong to must neither
    be copied nor see the copy's calls.

    Args:
        method: bound; None does nothing.
        first: arguments that come before those of the hook.
    """

    def __init__(self, method: Callable[..., object] | None = None, *first: object) -> None:
        self._method = None if method is None else weakref.WeakMethod(method)
        self._first = first

    def __call__(self, *args: object) -> Any:  # noqa: ANN401 - whatever the kind of hook may return
        """What the method returns; None where there is none any more."""
        method = None if self._method is None else self._method()
        return None if method is None else method(*self._first, *args)

    def __deepcopy__(self, memo: dict[int, object]) -> Hook:
        return Hook()

    def __reduce__(self) -> tuple[type[Hook], tuple[()]]:
        return Hook, ()
