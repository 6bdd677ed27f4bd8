"""Averages over the processes of a distributed run."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor

__all__ = ["mean_over_processes"]


def mean_over_processes(x: Tensor) -> Tensor:
    """Mean of a tensor over all processes, or the tensor itself where there is only one.

    A loss divided by this mean of its local counts, and then averaged over processes as DDP does, equals the loss of
    one process that sees the whole batch.

    Args:
        x: any shape, the same in every process; not differentiated through.

    Returns:
        Same shape and dtype; `x` itself when `torch.distributed` is not initialised.
    """
    if not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1:
        return x
    with torch.no_grad():
        total = x.detach().clone()
        dist.all_reduce(total)
        return total / dist.get_world_size()
