"""Monocular depth: the scale-invariant loss of logarithms."""

from __future__ import annotations

import math

from torch import Tensor

from clearsight.errors import RangeError
from clearsight.losses.checks import check_same_shape
from clearsight.metrics.depth import known_depth
from clearsight.nn.precision import at_least_float32

__all__ = ["scale_invariant_loss"]


def scale_invariant_loss(
    pred_log_depth: Tensor, depth: Tensor, *, lam: float = 0.5, valid: Tensor | None = None
) -> Tensor:
    """`mean d² - λ (mean d)²` of each image, d = predicted - true logarithm of depth; then the mean over images.

    With λ = 1 it is the variance of d, which a factor on all depths of an image does not change; with λ = 0 the squared
    error of logarithms. It is formed as `mean (d - mean d)² + (1 - λ) (mean d)²`, the same without the cancellation.

    Method: Eigen et al. 2014, arXiv:1406.2283, section 3.2, equation 4, λ = 0.5. Pixels without a depth (see
    `known_depth`) are left out of both means; an image without any counts as 0, and has gradients of 0.

    Args:
        pred_log_depth: `(n, …)` natural logarithms; computed in float32 at least.
        depth: the same shape, not logarithms.
        lam: λ, in [0, 1].
        valid: bool of the same shape: False leaves a pixel out.

    Raises:
        ShapeError: the shapes differ.
        RangeError: λ is outside [0, 1].
    """
    check_same_shape(pred_log_depth, depth, "depth")
    if not 0 <= lam <= 1:
        raise RangeError(f"lam: must be in [0, 1], got {lam}")
    x = at_least_float32(pred_log_depth).reshape(len(depth), math.prod(depth.shape[1:]))
    known = known_depth(depth, valid).reshape(x.shape)
    truth = at_least_float32(depth).reshape(x.shape).where(known, 1.0).log().to(x.dtype)
    d = (x - truth).where(known, 0.0)
    count = known.sum(dim=1).clamp(min=1)
    mean = d.sum(dim=1) / count
    spread = (d - mean[:, None]).where(known, 0.0).square().sum(dim=1) / count
    return (spread + (1 - lam) * mean.square()).sum() / max(1, len(x))
