"""Sums and maxima over the members of each group, in one order whatever the device."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["segment_max", "segment_sum"]


def segment_sum(values: Tensor, segment: Tensor, *, segments: int) -> Tensor:
    """Sum of each segment's values; unlike a scatter-add, always added in the same order.

    Args:
        values: `(p, …)` float.
        segment: `(p,)` int64, ascending.
        segments: m.

    Returns:
        `(m, …)`; 0 for a segment without values.

    Example:
        >>> segment_sum(torch.tensor([1.0, 2.0, 4.0]), torch.tensor([0, 0, 2]), segments=3)
        tensor([3., 0., 4.])
    """
    return _reduce(values, segment, segments, "sum")


def segment_max(values: Tensor, segment: Tensor, *, segments: int) -> Tensor:
    """Largest of each segment's values, `-inf` for a segment without values; see `segment_sum`."""
    return _reduce(values, segment, segments, "max")


def _reduce(values: Tensor, segment: Tensor, segments: int, how: str) -> Tensor:
    bounds = torch.searchsorted(segment, torch.arange(segments + 1, device=segment.device))
    return torch.segment_reduce(values, how, offsets=bounds, axis=0, unsafe=True)
