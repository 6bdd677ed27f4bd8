"""Targets of dense losses: class ids or probabilities, in the shape of the logits."""

from __future__ import annotations

import torch
from torch import Tensor

from clearsight.errors import ConfigError, ShapeError
from clearsight.losses.checks import check_range, refuse_ids
from clearsight.nn.precision import at_least_float32

__all__ = ["as_probabilities", "check_map"]


def check_map(logits: Tensor, target: Tensor, *, ignore_index: int | None = None) -> None:
    """Refuse a target that does not fit.

    Args:
        logits: `(n, k, …)`.
        target: `(n, …)` class ids, or `(n, k, …)` probabilities.
        ignore_index: an id that is allowed besides 0 … k - 1 (0 and 1 for k = 1).

    Raises:
        ShapeError: the target fits neither form.
        ConfigError: there is an `ignore_index` beside the probabilities of several classes.
        RangeError: a probability, or for k = 1 an id, is not in [0, 1]. Checked on CPUs only. Ids of several classes
            are left to the operation that looks them up, see `refuse_ids`.
    """
    ids = (*logits.shape[:1], *logits.shape[2:])
    if logits.ndim < 2 or tuple(target.shape) not in (tuple(logits.shape), ids):
        raise ShapeError(
            f"target: expected {ids} class ids or {tuple(logits.shape)} probabilities for logits (n, k, …), "
            f"got {tuple(target.shape)}"
        )
    several, soft = logits.shape[1] != 1, target.shape == logits.shape
    if several and not soft:
        if target.is_floating_point():
            raise ShapeError(
                f"target: class ids {tuple(target.shape)} are whole numbers, such as int64, got {target.dtype}; "
                f"probabilities would be {tuple(logits.shape)}"
            )
        return
    if several and ignore_index is not None:
        raise ConfigError(
            f"ignore_index: {ignore_index} is a class id, but the target has probabilities; give class ids, or a "
            "weight of 0 to what does not count"
        )
    check_range(target, ignore_index=ignore_index)


def as_probabilities(logits: Tensor, target: Tensor, *, ignore_index: int | None) -> tuple[Tensor, Tensor]:
    """Predicted and true probability of each class at each pixel that counts; both are 0 at those that do not.

    Args:
        logits: `(n, k, …)`; k = 1 is one yes-or-no class.
        target: `(n, …)` class ids, or `(n, k, …)` probabilities.
        ignore_index: class id of pixels that do not count.

    Returns:
        Two `(n, k, p)`, p the number of pixels.

    Raises:
        ShapeError: the target fits neither form.
        ConfigError: there is an `ignore_index` beside the probabilities of several classes.
        RangeError: a class id or a probability is out of range.
    """
    check_map(logits, target, ignore_index=ignore_index)
    n, k = logits.shape[:2]
    x = at_least_float32(logits).flatten(2) if logits.ndim > 2 else at_least_float32(logits)[..., None]
    p = x.sigmoid() if k == 1 else x.softmax(1)
    if k == 1 or target.shape == logits.shape:
        truth = target.reshape(x.shape)
        if ignore_index is None:
            return p, truth.to(p.dtype)
        counts = truth != ignore_index
        return p * counts, truth.to(p.dtype) * counts
    ids = target.reshape(n, 1, x.shape[2]).long()
    counts = None if ignore_index is None else ids != ignore_index
    try:
        places = ids if counts is None else ids.masked_fill(~counts, 0)
        truth = torch.zeros_like(p).scatter_(1, places, 1.0)
    except RuntimeError:
        refuse_ids(target, k, ignore_index=ignore_index)
        raise
    return (p, truth) if counts is None else (p * counts, truth * counts)
