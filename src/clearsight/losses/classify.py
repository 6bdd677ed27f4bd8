"""Cross-entropy: of one class among many, and of independent yes-or-no decisions."""

from __future__ import annotations

from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from clearsight.errors import RangeError
from clearsight.losses.checks import check_choice, check_range, check_same_shape, refuse_ids, trace_nan
from clearsight.losses.maps import check_map
from clearsight.nn.precision import at_least_float32

__all__ = ["Reduction", "binary_cross_entropy", "cross_entropy", "reduce"]

Reduction = Literal["mean", "sum", "none"]
NO_ID = -(2**40)  # PyTorch's default, -100, would let an id of that pass in silence


def cross_entropy(
    logits: Tensor,
    target: Tensor,
    *,
    smoothing: float = 0.0,
    weight: Tensor | None = None,
    ignore_index: int | None = None,
    reduction: Reduction = "mean",
) -> Tensor:
    """Cross-entropy of a softmax, for one class among many; `binary_cross_entropy` is for several that may be true.

    Label smoothing (Szegedy et al. 2016, arXiv:1512.00567, section 7) turns a target t into `(1 - s) t + s / k`, which
    still sums to one.

    Args:
        logits: `(n, k, …)`; computed in float32 at least.
        target: `(n, …)` class ids, or `(n, k, …)` probabilities (after mixup, for example).
        smoothing: s in [0, 1).
        weight: `(k,)` of the classes, or None for 1; the mean over ids is then divided by the sum of the weights of
            what counts, as in PyTorch.
        ignore_index: class id of elements that do not count; goes with class ids only.
        reduction: `mean` (the sum over the number of elements that count), `sum`, or `none` (0 where ignored).

    Returns:
        A scalar, or `(n, …)` for `none`. The mean over nothing, all ignored or an empty batch, is 0 (PyTorch: NaN).

    Raises:
        ShapeError: the target fits neither form.
        RangeError: a class id, a probability or the smoothing is out of range, or a target is NaN.
        ConfigError: the reduction is unknown, or there is an `ignore_index` beside probabilities.

    Example:
        >>> import torch
        >>> cross_entropy(torch.zeros(1, 4), torch.tensor([2]))  # ln 4
        tensor(1.3863)
    """
    if not 0 <= smoothing < 1:
        raise RangeError(f"smoothing: must be in [0, 1), got {smoothing}")
    check_choice(reduction, get_args(Reduction), "reduction")
    check_map(logits, target, ignore_index=ignore_index)
    x = at_least_float32(logits)
    weight = None if weight is None else weight.to(x.dtype)
    own_mean = reduction == "mean" and (ignore_index is not None or not target.numel())  # PyTorch's may be 0/0
    how = "sum" if own_mean else reduction
    if target.shape == logits.shape:
        loss = F.cross_entropy(x, target.to(x.dtype), weight=weight, reduction=how, label_smoothing=smoothing)
        return trace_nan(loss, target=target)
    ids, ignored = target.long(), NO_ID if ignore_index is None else ignore_index
    try:
        loss = F.cross_entropy(x, ids, weight=weight, ignore_index=ignored, reduction=how, label_smoothing=smoothing)
    except IndexError:
        refuse_ids(target, logits.shape[1], ignore_index=ignore_index)
        raise
    return loss / _counted(ids, ignored, weight) if own_mean else loss


def _counted(ids: Tensor, ignored: int, weight: Tensor | None) -> Tensor:
    """What a mean is divided by: the number of ids that count, or the sum of their weights; 1 for nothing."""
    counts = ids != ignored
    if weight is None:
        return counts.sum().clamp(min=1)
    total = (weight[ids.masked_fill(~counts, 0)] * counts).sum()
    return torch.where(total > 0, total, 1.0)


def binary_cross_entropy(
    logits: Tensor,
    target: Tensor,
    *,
    smoothing: float = 0.0,
    positive_weight: Tensor | None = None,
    ignore_index: int | None = None,
    reduction: Reduction = "mean",
) -> Tensor:
    """Cross-entropy of independent yes-or-no decisions: for labels of which several may be true.

    Args:
        logits: any shape; computed in float32 at least.
        target: the same shape, 0 or 1, or probabilities (of more than 4096 a sample is checked).
        smoothing: s in [0, 1): a target t becomes `(1 - s) t + s / 2`.
        positive_weight: factor of the positives, broadcast with the logits.
        ignore_index: value of targets that do not count.
        reduction: `mean` (the sum over the number of elements that count), `sum`, or `none` (0 where ignored).

    Returns:
        A scalar, or the shape of the logits for `none`. The mean over nothing is 0.

    Raises:
        ShapeError: the shapes differ.
        RangeError: the smoothing lies outside [0, 1), or a target outside [0, 1].
        ConfigError: the reduction is unknown.

    Example:
        >>> import torch
        >>> binary_cross_entropy(torch.zeros(2), torch.tensor([1.0, 0.0]))  # ln 2
        tensor(0.6931)
    """
    check_same_shape(logits, target)
    if not 0 <= smoothing < 1:
        raise RangeError(f"smoothing: must be in [0, 1), got {smoothing}")
    check_range(target, ignore_index=ignore_index)
    x = at_least_float32(logits)
    counts = None if ignore_index is None else target != ignore_index
    wanted = target.to(x.dtype) if counts is None else target.to(x.dtype) * counts
    if smoothing:
        wanted = (1 - smoothing) * wanted + smoothing / 2
    loss = F.binary_cross_entropy_with_logits(x, wanted, pos_weight=positive_weight, reduction="none")
    return trace_nan(reduce(loss, reduction, counts=counts), target=target)


def reduce(loss: Tensor, reduction: Reduction, *, counts: Tensor | None = None) -> Tensor:
    """Mean or sum of the elements that count, or all of them.

    Args:
        loss: any shape.
        reduction: `mean`, `sum` or `none`.
        counts: bool, the loss's shape; None where all count. The mean over nothing is 0.

    Raises:
        ConfigError: the reduction is unknown.
    """
    check_choice(reduction, get_args(Reduction), "reduction")
    if counts is not None:
        loss = loss * counts
    if reduction == "none":
        return loss
    if reduction == "sum":
        return loss.sum()
    if counts is not None:
        return loss.sum() / counts.sum().clamp(min=1)
    return loss.mean() if loss.numel() else loss.sum()
