"""Normalisation layers by name."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm  # pyright: ignore[reportPrivateUsage]  # synchronised ones too

from clearsight.errors import ConfigError, nearest
from clearsight.nn.checks import check_divides, check_positive
from clearsight.nn.cross_iteration_norm import CrossIterationBatchNorm
from clearsight.nn.cross_mini_batch_norm import CrossMiniBatchNorm
from clearsight.nn.frozen_norm import FrozenBatchNorm
from clearsight.nn.instance_norm import InstanceNorm
from clearsight.nn.layer_norm import LayerNorm2d
from clearsight.nn.local_response_norm import LocalResponseNorm

__all__ = ["NORMS", "NORM_ALIASES", "batch_norms", "hold_statistics", "norm"]


def batch_norms(model: nn.Module) -> list[_BatchNorm]:
    """The batch norms inside a model, in the order of its modules: all forms that have running statistics."""
    return [layer for layer in model.modules() if isinstance(layer, _BatchNorm)]


def hold_statistics(model: nn.Module) -> None:
    """Batch norms normalise with their running statistics and keep them, until the next `model.train()`.

    Their scale and shift still learn. Near a training's end this closes the gap between the network that learns, which
    sees each image through the statistics of its batch, and the network that is used, which never does.

    Method: Wu and Johnson 2021, Rethinking "Batch" in BatchNorm, arXiv:2105.07576, section 4.
    """
    for layer in batch_norms(model):
        layer.eval()


_BATCH: dict[int, type[nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d]] = {
    1: nn.BatchNorm1d,
    2: nn.BatchNorm2d,
    3: nn.BatchNorm3d,
}


def _batch(
    channels: int, dims: int, *, eps: float = 1e-5, momentum: float = 0.1, affine: bool = True
) -> nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d:
    return _BATCH[dims](channels, eps, momentum, affine)


def _sync_batch(
    channels: int, _: int, *, eps: float = 1e-5, momentum: float = 0.1, affine: bool = True
) -> nn.SyncBatchNorm:
    return nn.SyncBatchNorm(channels, eps, momentum, affine)


def _frozen_batch(channels: int, _: int, *, eps: float = 1e-5) -> FrozenBatchNorm:
    return FrozenBatchNorm(channels, eps=eps)


def _cross_iteration(
    channels: int,
    dims: int,
    *,
    after: nn.Conv2d | None = None,
    window: int = 8,
    burn_in: int = 1000,
    eps: float = 1e-5,
    momentum: float = 0.1,
    affine: bool = True,
) -> CrossIterationBatchNorm:
    _only_images("cross_iteration", dims)
    if after is None:
        raise ConfigError(
            "norm: 'cross_iteration' remembers how its statistics depend on the weights of the convolution before it; "
            "give that: after=convolution"
        )
    if after.out_channels != channels:
        raise ConfigError(f"norm: expected the {after.out_channels} channels of the convolution before, got {channels}")
    return CrossIterationBatchNorm(after, window=window, burn_in=burn_in, eps=eps, momentum=momentum, affine=affine)


def _cross_mini_batch(
    channels: int, dims: int, *, window: int = 4, eps: float = 1e-5, momentum: float = 0.1, affine: bool = True
) -> CrossMiniBatchNorm:
    _only_images("cross_mini_batch", dims)
    return CrossMiniBatchNorm(channels, window=window, eps=eps, momentum=momentum, affine=affine)


def _group(channels: int, _: int, *, groups: int | None = None, eps: float = 1e-5, affine: bool = True) -> nn.GroupNorm:
    # 32 groups as in Wu and He 2018 (arXiv:1803.08494) where they divide the channels, else the largest divisor of both
    groups = math.gcd(32, channels) if groups is None else groups
    check_divides(channels, groups, "groups")
    return nn.GroupNorm(groups, channels, eps, affine)


def _layer(channels: int, _: int, *, eps: float = 1e-5, affine: bool = True) -> nn.GroupNorm:
    return nn.GroupNorm(1, channels, eps, affine)


def _layer_channels(channels: int, dims: int, *, eps: float = 1e-6, affine: bool = True) -> LayerNorm2d:
    _only_images("layer_channels", dims)
    return LayerNorm2d(channels, eps=eps, affine=affine)


def _instance(channels: int, _: int, *, eps: float = 1e-5, affine: bool = False) -> InstanceNorm:
    return InstanceNorm(channels, eps=eps, affine=affine)


def _local_response(_: int, __: int, *, size: int = 5) -> LocalResponseNorm:
    return LocalResponseNorm(size)


# Each takes channels and dims, and by keyword what only it and its like take.
NORMS: dict[str, Callable[..., nn.Module]] = {
    "batch": _batch,
    "sync_batch": _sync_batch,
    "frozen_batch": _frozen_batch,
    "cross_iteration": _cross_iteration,
    "cross_mini_batch": _cross_mini_batch,
    "group": _group,
    "layer": _layer,
    "layer_channels": _layer_channels,
    "instance": _instance,
    "local_response": _local_response,
}
NORM_ALIASES: dict[str, str] = {
    "bn": "batch",
    "sync_bn": "sync_batch",
    "frozen_bn": "frozen_batch",
    "cbn": "cross_iteration",
    "cmbn": "cross_mini_batch",
    "gn": "group",
    "ln": "layer",
    "ln2d": "layer_channels",
    "in": "instance",
    "lrn": "local_response",
}


def norm(  # noqa: PLR0913 - one factory for the family
    name: str,
    channels: int,
    *,
    dims: int = 2,
    groups: int | None = None,
    eps: float | None = None,
    momentum: float | None = None,
    affine: bool | None = None,
    size: int | None = None,
    window: int | None = None,
    burn_in: int | None = None,
    after: nn.Conv2d | None = None,
) -> nn.Module:
    """A normalisation layer over `(n, channels, h, w)`.

    Args:
        name: a key of `NORMS`, or of `NORM_ALIASES` in brackets. Over the batch: `batch` (`bn`), `sync_batch`
            (`sync_bn`: over all processes), `frozen_batch` (`frozen_bn`: for weights that were trained elsewhere and
            small batches), `cross_iteration` (`cbn`: over the last batches; needs `after`), `cross_mini_batch` (`cmbn`:
            over the batches of one step). Within each image: `group` (`gn`), `layer` (`ln`: over c, h and w, group
            norm with one group), `layer_channels` (`ln2d`: over c at each pixel), `instance` (`in`: over h and w, group
            norm with c groups), `local_response` (`lrn`: by the channels around).
        channels: number of channels.
        dims: 1, 2 or 3 spatial axes; three of the norms are for images only.
        groups: of `group`; 32 by default, or the largest number below that divides both 32 and the channels.
        eps: added to the variance; 1e-5 by default, 1e-6 for `layer_channels`.
        momentum: share of a batch in the running statistics, 0.1 by default.
        affine: whether each channel has a learned scale and shift; by default all but `instance` have.
        size: channels in a window of `local_response`, 5 by default; its constants are those of `LocalResponseNorm`.
        window: batches of `cross_iteration` (8) and `cross_mini_batch` (4).
        burn_in: batches that `cross_iteration` at first normalises alone, 1000 by default.
        after: the convolution whose output `cross_iteration` normalises.

    Returns:
        The layer.

    Raises:
        ConfigError: the name is unknown, the norm does not take an option or number of axes, or groups do not divide
            the channels.

    Example:
        >>> norm("gn", 64, groups=16).num_groups
        16
    """
    full = NORM_ALIASES.get(name, name)
    if full not in NORMS:
        raise ConfigError(f"norm: there is none named {name!r}{nearest(name, (*NORMS, *NORM_ALIASES))}")
    check_positive(channels, "norm: channels")
    if dims not in _BATCH:
        raise ConfigError(f"norm: dims must be 1, 2 or 3 spatial axes, got {dims}")
    options = {
        "groups": groups,
        "eps": eps,
        "momentum": momentum,
        "affine": affine,
        "size": size,
        "window": window,
        "burn_in": burn_in,
        "after": after,
    }
    given = {option: value for option, value in options.items() if value is not None}
    for option in given:
        if option not in _takes(full):
            takers = [other for other in NORMS if option in _takes(other)]
            raise ConfigError(f"norm: {full!r} takes no {option}; it is for {', '.join(takers)}")
    return NORMS[full](channels, dims, **given)


def _takes(name: str) -> list[str]:
    """The options of a norm."""
    return [p.name for p in inspect.signature(NORMS[name]).parameters.values() if p.kind is p.KEYWORD_ONLY]


def _only_images(name: str, dims: int) -> None:
    if dims != 2:
        raise ConfigError(f"norm: {name!r} is for images, dims=2, got dims={dims}")
