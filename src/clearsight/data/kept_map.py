"""A class map that waits for its use: compressed, so that those of a whole split lie in memory together."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import Self

import numpy as np

from clearsight.errors import RangeError, ShapeError

__all__ = ["KeptMap"]


@dataclass(frozen=True, slots=True)
class KeptMap:
    """A map of class indices in a fraction of its bytes: a twelfth of those of a slice full of thin membranes.

    Args:
        size: `(height, width)`.
        packed: the indices, row by row, as zlib has them.
    """

    size: tuple[int, int]
    packed: bytes

    @classmethod
    def of(cls, labels: np.ndarray) -> Self:
        """Pack a map.

        Args:
            labels: `(h, w)` integers from 0 to 255.

        Raises:
            ShapeError: not two axes.
            RangeError: a value does not fit into a byte.
        """
        if labels.ndim != 2:
            raise ShapeError(f"class map: expected (h, w), got {labels.shape}")
        if labels.size and (labels.min() < 0 or labels.max() > 255):
            raise RangeError(f"class map: expected values from 0 to 255, got {labels.min()} to {labels.max()}")
        height, width = labels.shape
        return cls((height, width), zlib.compress(np.ascontiguousarray(labels, dtype=np.uint8).tobytes(), level=1))

    def labels(self) -> np.ndarray:
        """The map again, `(h, w)` uint8."""
        return np.frombuffer(zlib.decompress(self.packed), dtype=np.uint8).reshape(self.size)
