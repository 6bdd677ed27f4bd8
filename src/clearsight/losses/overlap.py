"""Losses by the overlap of a predicted region with the true one: Dice, Tversky, and Dice with cross-entropy."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor

from clearsight.errors import RangeError
from clearsight.losses.checks import check_choice, trace_nan
from clearsight.losses.classify import binary_cross_entropy, cross_entropy, reduce
from clearsight.losses.maps import as_probabilities

__all__ = ["dice_ce_loss", "dice_loss", "tversky_loss"]

Over = Literal["batch", "image"]


def dice_loss(
    logits: Tensor, target: Tensor, *, smooth: float = 1.0, ignore_index: int | None = None, over: Over = "batch"
) -> Tensor:
    """One minus the Dice overlap of soft predictions, averaged over classes.

    `1 - (2 Σ p t + s) / (Σ p + Σ t + s)`, p the probability and t the truth of a pixel. Beside cross-entropy its
    gradient does not shrink with the region's share of the image, and with a wrong, certain p it fades (that of
    cross-entropy is largest there): which is why the two are often added, `dice_ce_loss`.

    Method: Milletari et al. 2016 (V-Net), arXiv:1606.04797, section 3, with p and t not squared.

    Args:
        logits: `(n, k, …)` of a softmax over k classes, or `(n, 1, …)` of one yes-or-no class; any number of spatial
            dimensions; computed in float32 at least.
        target: `(n, …)` class ids; for k = 1 0 or 1; or `(n, k, …)` probabilities.
        smooth: s, at least 0; above 0 an absent class that is not predicted costs nothing instead of 0/0.
        ignore_index: class id of pixels that do not count; goes with class ids, and with k = 1.
        over: `batch` sums over all pixels of the batch, `image` over those of an image and averages over images.

    Returns:
        A scalar in [0, 1]; 0 where nothing counts, and for an empty batch.

    Raises:
        ShapeError: the target fits neither form.
        RangeError: `smooth` is negative, a class id lies outside 0 … k - 1, or a probability outside [0, 1].
        ConfigError: `over` is unknown, or there is an `ignore_index` beside the probabilities of several classes.

    Example:
        >>> import torch
        >>> sure = torch.tensor([[[[20.0, -20.0]]]])
        >>> dice_loss(sure, torch.tensor([[[1, 1]]]), smooth=0.0)  # 1 - 2 · 1 / (1 + 2)
        tensor(0.3333)
    """
    if smooth < 0:
        raise RangeError(f"dice_loss: smooth must be at least 0, got {smooth}")
    check_choice(over, get_args(Over), "over")
    p, t = as_probabilities(logits, target, ignore_index=ignore_index)
    both, sums = _sum(p * t, over), _sum(p, over) + _sum(t, over)
    return trace_nan(reduce(1 - _ratio(2 * both + smooth, sums + smooth), "mean"), target=target)


def tversky_loss(
    logits: Tensor,
    target: Tensor,
    *,
    alpha: float = 0.3,
    beta: float = 0.7,
    smooth: float = 1.0,
    ignore_index: int | None = None,
    over: Over = "batch",
) -> Tensor:
    """One minus the Tversky index, which weighs false alarms by `alpha` and misses by `beta`.

    `1 - (TP + s) / (TP + α FP + β FN + s)` with soft counts. `alpha = beta = 0.5` is Dice (whose `smooth` is then twice
    this one); `alpha = beta = 1` is the Jaccard index. A larger `beta` finds more of a small structure.

    Method: Salehi et al. 2017, arXiv:1706.05721, equation 2.

    Args:
        logits: see `dice_loss`.
        target: see `dice_loss`.
        alpha: weight of false positives, at least 0.
        beta: weight of false negatives, at least 0.
        smooth: s, at least 0.
        ignore_index: class id of pixels that do not count.
        over: see `dice_loss`.

    Returns:
        A scalar in [0, 1]; 0 where nothing counts, and for an empty batch.

    Raises:
        ShapeError: the target fits neither form.
        RangeError: a weight or `smooth` is negative, or a class id or a probability is out of range.
        ConfigError: `over` is unknown, or there is an `ignore_index` beside the probabilities of several classes.
    """
    if min(alpha, beta, smooth) < 0:
        raise RangeError(f"tversky_loss: alpha, beta and smooth must be at least 0, got {alpha}, {beta}, {smooth}")
    check_choice(over, get_args(Over), "over")
    p, t = as_probabilities(logits, target, ignore_index=ignore_index)
    both, said, true = _sum(p * t, over), _sum(p, over), _sum(t, over)
    bottom = both + alpha * (said - both) + beta * (true - both)
    return trace_nan(reduce(1 - _ratio(both + smooth, bottom + smooth), "mean"), target=target)


def dice_ce_loss(
    logits: Tensor,
    target: Tensor,
    *,
    dice_weight: float = 1.0,
    ce_weight: float = 1.0,
    smooth: float = 1.0,
    ignore_index: int | None = None,
) -> Tensor:
    """`dice_weight · Dice + ce_weight · cross-entropy` (Isensee et al. 2021, nnU-Net); see `dice_loss`.

    Args:
        logits: see `dice_loss`; one channel takes binary cross-entropy.
        target: see `dice_loss`.
        dice_weight: factor of the Dice loss.
        ce_weight: factor of the mean cross-entropy of the pixels.
        smooth: of the Dice loss.
        ignore_index: class id of pixels that do not count.

    Returns:
        A scalar; 0 where nothing counts, and for an empty batch.

    Raises:
        ShapeError: the target fits neither form.
        RangeError: `smooth`, a class id or a probability is out of range.
        ConfigError: there is an `ignore_index` beside the probabilities of several classes.
    """
    dice = dice_loss(logits, target, smooth=smooth, ignore_index=ignore_index)
    if logits.shape[1] == 1:
        entropy = binary_cross_entropy(logits, target.reshape(logits.shape), ignore_index=ignore_index)
    else:
        entropy = cross_entropy(logits, target, ignore_index=ignore_index)
    return dice_weight * dice + ce_weight * entropy


def _sum(x: Tensor, over: Over) -> Tensor:
    """`(n, k, p)` → `(k,)`, or `(n, k)` for `image`."""
    return x.sum(-1) if over == "image" else x.sum((0, 2))


def _ratio(top: Tensor, bottom: Tensor) -> Tensor:
    """1 where both are 0: nothing is there, and nothing is said to be."""
    empty = bottom == 0
    return torch.where(empty, 1.0, top / torch.where(empty, 1.0, bottom))
