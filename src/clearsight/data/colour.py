"""Brightness, contrast, saturation and hue as one linear map of the channels, applied in one pass."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from clearsight.data.geometry import plain

__all__ = ["ColourChange", "change_colour"]

_LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601, as transforms v2 has it


@dataclass(frozen=True, kw_only=True)
class ColourChange:
    """Factors as in transforms v2; 1 (0 for `hue`) changes nothing.

    Args:
        brightness: factor on every channel.
        contrast: factor on the distance from the image's mean grey.
        saturation: factor on the distance from each pixel's own grey.
        hue: turn of the colours about the grey axis, in turns. This is the linear turn in YIQ space, which keeps luma;
            transforms v2 turns in HSV space, which keeps the value instead.
    """

    brightness: float = 1.0
    contrast: float = 1.0
    saturation: float = 1.0
    hue: float = 0.0


def change_colour(image: Tensor, change: ColourChange) -> Tensor:
    """Apply a colour change; saturation and hue need three channels and are left out for other numbers.

    The result is clipped once, at the end, where a chain of the single changes would clip after each.

    Args:
        image: `(c, h, w)` uint8 or uint16.
        change: see `ColourChange`.

    Returns:
        `(c, h, w)` of the same type. Colour images may come back plane by plane in memory.
    """
    image = plain(image)
    coloured = image.shape[0] == 3
    luma = torch.tensor(_LUMA) if coloured else torch.full((image.shape[0],), 1 / image.shape[0])
    grey = float(image[:, ::4, ::4].to(torch.float32).mean(dim=(1, 2)) @ luma)
    gain = change.brightness * change.contrast
    shift = change.brightness * (1 - change.contrast) * grey
    if not coloured or (change.saturation == 1 and change.hue == 0):
        return _to_pixels(image.to(torch.float32).mul_(gain).add_(shift), image.dtype)
    # Greys are left alone by saturation and hue, so the shift of the contrast passes through them unchanged.
    matrix = gain * (_turn(change.hue) @ (change.saturation * torch.eye(3) + (1 - change.saturation) * luma))
    planes = image.contiguous().to(torch.float32).view(3, -1)
    return _to_pixels(torch.addmm(torch.full((3, 1), shift), matrix, planes), image.dtype).view(image.shape)


def _to_pixels(values: Tensor, dtype: torch.dtype) -> Tensor:
    """Rounded and clipped; through a signed integer, which converts five times as fast as straight to uint8."""
    top, between = (255, torch.int16) if dtype == torch.uint8 else (65535, torch.int32)
    return values.add_(0.5).clamp_(0, top).to(between).to(dtype)


def _turn(hue: float) -> Tensor:
    """The `(3, 3)` turn of RGB by `hue` turns about the grey axis, luma kept: from RGB to YIQ, a rotation, and back."""
    yiq = torch.tensor((_LUMA, (0.595716, -0.274453, -0.321263), (0.211456, -0.522591, 0.311135)), dtype=torch.float64)
    cos, sin = math.cos(2 * math.pi * hue), math.sin(2 * math.pi * hue)
    rotation = torch.tensor(((1, 0, 0), (0, cos, -sin), (0, sin, cos)), dtype=torch.float64)
    return (torch.linalg.inv(yiq) @ rotation @ yiq).to(torch.float32)
