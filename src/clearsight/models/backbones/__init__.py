"""Backbones: `features(images) -> dict[level, Tensor]`, with `.channels` and `.strides` known before they run."""

from __future__ import annotations

from collections.abc import Callable
from inspect import signature

from clearsight.errors import ConfigError, nearest
from clearsight.models.backbones.resnet import RESNETS
from clearsight.models.base import Backbone

__all__ = ["BACKBONES", "build_backbone"]

BACKBONES: dict[str, Callable[..., Backbone]] = {**RESNETS}


def build_backbone(
    name: str,
    *,
    norm: str | None = None,
    channels: int = 3,
    small_input: bool = False,
    drop_path: float = 0.0,
    auxiliary: bool = False,
) -> Backbone:
    """A backbone by name, with random weights.

    Args:
        name: a key of `BACKBONES`.
        norm: a name of `nn.norm`; None for the published network's.
        channels: of the images.
        small_input: a quarter of the strides, for images of 28 to 64 pixels.
        drop_path: share of samples whose residual branch is left out in training, in the deepest block.
        auxiliary: with the branches of the published network's auxiliary classifiers.

    Raises:
        ConfigError: there is no such backbone, or it has no such option.
    """
    if name not in BACKBONES:
        raise ConfigError(f"backbone: there is none named {name!r}{nearest(name, list(BACKBONES))}")
    options: dict[str, object] = {"drop_path": drop_path, "auxiliary": auxiliary}
    wanted = {option: value for option, value in options.items() if value}
    known = signature(BACKBONES[name]).parameters
    for option in wanted:
        if option not in known:
            raise ConfigError(f"backbone {name}: there is no {option} in this network; leave it out")
    return BACKBONES[name](norm=norm, channels=channels, small_input=small_input, **wanted)
