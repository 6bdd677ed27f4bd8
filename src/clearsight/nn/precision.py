"""Half precision is widened where sums, logarithms and spectra need the digits."""

from __future__ import annotations

from torch import Tensor

__all__ = ["at_least_float32"]


def at_least_float32(x: Tensor) -> Tensor:
    """A float tensor of at least 32 bits: x itself, or x as float32 where it has fewer or whole numbers."""
    return x if x.is_floating_point() and x.dtype.itemsize >= 4 else x.float()
