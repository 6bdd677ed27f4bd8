"""Cross-entropy of one class among many."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from clearsight.errors import ShapeError

__all__ = ["cross_entropy"]


def cross_entropy(logits: Tensor, target: Tensor, *, smoothing: float = 0.0) -> Tensor:
    """Mean cross-entropy of a softmax.

    Label smoothing (Szegedy et al. 2016, arXiv:1512.00567, section 7) turns a target t into `(1 - s) t + s / k`, which
    still sums to one.

    Args:
        logits: `(n, k)`; computed in float32 at least.
        target: `(n,)` int64 class ids, or `(n, k)` probabilities (after mixup, for example).
        smoothing: s in [0, 1).

    Returns:
        A scalar.

    Raises:
        ShapeError: the target fits neither form.

    Example:
        >>> import torch
        >>> cross_entropy(torch.zeros(1, 4), torch.tensor([2]))  # ln 4
        tensor(1.3863)
    """
    if target.shape != logits.shape[:1] and target.shape != logits.shape:
        raise ShapeError(
            f"target: expected {tuple(logits.shape[:1])} class ids or {tuple(logits.shape)} probabilities, "
            f"got {tuple(target.shape)}"
        )
    x = logits if logits.dtype.itemsize >= 4 else logits.float()
    if target.is_floating_point():
        target = target.to(x.dtype)
    return F.cross_entropy(x, target, label_smoothing=smoothing)
