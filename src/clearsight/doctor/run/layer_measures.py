"""What is measured of tensors that pass a layer; nothing here waits for a GPU."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["active_units", "batch_against_running", "flat_share", "moments", "norms", "norms_by_layer", "total_norm"]

HALF = (torch.float16, torch.bfloat16)


def moments(out: Tensor) -> tuple[Tensor, Tensor]:
    """Mean, and mean square, over all values; float where they are of half precision.

    `torch.var_mean` keeps more digits where the mean is large beside the deviation, and takes several times as long.
    """
    dtype = torch.float32 if out.dtype in HALF else out.dtype
    return out.mean(dtype=dtype), torch.linalg.vector_norm(out, dtype=dtype).square() / out.numel()


def active_units(out: Tensor, axis: int) -> Tensor:
    """Which units gave anything above zero.

    Args:
        out: behind the non-linearity; at least one value.
        axis: of the units; of a vector `(n, units)` it is the last one whatever is said.

    Returns:
        `(units,)` bool.
    """
    axis = out.ndim - 1 if out.ndim <= 2 else axis % out.ndim
    others = [dim for dim in range(out.ndim) if dim != axis]
    return (out.amax(dim=others) if others else out) > 0


def flat_share(before: Tensor, edge: float) -> Tensor:
    """Share of the pre-activations whose size is beyond the edge of the flat part."""
    return (before.abs() > edge).float().mean()


def batch_against_running(
    mean: Tensor, var: Tensor, new_mean: Tensor, new_var: Tensor, *, momentum: float | Tensor, eps: float
) -> tuple[Tensor, Tensor]:
    """How far the statistics of a batch lie from the running ones, told from how these moved.

    A batch norm moves by `new = (1 - momentum) old + momentum batch`, so the batch's own need not be computed again.

    Args:
        mean: `(channels,)` running, before the batch.
        var: `(channels,)` running, before the batch.
        new_mean: after it.
        new_var: after it.
        momentum: of the update.
        eps: of the norm.

    Returns:
        Distance of the means in running standard deviations, mean over channels; variance of the batch over the
        running one, geometric mean over channels.
    """
    batch_mean = mean + (new_mean - mean) / momentum
    batch_var = (var + (new_var - var) / momentum).clamp(min=0)
    gap = ((batch_mean - mean).abs() / (var + eps).sqrt()).mean()
    ratio = ((batch_var + eps).log() - (var + eps).log()).mean().exp()
    return gap, ratio


def norms(tensors: Sequence[Tensor]) -> list[Tensor]:
    """Euclidean norm of each tensor, in float where they are of half precision; call it without gradients."""
    dense = (
        tensors
        if not any(t.is_sparse for t in tensors)
        else [t.coalesce().values() if t.is_sparse else t for t in tensors]
    )
    if any(t.dtype in HALF for t in dense):
        return [torch.linalg.vector_norm(t, dtype=torch.float32 if t.dtype in HALF else None) for t in dense]
    return list(torch._foreach_norm(list(dense))) if dense else []  # pyright: ignore  # one kernel for all tensors


def norms_by_layer(tensors: Sequence[Tensor], layer_of: Sequence[int], count: int, device: torch.device) -> Tensor:
    """Euclidean norm of the tensors of each layer.

    Args:
        tensors: in any order.
        layer_of: number of each tensor's layer.
        count: of the layers.
        device: where the result lies.

    Returns:
        `(count,)` float64 on the CPU, else float32; 0 where a layer has none.
    """
    dtype = torch.float64 if device.type == "cpu" else torch.float32
    squares = torch.zeros(count, dtype=dtype, device=device)
    if tensors:
        found = torch.stack([norm.to(device, dtype) for norm in norms(tensors)])
        squares.index_add_(0, torch.tensor(list(layer_of), device=device), found.square())
    return squares.sqrt()


def total_norm(tensors: Sequence[Tensor]) -> Tensor | None:
    """Euclidean norm of all tensors together; None without one."""
    found = norms(tensors)
    if not found:
        return None
    first = found[0]
    if any(norm.dtype != first.dtype or norm.device != first.device for norm in found):
        found = [norm.to(first.device, torch.float32) for norm in found]
    return torch.linalg.vector_norm(torch.stack(found))
