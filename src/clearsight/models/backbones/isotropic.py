"""A pyramid without parameters for networks of one resolution, and the padding that makes their patches fit."""

from __future__ import annotations

import math

import torch.nn.functional as F
from torch import Tensor

from clearsight.nn.checks import check_positive

__all__ = [
    "LEVELS",
    "isotropic_pyramid",
    "isotropic_strides",
    "nearest_level",
    "pad_to_multiple",
    "quarter_patch",
    "whole_patches",
]

LEVELS: dict[str, int] = {"c2": 4, "c3": 8, "c4": 16, "c5": 32}


def nearest_level(patch: int) -> str:
    """The level whose stride is nearest to a patch's side in ratio: `c4` of 16 and 14, `c3` of 7.

    Args:
        patch: side of a patch in pixels.

    Raises:
        ConfigError: the side is below 1.
    """
    check_positive(patch, "patch")
    return min(LEVELS, key=lambda level: abs(math.log(patch / LEVELS[level])))


def isotropic_strides(patch: int, level: str) -> dict[str, int]:
    """The strides of the pyramid around a map, by level; one that is no whole number is left out.

    Args:
        patch: side of a patch, the stride of the map.
        level: which one the map is.

    Returns:
        Strides by level, from `c2`, or the first whose stride is whole, to `c5`.
    """
    found = {name: patch * stride / LEVELS[level] for name, stride in LEVELS.items()}
    return {name: int(stride) for name, stride in found.items() if stride == int(stride)}


def isotropic_pyramid(x: Tensor, images: Tensor, strides: dict[str, int], level: str) -> dict[str, Tensor]:
    """Coarser and finer maps of one.

    Method: as the simple pyramid of Li et al. 2022 (ViTDet), arXiv:2203.16527, section 3, but without parameters: the
    finer maps are interpolated where it has transposed convolutions, and its convolutions and norms on every level are
    left to what follows; the coarser one is the maximum of 2×2, as there.

    Args:
        x: `(n, c, ceil(h / stride), ceil(w / stride))`, the network's own map.
        images: `(n, …, h, w)`, of which only the size is looked at.
        strides: of `isotropic_strides`.
        level: which one x is.

    Returns:
        `(n, c, ceil(h / stride), ceil(w / stride))` by level, as in `strides`.
    """
    names = list(strides)
    own = names.index(level)
    found = {level: x}
    for finer in reversed(names[:own]):
        x = F.interpolate(x, scale_factor=2, mode="bilinear")
        # Not as -(-side // stride): exported, // rounds to zero.
        height, width = ((side + strides[finer] - 1) // strides[finer] for side in images.shape[-2:])
        found[finer] = x[..., :height, :width]
    x = found[level]
    for coarser in names[own + 1 :]:
        x = found[coarser] = F.max_pool2d(x, 2, ceil_mode=True)
    return {name: found[name] for name in names}


def pad_to_multiple(images: Tensor, multiple: int) -> Tensor:
    """Zeros on the right and below, up to the next multiple of a side; the images themselves where nothing is missing.

    Args:
        images: `(n, c, h, w)`.
        multiple: of both sides.
    """
    below, right = (-side % multiple for side in images.shape[-2:])
    known = isinstance(below, int) and isinstance(right, int)  # in an exported graph sizes may be symbols
    if known and not below and not right:
        return images
    return F.pad(images, (0, right, 0, below))


def whole_patches(images: Tensor, patch: int) -> Tensor:
    """The part of the images that a convolution without padding looks at, whose stride is its kernel's side.

    Args:
        images: `(n, c, h, w)`.
        patch: side of the kernel.
    """
    height, width = (side - side % patch for side in images.shape[-2:])
    return images[..., :height, :width]


def quarter_patch(patch: int, *, small_input: bool) -> int:
    """The side of a patch: a quarter, rounded, for small images; 4 of 16 and 14, 2 of 7.

    Args:
        patch: the published side.
        small_input: whether images are small.
    """
    return max(1, round(patch / 4)) if small_input else patch
