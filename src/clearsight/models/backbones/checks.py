"""What backbones ask of their images."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from clearsight.errors import ShapeError

__all__ = ["check_images"]


class _Takes(Protocol):
    in_channels: int
    strides: dict[str, int]


def check_images(images: Tensor, backbone: _Takes) -> None:
    """Refuse images that the backbone cannot take.

    Raises:
        ShapeError: they are not `(n, in_channels, h, w)`, or a side is smaller than the largest stride.
    """
    if torch.compiler.is_compiling():
        return
    channels, stride = backbone.in_channels, max(backbone.strides.values())
    if images.ndim != 4 or images.shape[1] != channels:
        raise ShapeError(
            f"backbone: expected images (n, {channels}, h, w), got {tuple(images.shape)}; the number of channels is "
            "chosen when a model is made (`channels=`, `data.channels`)"
        )
    if min(images.shape[-2:]) < stride:
        raise ShapeError(
            f"backbone: images of {images.shape[-2]}×{images.shape[-1]} are smaller than its largest stride, {stride}; "
            "enlarge them (`data.size`), or divide its strides by four (`small_input`)"
        )
