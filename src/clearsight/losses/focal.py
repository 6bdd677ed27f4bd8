"""Focal loss: cross-entropy that fades where the model is already right."""

from __future__ import annotations

from typing import Literal

import torch.nn.functional as F
from torch import Tensor

from clearsight.errors import RangeError

__all__ = ["sigmoid_focal_loss"]


def sigmoid_focal_loss(
    logits: Tensor,
    targets: Tensor,
    *,
    alpha: float | None = 0.25,
    gamma: float = 2.0,
    weight: Tensor | None = None,
    reduction: Literal["sum", "mean", "none"] = "sum",
) -> Tensor:
    """Focal loss of independent yes-or-no decisions.

    Method: Lin et al. 2017, arXiv:1708.02002, equation 5, on logits. Targets between 0 and 1 are allowed: the
    probability of the truth is then `p t + (1 - p)(1 - t)`, as torchvision has it.

    Args:
        logits: any shape; computed in float32 at least.
        targets: same shape, in [0, 1].
        alpha: weight of positives (negatives weigh `1 - alpha`); None weighs both alike.
        gamma: at least 0; 0 gives cross-entropy.
        weight: broadcast with the logits, or None.
        reduction: `sum`, `mean` (over all elements, whatever their weight) or `none`.

    Returns:
        A scalar, or the shape of `logits` for `none`.

    Raises:
        RangeError: `gamma` is negative or `alpha` lies outside [0, 1].

    Cost: a handful of temporaries of the logits' shape; differentiable twice; no device sync.

    Example:
        >>> import torch
        >>> sigmoid_focal_loss(torch.zeros(1), torch.ones(1), alpha=None, gamma=2.0)  # 0.5 ** 2 * ln 2
        tensor(0.1733)
    """
    if gamma < 0 or (alpha is not None and not 0 <= alpha <= 1):
        raise RangeError(f"sigmoid_focal_loss: gamma must be >= 0 and alpha in [0, 1], got {gamma} and {alpha}")
    x = logits if logits.dtype.itemsize >= 4 else logits.float()
    targets = targets.to(x.dtype)
    loss = F.binary_cross_entropy_with_logits(x, targets, reduction="none")
    if gamma > 0:
        p = x.sigmoid()
        wrong = p + targets - 2 * p * targets  # 1 - p_t
        loss = loss * (wrong * wrong if gamma == 2 else wrong**gamma)
    if alpha is not None:
        loss = loss * ((2 * alpha - 1) * targets + (1 - alpha))
    if weight is not None:
        loss = loss * weight
    if reduction == "none":
        return loss
    return loss.sum() if reduction == "sum" else loss.mean()
