"""What backbones ask of their images and arguments."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from clearsight.errors import ShapeError

if TYPE_CHECKING:
    from clearsight.models.base import Backbone

__all__ = ["check_images"]


def check_images(images: Tensor, backbone: Backbone) -> None:
    """Refuse images that the backbone cannot take.

    Raises:
        ShapeError: they are not `(n, in_channels, h, w)`, or a side is smaller than the largest stride.
    """
    if torch.compiler.is_compiling():
        return
    name, channels, stride = type(backbone).__name__, backbone.in_channels, max(backbone.strides.values())
    if images.ndim != 4 or images.shape[1] != channels:
        raise ShapeError(
            f"{name}: expected images (n, {channels}, h, w), got {tuple(images.shape)}; the number of channels is "
            "chosen when a model is made (`channels=`, `data.channels`)"
        )
    if min(images.shape[-2:]) < stride:
        raise ShapeError(
            f"{name}: images of {images.shape[-2]}×{images.shape[-1]} are smaller than its largest stride, {stride}; "
            "enlarge them (`data.size`), or divide its strides by four (`small_input`)"
        )
