"""One likelihood for an object of those of its bag of points, and its negative logarithm."""

from __future__ import annotations

import torch
from torch import Tensor

from clearsight.errors import RangeError, ShapeError
from clearsight.nn.precision import at_least_float32
from clearsight.ops.segments import segment_max, segment_sum

__all__ = ["confidence_loss", "confidence_mean", "mean_max", "mean_max_loss"]

SURE = 1e-12  # least distance of a likelihood from 1, as in the published code: what is divided by it stays finite


def mean_max(likelihood: Tensor, object: Tensor, objects: int) -> Tensor:
    """Mean of each object's likelihoods while all are small, close to their maximum once one is near 1.

    `Σ x/(1 - x) / Σ 1/(1 - x)` over the pairs of an object.

    Method: Zhang et al. 2019 (FreeAnchor), arXiv:1909.02466, section 3.3.

    Args:
        likelihood: `(p,)` in [0, 1]; computed in float32 at least.
        object: `(p,)` int64, ascending.
        objects: m.

    Returns:
        `(m,)` in [0, 1]; 0 for an object without pairs.

    Raises:
        ShapeError: there are not as many objects' numbers as likelihoods.

    Example:
        >>> mean_max(torch.tensor([0.5, 0.75]), torch.tensor([0, 0]), 1)  # (1 + 3) / (2 + 4)
        tensor([0.6667])
    """
    x = at_least_float32(likelihood)
    return _mean(x, _pull_of_sure(1 - x), _checked(x, object), objects)


def mean_max_loss(log_likelihood: Tensor, object: Tensor, objects: int) -> Tensor:
    """`-log(mean_max(…))` of logarithms, which stays exact where the likelihoods themselves would be 0 or 1.

    Args:
        log_likelihood: `(p,)` at most 0; computed in float32 at least.
        object: `(p,)` int64, ascending.
        objects: m.

    Returns:
        `(m,)` at least 0; 0 for an object without pairs.

    Raises:
        ShapeError: there are not as many objects' numbers as likelihoods.
    """
    x = at_least_float32(log_likelihood)
    return _negative_log(x, _pull_of_sure(-x.expm1()), _checked(x, object), objects)


def confidence_mean(
    likelihood: Tensor,
    weight: Tensor,
    object: Tensor,
    objects: int,
    temperature: float = 1 / 3,
) -> Tensor:
    """Mean of each object's likelihoods x, weighted by `exp(x / temperature) · weight`.

    Method: Zhu et al. 2020 (AutoAssign), arXiv:2007.03496, equations 5 to 7; the weights are differentiated, too.

    Args:
        likelihood: `(p,)` in [0, 1]; computed in float32 at least.
        weight: `(p,)` above 0, such as a centre prior.
        object: `(p,)` int64, ascending.
        objects: m.
        temperature: above 0; the lower, the more the most likely pair counts.

    Returns:
        `(m,)` in [0, 1]; 0 for an object without pairs.

    Raises:
        ShapeError: there are not as many objects' numbers or weights as likelihoods.
        RangeError: the temperature is not above 0.

    Example:
        >>> confidence_mean(torch.tensor([0.0, 1.0]), torch.ones(2), torch.tensor([0, 0]), 1, 1.0)  # e / (1 + e)
        tensor([0.7311])
    """
    x = at_least_float32(likelihood)
    return _mean(x, _pull_of_weights(x, weight, temperature), _checked(x, object), objects)


def confidence_loss(
    log_likelihood: Tensor,
    weight: Tensor,
    object: Tensor,
    objects: int,
    temperature: float = 1 / 3,
) -> Tensor:
    """`-log(confidence_mean(…))` of logarithms, which stays exact where the likelihoods themselves would be 0.

    Args:
        log_likelihood: `(p,)` at most 0; computed in float32 at least.
        weight: see `confidence_mean`.
        object: `(p,)` int64, ascending.
        objects: m.
        temperature: see `confidence_mean`.

    Returns:
        `(m,)` at least 0; 0 for an object without pairs.

    Raises:
        ShapeError: there are not as many objects' numbers or weights as likelihoods.
        RangeError: the temperature is not above 0.
    """
    x = at_least_float32(log_likelihood)
    return _negative_log(x, _pull_of_weights(x.exp(), weight, temperature), _checked(x, object), objects)


def _pull_of_sure(distance: Tensor) -> Tensor:
    """Logarithm of mean-max's weights, from the likelihoods' distance to 1."""
    return -distance.clamp(min=SURE).log()


def _pull_of_weights(likelihood: Tensor, weight: Tensor, temperature: float) -> Tensor:
    """Logarithm of the confidence weights before they are normalised."""
    if not temperature > 0:
        raise RangeError(f"temperature: must be above 0, got {temperature}")
    if weight.shape != likelihood.shape:
        raise ShapeError(f"weight: expected one for each pair, {tuple(likelihood.shape)}, got {tuple(weight.shape)}")
    return likelihood / temperature + at_least_float32(weight).log()


def _mean(x: Tensor, pull: Tensor, object_: Tensor, objects: int) -> Tensor:
    """Means of x over segments, weighted by `exp(pull)`."""
    weight = (pull - _largest(pull, object_, objects)[object_]).exp()
    total = segment_sum(weight, object_, segments=objects) + _empty(object_, objects)
    return segment_sum(weight * x, object_, segments=objects) / total


def _negative_log(log_x: Tensor, pull: Tensor, object_: Tensor, objects: int) -> Tensor:
    """Negative logarithms of the means of x, weighted by `exp(pull)`, without leaving logarithms."""
    pull = pull - _largest(pull, object_, objects)[object_]  # so that the difference of two logarithms keeps its digits
    return _log_sum(pull, object_, objects) - _log_sum(pull + log_x, object_, objects)


def _log_sum(x: Tensor, object_: Tensor, objects: int) -> Tensor:
    """Logarithm of the sum of exponentials of each segment; 0 for an empty one."""
    most = _largest(x, object_, objects)
    total = segment_sum((x - most[object_]).exp(), object_, segments=objects) + _empty(object_, objects)
    return total.log() + most


def _largest(x: Tensor, object_: Tensor, objects: int) -> Tensor:
    """Largest of each segment, without gradient; 0 for an empty one."""
    most = segment_max(x.detach(), object_, segments=objects)
    return most.masked_fill(most == -torch.inf, 0)


def _empty(object_: Tensor, objects: int) -> Tensor:
    """Which objects have no pair, `(m,)` bool."""
    numbers = torch.arange(objects, device=object_.device)
    return torch.searchsorted(object_, numbers) == torch.searchsorted(object_, numbers, right=True)


def _checked(x: Tensor, object_: Tensor) -> Tensor:
    if x.ndim != 1 or object_.shape != x.shape:
        raise ShapeError(
            f"object: expected one for each of the likelihoods {tuple(x.shape)}, got {tuple(object_.shape)}"
        )
    return object_
