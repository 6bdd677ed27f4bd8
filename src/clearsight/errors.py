"""What can go wrong, as a tree: every error a user's input can cause is a `ClearsightError`.

Each class also inherits the built-in type that Python code would catch. A message names the file, key or tensor,
what was found, what was expected, and what to do.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from clearsight.types import Finding

__all__ = [
    "CheckpointError",
    "ClearsightError",
    "ConfigError",
    "DataError",
    "MissingExtra",
    "NonFiniteLoss",
    "NotFound",
    "RangeError",
    "ShapeError",
    "WeightsError",
    "nearest",
]


def nearest(name: object, known: Iterable[str]) -> str:
    """The end of a message about an unknown name: `; did you mean 'relu'?`, or all names where none is near.

    Args:
        name: what was given.
        known: what there is.
    """
    names = list(known)
    near = get_close_matches(str(name), names, n=1) if isinstance(name, str) else []
    return f"; did you mean {near[0]!r}?" if near else f"; choose one of {', '.join(names)}"


class ClearsightError(Exception):
    """Root of every error that clearsight raises on purpose."""


class ConfigError(ClearsightError, ValueError):
    """A recipe, an option or an argument says something that cannot be done."""


class DataError(ClearsightError, ValueError):
    """The data cannot be used; `findings` lists every fault that was found in one pass."""

    def __init__(self, message: str, findings: Sequence[Finding] = ()) -> None:
        super().__init__(message)
        self.findings = tuple(findings)


class NotFound(ClearsightError, FileNotFoundError):
    """A file or folder that was named does not exist."""

    def __str__(self) -> str:  # FileNotFoundError formats errno and strerror, which are not set here
        return str(self.args[0]) if self.args else ""


class ShapeError(ClearsightError, ValueError):
    """A tensor has the wrong shape."""


class RangeError(ClearsightError, ValueError):
    """A value lies outside its range."""


class WeightsError(ClearsightError, ValueError):
    """Published weights do not fit the model, or a download is not what its checksum says."""


class CheckpointError(ClearsightError, RuntimeError):
    """A checkpoint is missing, damaged, or of another model."""


class NonFiniteLoss(ClearsightError, ArithmeticError):
    """The loss became NaN or infinite; the message names the step, the terms and the files of the batch."""


class MissingExtra(ClearsightError, ImportError):
    """An optional package is not installed; the message has the install line."""
