"""Two Gaussians fitted to numbers on a line, for many groups of numbers at once."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["TwoGaussians", "fit_two"]


class TwoGaussians(NamedTuple):
    """Two Gaussians a group.

    Args:
        weight: `(m, 2)`, a row sums to one.
        mean: `(m, 2)`.
        variance: `(m, 2)`.
        joint: `(m, 2, k)` logarithm of weight times density of each number under each Gaussian.
        steps: `(m,)` int64 that were made.
    """

    weight: Tensor
    mean: Tensor
    variance: Tensor
    joint: Tensor
    steps: Tensor


@torch.no_grad()
def fit_two(
    values: Tensor, valid: Tensor, *, steps: int = 100, tolerance: float = 1e-3, least_variance: float = 1e-6
) -> TwoGaussians:
    """Expectation maximisation of two Gaussians for each group.

    They start at the smallest and at the largest number, with variance 1 and equal weights. A group stops when a step
    changes its mean log-likelihood by less than the tolerance; the others go on.

    Method: Dempster et al. 1977; start and defaults as in scikit-learn's `GaussianMixture` as PAA calls it.

    Args:
        values: `(m, k)` float; computed in float64 (float32 on devices that have no float64).
        valid: `(m, k)` bool, which of them count; at least one a group.
        steps: at most.
        tolerance: of the mean log-likelihood.
        least_variance: is added to each variance.

    Returns:
        The fit.

    Cost: `(m, 2, k)` numbers; each step waits for the device once.
    """
    x = values.to(torch.float32 if values.device.type == "mps" else torch.float64)[:, None]  # m 1 k
    counts = valid[:, None]
    mean = torch.cat((x.masked_fill(~counts, math.inf).amin(dim=2), x.masked_fill(~counts, -math.inf).amax(dim=2)), 1)
    weight, variance = torch.full_like(mean, 0.5), torch.ones_like(mean)
    x = x.masked_fill(~counts, 0.0)
    number = counts.sum(dim=2)  # m 1
    bound = torch.full_like(mean[:, 0], -math.inf)
    done = torch.zeros_like(bound, dtype=torch.bool)
    made = torch.zeros_like(bound, dtype=torch.int64)
    for _ in range(steps):
        joint = _joint(x, weight, mean, variance)
        total = torch.logsumexp(joint, dim=1)  # m k
        share = (joint - total[:, None]).exp_() * counts  # m 2 k
        size = share.sum(dim=2) + 10 * torch.finfo(x.dtype).eps
        new_mean = (share * x).sum(dim=2) / size
        new_variance = (share * (x - new_mean[:, :, None]) ** 2).sum(dim=2) / size + least_variance
        new_bound = (total * valid).sum(dim=1) / number[:, 0]

        going = ~done
        weight = torch.where(going[:, None], size / size.sum(dim=1, keepdim=True), weight)
        mean = torch.where(going[:, None], new_mean, mean)
        variance = torch.where(going[:, None], new_variance, variance)
        made += going
        done |= (new_bound - bound).abs() < tolerance
        bound = new_bound
        if bool(done.all()):
            break
    return TwoGaussians(weight, mean, variance, _joint(x, weight, mean, variance), made)


def _joint(x: Tensor, weight: Tensor, mean: Tensor, variance: Tensor) -> Tensor:
    """Logarithm of weight times density, `(m, 2, k)`."""
    scale = weight.log() - 0.5 * (2 * math.pi * variance).log()
    return scale[:, :, None] - (x - mean[:, :, None]) ** 2 / (2 * variance[:, :, None])
