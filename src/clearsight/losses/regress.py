"""Losses of numbers: squared, absolute, and the two joined."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from clearsight.errors import RangeError, ShapeError
from clearsight.losses.checks import check_same_shape, trace_nan
from clearsight.losses.classify import Reduction, reduce
from clearsight.nn.precision import at_least_float32

__all__ = ["gaussian_nll_loss", "huber_loss", "mean_absolute_loss", "squared_loss"]

STEEPEST = -40.0


def squared_loss(pred: Tensor, target: Tensor, *, reduction: Reduction = "mean") -> Tensor:
    """`(pred - target)²`: the mean is what it estimates.

    Up to a constant and the factor `1 / 2σ²` it is the negative log-likelihood of a Gaussian of fixed width, so that
    its minimum is the maximum-likelihood estimate; `gaussian_nll_loss` has the width as well.

    Args:
        pred: any shape; computed in float32 at least.
        target: the same shape.
        reduction: `mean` (over all elements; 0 for none), `sum` or `none`.

    Raises:
        ShapeError: the shapes differ.
        RangeError: a target is not finite.
        ConfigError: the reduction is unknown.
    """
    return trace_nan(reduce(_difference(pred, target).square(), reduction), target=target)


def mean_absolute_loss(pred: Tensor, target: Tensor, *, reduction: Reduction = "mean") -> Tensor:
    """`|pred - target|`: the median is what it estimates, so that a few wild targets hardly move it.

    Args:
        pred: any shape; computed in float32 at least.
        target: the same shape.
        reduction: `mean` (over all elements; 0 for none), `sum` or `none`.

    Raises:
        ShapeError: the shapes differ.
        RangeError: a target is not finite.
        ConfigError: the reduction is unknown.
    """
    return trace_nan(reduce(_difference(pred, target).abs(), reduction), target=target)


def huber_loss(pred: Tensor, target: Tensor, *, delta: float = 1.0, reduction: Reduction = "mean") -> Tensor:
    """Squared below `delta`, absolute above: `d² / 2` and `delta (|d| - delta / 2)`.

    Method: Huber 1964. Smooth L1 with `beta = delta` is this divided by `delta`.

    Args:
        pred: any shape; computed in float32 at least.
        target: the same shape.
        delta: above 0.
        reduction: `mean` (over all elements; 0 for none), `sum` or `none`.

    Raises:
        ShapeError: the shapes differ.
        RangeError: `delta` is not above 0, or a target is not finite.
        ConfigError: the reduction is unknown.
    """
    if delta <= 0:
        raise RangeError(f"delta: must be above 0, got {delta}")
    distance = _difference(pred, target).abs()
    inner = distance.clamp(max=delta)
    loss = inner * (distance - inner / 2)  # both branches in one: inner is |d| or delta
    return trace_nan(reduce(loss, reduction), target=target)


def gaussian_nll_loss(mean: Tensor, log_variance: Tensor, target: Tensor, *, reduction: Reduction = "mean") -> Tensor:
    """Negative log-likelihood of a Gaussian whose width is predicted too.

    `½ (log 2π + s + (target - mean)² e^-s)`, s the logarithm of the variance (Nix and Weigend 1994). Below s = -40 the
    exponential goes on along its tangent: s that are far too small cost much, but no overflow, and come back.

    Args:
        mean: any shape; computed in float32 at least.
        log_variance: s, broadcast with the mean. Keep it in float32: its gradient grows with the squared error, which
            half precision cannot hold.
        target: the mean's shape.
        reduction: `mean` (over all elements; 0 for none), `sum` or `none`.

    Raises:
        ShapeError: mean and target differ in shape, or the width cannot be broadcast with them.
        RangeError: a target is not finite.
        ConfigError: the reduction is unknown.
    """
    shape = (1,) * (mean.ndim - log_variance.ndim) + tuple(log_variance.shape)
    if len(shape) != mean.ndim or any(one not in (1, all_) for one, all_ in zip(shape, mean.shape, strict=True)):
        raise ShapeError(
            f"log_variance: expected what is broadcast with {tuple(mean.shape)}, got {tuple(log_variance.shape)}"
        )
    width = at_least_float32(log_variance)
    held = width.clamp(min=STEEPEST)
    precision = torch.exp(-held) * (1 + held - width)
    loss = 0.5 * (math.log(2 * math.pi) + width + _difference(mean, target).square() * precision)
    return trace_nan(reduce(loss, reduction), target=target)


def _difference(pred: Tensor, target: Tensor) -> Tensor:
    check_same_shape(pred, target)
    return at_least_float32(pred) - target.to(at_least_float32(pred).dtype)
