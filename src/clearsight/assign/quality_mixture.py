"""Gaussian mixtures over the points of each object, all fitted at once."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from clearsight.ops.segments import segment_max, segment_sum

__all__ = ["Mixtures", "fit_mixtures", "log_density"]

LEAST_VARIANCE = 0.01  # a tenth of half a box: no component shrinks to a single point
TINY = 1e-30


class Mixtures(NamedTuple):
    """One mixture of c Gaussians with axis-parallel spreads for each of m groups.

    Args:
        share: `(m, c)`, sums to 1.
        mean: `(m, c, 2)`.
        variance: `(m, c, 2)`.
    """

    share: Tensor
    mean: Tensor
    variance: Tensor


@torch.no_grad()
def fit_mixtures(
    position: Tensor, weight: Tensor, group: Tensor, *, groups: int, components: int, steps: int
) -> Mixtures:
    """Fit to weighted positions by expectation and maximisation.

    All components start with the spread of all positions, their means one standard deviation from the common one: the
    first to the right, the others around in even turns. A variance is at least 0.01.

    Method: Dempster et al. 1977, with a weight for each observation.

    Args:
        position: `(p, 2)` float.
        weight: `(p,)` above 0.
        group: `(p,)` int64, ascending.
        groups: m.
        components: c, at least 1.
        steps: at least 1.

    Returns:
        The mixtures; those of groups without positions are of no meaning, but finite.

    Cost: `steps` passes over a `(p, c, 2)` tensor.
    """
    total = segment_sum(weight, group, segments=groups).clamp(min=TINY)
    centre = segment_sum(weight[:, None] * position, group, segments=groups) / total[:, None]
    apart = weight[:, None] * (position - centre[group]) ** 2
    spread = (segment_sum(apart, group, segments=groups) / total[:, None]).clamp(min=LEAST_VARIANCE)
    angle = torch.arange(components, dtype=position.dtype, device=position.device) * (2 * math.pi / components)
    around = torch.stack((angle.cos(), angle.sin()), dim=1)  # c 2
    found = Mixtures(
        share=total.new_full((groups, components), 1 / components),
        mean=centre[:, None] + spread.sqrt()[:, None] * around,
        variance=spread[:, None].expand(-1, components, -1),
    )
    for _ in range(steps):
        member = _log_parts(found, position, group).softmax(dim=1) * weight[:, None]  # p c
        held = segment_sum(member, group, segments=groups)
        each = held.clamp(min=TINY)[..., None]
        mean = segment_sum(member[..., None] * position[:, None], group, segments=groups) / each
        apart = member[..., None] * (position[:, None] - mean[group]) ** 2
        variance = (segment_sum(apart, group, segments=groups) / each).clamp(min=LEAST_VARIANCE)
        found = Mixtures(held / total[:, None], mean, variance)
    return found


def log_density(mixtures: Mixtures, position: Tensor, group: Tensor) -> Tensor:
    """Logarithm of each position's density under its group's mixture, less the largest of the group.

    Args:
        mixtures: of m groups.
        position: `(p, 2)`.
        group: `(p,)` int64, ascending.

    Returns:
        `(p,)` at most 0.
    """
    density = _log_parts(mixtures, position, group).logsumexp(dim=1)
    return density - segment_max(density, group, segments=len(mixtures.share))[group]


def _log_parts(mixtures: Mixtures, position: Tensor, group: Tensor) -> Tensor:
    """Logarithms of share times density of each component, `(p, c)`, but for a constant."""
    share, mean, variance = (part[group] for part in mixtures)
    distance = (position[:, None] - mean) ** 2 / variance + variance.log()
    return share.clamp(min=TINY).log() - distance.sum(dim=2) / 2
