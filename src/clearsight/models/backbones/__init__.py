"""Backbones: `features(images) -> dict[level, Tensor]`, with `.channels` and `.strides` known before they run."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from clearsight.models.backbones.resnet import ResNet

__all__ = ["BACKBONES"]

DEPTHS = (18, 34, 50, 101, 152)
BACKBONES: dict[str, Callable[..., ResNet]] = {f"resnet{depth}": partial(ResNet, depth) for depth in DEPTHS}
