"""Errors that depth maps are compared by."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from clearsight.errors import RangeError, ShapeError

__all__ = ["DepthErrors", "depth_errors", "known_depth"]


def known_depth(depth: Tensor, valid: Tensor | None = None) -> Tensor:
    """Where there is a depth: it is above 0 and finite. Sensors and renderers write 0, a negative number, NaN or inf.

    Args:
        depth: any shape.
        valid: bool of the same shape; what is False in it is not known either.

    Raises:
        ShapeError: the shapes differ.
    """
    known = (depth > 0) & depth.isfinite()
    if valid is None:
        return known
    _check_shape(depth, valid, "valid")
    return known & valid


@dataclass(frozen=True, kw_only=True)
class DepthErrors:
    """Errors of depth maps, means over images; NaN where no image has a known depth.

    Args:
        abs_rel: mean of `|p - t| / t`.
        rmse: root of the mean of `(p - t)²`, in the unit of the depths.
        rmse_log: root of the mean of `(log p - log t)²`.
        delta_1: share of pixels with `max(p / t, t / p) < 1.25`; more is better.
        delta_2: the same below `1.25²`.
        delta_3: the same below `1.25³`.
    """

    abs_rel: float
    rmse: float
    rmse_log: float
    delta_1: float
    delta_2: float
    delta_3: float

    def __str__(self) -> str:
        return ", ".join(f"{each.name} {getattr(self, each.name):.3f}" for each in fields(self))


def depth_errors(
    pred: Tensor, depth: Tensor, *, median_scaling: bool = False, valid: Tensor | None = None
) -> DepthErrors:
    """How far predicted depths are off, image by image, and then on average over images that have known depths.

    Method: Eigen et al. 2014, arXiv:1406.2283, section 4.2, whose δ thresholds are strict; `median_scaling` as in Zhou
    et al. 2017, arXiv:1704.07813, section 4.1, for methods that cannot know the scale.

    Args:
        pred: `(n, …)` depths, not logarithms; computed in float64.
        depth: the same shape, in the same unit; see `known_depth` for pixels that do not count.
        median_scaling: multiply each image's prediction by the median of its true depths over that of its predicted
            ones, both over pixels of known depth.
        valid: bool of the same shape: False leaves a pixel out.

    Raises:
        ShapeError: the shapes differ.
        RangeError: a predicted depth is not above 0 and finite where the true one is known.
    """
    _check_shape(pred, depth, "depth")
    shape = len(depth), math.prod(depth.shape[1:])
    known = known_depth(depth, valid).reshape(shape)
    p, t = (x.detach().reshape(shape).double() for x in (pred, depth))
    wrong = known & ~known_depth(p)
    if bool(wrong.any()):
        raise RangeError(
            f"pred: expected depths above 0 and finite, found {p[wrong][0].item()} where depth is known; give depths, "
            "not their logarithms"
        )
    p, t = p.where(known, 1.0), t.where(known, 1.0)
    if median_scaling:
        p = p * (_median(t, known) / _median(p, known))[:, None]
    ratio = torch.maximum(p / t, t / p)
    some = known.any(dim=1)

    def mean(values: Tensor) -> Tensor:
        return ((values.double() * known).sum(dim=1) / known.sum(dim=1))[some]

    return DepthErrors(
        abs_rel=float(mean((p - t).abs() / t).mean()),
        rmse=float(mean((p - t).square()).sqrt().mean()),
        rmse_log=float(mean((p.log() - t.log()).square()).sqrt().mean()),
        delta_1=float(mean(ratio < 1.25).mean()),
        delta_2=float(mean(ratio < 1.25**2).mean()),
        delta_3=float(mean(ratio < 1.25**3).mean()),
    )


def _median(x: Tensor, known: Tensor) -> Tensor:
    """Of each row's known numbers, the mean of the two in the middle where there is no one; 1 of none."""
    if not x.shape[1]:
        return x.new_ones(len(x))
    ordered = x.where(known, torch.inf).sort(dim=1).values
    count = known.sum(dim=1, keepdim=True)
    middle = torch.cat(((count - 1).clamp(min=0) // 2, count // 2), dim=1).clamp(max=x.shape[1] - 1)
    return ordered.gather(1, middle).mean(dim=1).where(count[:, 0] > 0, 1.0)


def _check_shape(x: Tensor, other: Tensor, name: str) -> None:
    if x.shape != other.shape:
        raise ShapeError(f"{name}: expected {tuple(x.shape)}, got {tuple(other.shape)}")
