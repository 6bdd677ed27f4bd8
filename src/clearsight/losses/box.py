"""Losses of matched pairs of boxes, or of their codes."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from clearsight.errors import RangeError, ShapeError
from clearsight.losses.checks import check_same_shape, trace_nan
from clearsight.nn.precision import at_least_float32
from clearsight.ops.boxes import paired_ciou, paired_diou, paired_giou, paired_iou

__all__ = ["ciou_loss", "diou_loss", "giou_loss", "iou_loss", "l1_loss", "smooth_l1_loss"]


def iou_loss(pred: Tensor, target: Tensor, *, weight: Tensor | None = None) -> Tensor:
    """Sum of `1 - IoU` over pairs; without gradient where boxes do not touch (see `giou_loss`).

    Args:
        pred: `(p, 4)` xyxy pixels; computed in float32 at least.
        target: `(p, 4)`.
        weight: `(p,)`, or None for 1.

    Returns:
        A scalar; 0 for no pairs, and then still part of the graph.

    Raises:
        ShapeError: these are no pairs of boxes, or there are not as many weights.
        RangeError: a target or a weight is not finite.
    """
    return _of_boxes(paired_iou, pred, target, weight)


def giou_loss(pred: Tensor, target: Tensor, *, weight: Tensor | None = None) -> Tensor:
    """Sum of `1 - GIoU` over pairs (Rezatofighi et al. 2019, arXiv:1902.09630); see `iou_loss` for the arguments."""
    return _of_boxes(paired_giou, pred, target, weight)


def diou_loss(pred: Tensor, target: Tensor, *, weight: Tensor | None = None) -> Tensor:
    """Sum of `1 - DIoU` over pairs (Zheng et al. 2020, arXiv:1911.08287); see `iou_loss` for the arguments."""
    return _of_boxes(paired_diou, pred, target, weight)


def ciou_loss(pred: Tensor, target: Tensor, *, weight: Tensor | None = None) -> Tensor:
    """Sum of `1 - CIoU` over pairs (Zheng et al. 2020, arXiv:1911.08287); see `iou_loss` for the arguments."""
    return _of_boxes(paired_ciou, pred, target, weight)


def l1_loss(pred: Tensor, target: Tensor, *, weight: Tensor | None = None) -> Tensor:
    """Sum over pairs of the absolute differences of four codes.

    Args:
        pred: `(p, 4)` codes; computed in float32 at least.
        target: `(p, 4)`.
        weight: `(p,)`, or None for 1.

    Returns:
        A scalar; 0 for no pairs, and then still part of the graph.

    Raises:
        ShapeError: the shapes differ, or there are not as many weights as pairs.
        RangeError: a target or a weight is not finite.
    """
    return _weighted_sum(_distance(pred, target).sum(-1), target, weight)


def smooth_l1_loss(pred: Tensor, target: Tensor, *, beta: float = 1.0, weight: Tensor | None = None) -> Tensor:
    """Sum over pairs of the smooth absolute differences of four codes.

    Method: Girshick 2015 (Fast R-CNN), arXiv:1504.08083, equation 3, with a bend at `beta`: `0.5 d²/beta` below it,
    `|d| - 0.5 beta` above.

    Args:
        pred: `(p, 4)` codes; computed in float32 at least.
        target: `(p, 4)`.
        beta: above 0.
        weight: `(p,)`, or None for 1.

    Returns:
        A scalar; 0 for no pairs.

    Raises:
        ShapeError: the shapes differ, or there are not as many weights as pairs.
        RangeError: `beta` is not above 0, or a target or a weight is not finite.
    """
    if beta <= 0:
        raise RangeError(f"beta: must be above 0, got {beta}")
    distance = _distance(pred, target)
    loss = torch.where(distance < beta, 0.5 * distance**2 / beta, distance - 0.5 * beta)
    return _weighted_sum(loss.sum(-1), target, weight)


def _of_boxes(
    overlap: Callable[[Tensor, Tensor], Tensor], pred: Tensor, target: Tensor, weight: Tensor | None
) -> Tensor:
    check_same_shape(pred, target)
    if pred.ndim < 1 or pred.shape[-1] != 4:
        raise ShapeError(f"pred: expected boxes (p, 4) as xyxy pixels, got {tuple(pred.shape)}")
    return _weighted_sum(1 - overlap(at_least_float32(pred), at_least_float32(target)), target, weight)


def _distance(pred: Tensor, target: Tensor) -> Tensor:
    check_same_shape(pred, target)
    return (at_least_float32(pred) - at_least_float32(target)).abs()


def _weighted_sum(loss: Tensor, target: Tensor, weight: Tensor | None) -> Tensor:
    if weight is not None and weight.shape != loss.shape:
        raise ShapeError(f"weight: expected one for each pair, {tuple(loss.shape)}, got {tuple(weight.shape)}")
    return trace_nan(loss.sum() if weight is None else (loss * weight).sum(), target=target, weight=weight)
