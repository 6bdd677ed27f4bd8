"""What layers ask of their inputs and arguments; a check that passes compares a few integers, and none is compiled."""

from __future__ import annotations

import torch
from torch import Tensor

from clearsight.errors import ConfigError, RangeError, ShapeError

__all__ = ["check_divides", "check_dropped", "check_odd", "check_positive", "check_rank"]


def check_rank(x: Tensor, what: str, *layouts: str) -> None:
    """Refuse a tensor whose number of dimensions is none of those named.

    Args:
        x: the input of a layer.
        what: layer and argument, for the message, such as `DropBlock: x`.
        layouts: letters with spaces between, such as `n c h w`; each is one rank that fits.

    Raises:
        ShapeError: no layout has as many letters.
    """
    if torch.compiler.is_compiling():
        return
    for layout in layouts:
        if x.ndim == layout.count(" ") + 1:
            return
    expected = " or ".join(f"({', '.join(layout.split())})" for layout in layouts)
    raise ShapeError(f"{what}: expected {expected}, got {tuple(x.shape)}")


def check_divides(channels: int, groups: int, what: str) -> None:
    """Refuse a number of groups that does not divide the channels.

    Raises:
        ConfigError: it does not, or is below 1; the message names the divisors.
    """
    if groups < 1 or channels % groups:
        fits = [str(n) for n in range(1, channels + 1) if channels % n == 0]
        raise ConfigError(f"{what}: found {groups}, which does not divide {channels} channels; use {', '.join(fits)}")


def check_odd(size: int, what: str) -> None:
    """Refuse an even size: its centre lies between pixels.

    Raises:
        ConfigError: the size is even or below 1.
    """
    if size < 1 or size % 2 == 0:
        raise ConfigError(f"{what}: must be odd and at least 1, got {size}")


def check_positive(number: int, what: str) -> None:
    """Refuse a count below 1.

    Raises:
        ConfigError: it is.
    """
    if number < 1:
        raise ConfigError(f"{what}: must be at least 1, got {number}")


def check_dropped(p: float, what: str) -> None:
    """Refuse a dropout rate that is none: the share that is *dropped*.

    Raises:
        RangeError: it is outside [0, 1).
    """
    if not 0 <= p < 1:
        raise RangeError(f"{what}: the share that is dropped must be in [0, 1), got {p}")
