"""Morphology of masks, a batch at once: grow, shrink, close gaps, fill holes, drop specks.

Pixels outside the image have no say: they neither grow into it nor wear off what touches its border, so that an object
cut by the border keeps its cut side.
"""

from __future__ import annotations

import math
from typing import Literal, get_args

import torch
from torch import Tensor

from clearsight.errors import ConfigError, RangeError, ShapeError, nearest
from clearsight.ops.components import Connectivity, connected_components

__all__ = ["Element", "closing", "dilate", "erode", "fill_holes", "opening", "remove_small"]

Element = Literal["square", "cross", "disk"]
"""The neighbours of a pixel up to a radius r: a square of side 2 r + 1, a row and a column of that length, or all
pixels whose centres are at most r away."""


def dilate(masks: Tensor, radius: int = 1, *, element: Element = "disk") -> Tensor:
    """Every pixel that has a pixel inside among its neighbours.

    Args:
        masks: `(n, h, w)` or `(h, w)` bool.
        radius: of the element, at least 0; 0 changes nothing.
        element: which pixels are neighbours, see `Element`.

    Returns:
        bool of the same shape, on the same device.

    Raises:
        ShapeError: not two or three axes.
        ConfigError: not bool, or no such element.
        RangeError: a negative radius.

    Cost: passes over the mask: O(log r) for a square or a cross, O(r) for a disk.
    """
    _require_masks(masks, "dilate")
    if element not in get_args(Element):
        raise ConfigError(f"element: there is none named {element!r}{nearest(element, get_args(Element))}")
    if radius < 0:
        raise RangeError(f"radius: must be at least 0, got {radius}")
    if element == "square":
        out = _spread(_spread(masks, radius, -1), radius, -2)
        return masks.clone() if out is masks else out
    if element == "cross":
        return _spread(masks, radius, -1) | _spread(masks, radius, -2)
    return _spread_disk(masks, radius)


def erode(masks: Tensor, radius: int = 1, *, element: Element = "disk") -> Tensor:
    """Every pixel whose neighbours in the image are all inside: what `dilate` of the outside leaves."""
    _require_masks(masks, "erode")
    return ~dilate(~masks, radius, element=element)


def opening(masks: Tensor, radius: int = 1, *, element: Element = "disk") -> Tensor:
    """Erode, then dilate: whatever the element does not fit into goes, such as specks, spikes and thin bridges."""
    return dilate(erode(masks, radius, element=element), radius, element=element)


def closing(masks: Tensor, radius: int = 1, *, element: Element = "disk") -> Tensor:
    """Dilate, then erode: gaps, cracks and holes that the element does not fit into are filled."""
    return erode(dilate(masks, radius, element=element), radius, element=element)


def fill_holes(masks: Tensor, *, max_area: int | None = None, connectivity: Connectivity = 4) -> Tensor:
    """Fill what is surrounded: parts of the background that do not reach the border of the image.

    Args:
        masks: `(n, h, w)` or `(h, w)` bool.
        max_area: only holes of at most so many pixels; None fills all.
        connectivity: of the background: with 4, a diagonal of pixels is a wall.

    Raises:
        ShapeError: not two or three axes.
        ConfigError: not bool, or another connectivity.
    """
    _require_masks(masks, "fill_holes")
    stack = masks if masks.ndim == 3 else masks[None]
    parts, areas = _parts(~stack, connectivity)
    holes = torch.ones_like(areas, dtype=torch.bool) if max_area is None else areas <= max_area
    for side in (parts[:, :1], parts[:, -1:], parts[:, :, :1], parts[:, :, -1:]):
        holes[side.flatten()] = False
    holes[0] = False
    return (stack | holes[parts]).reshape(masks.shape)


def remove_small(masks: Tensor, area: int, *, connectivity: Connectivity = 4) -> Tensor:
    """Drop the components of fewer than `area` pixels.

    Args:
        masks: `(n, h, w)` or `(h, w)` bool.
        area: what stays has at least so many pixels.
        connectivity: of a component.

    Raises:
        ShapeError: not two or three axes.
        ConfigError: not bool, or another connectivity.
    """
    _require_masks(masks, "remove_small")
    parts, areas = _parts(masks if masks.ndim == 3 else masks[None], connectivity)
    large = areas >= area
    large[0] = False
    return large[parts].reshape(masks.shape)


def _parts(stack: Tensor, connectivity: Connectivity) -> tuple[Tensor, Tensor]:
    """Components of `(n, h, w)` numbered through the batch from 1, and the area of each number."""
    labels, counts = connected_components(stack, connectivity=connectivity)
    before = (counts.cumsum(0) - counts)[:, None, None]
    parts = torch.where(labels > 0, labels + before, 0)
    return parts, torch.bincount(parts.flatten(), minlength=int(counts.sum()) + 1)


def _spread(masks: Tensor, radius: int, dim: int) -> Tensor:
    """Whether anything is inside at most `radius` pixels away along one axis, by windows that double."""
    size = masks.shape[dim]
    radius = min(radius, size - 1) if size else 0
    if radius <= 0:  # nothing to add, or one pixel wide
        return masks
    padding = (radius, radius) if dim == -1 else (0, 0, radius, radius)
    window = torch.nn.functional.pad(masks, padding)
    length, wanted = 1, 2 * radius + 1
    while length < wanted:
        step = min(length, wanted - length)
        rest = window.shape[dim] - step
        window = window.narrow(dim, 0, rest) | window.narrow(dim, step, rest)
        length += step
    return window


def _spread_disk(masks: Tensor, radius: int) -> Tensor:
    """Rows of a disk one by one, from its top and bottom inwards: each is at least as wide as the one before."""
    height = masks.shape[-2]
    out, row, half = torch.zeros_like(masks), masks, 0
    for away in range(radius, -1, -1):
        wide = math.isqrt(radius * radius - away * away)
        row, half = _spread(row, wide - half, -1), wide
        if away < height:
            rest = height - away
            out.narrow(-2, away, rest).logical_or_(row.narrow(-2, 0, rest))
            out.narrow(-2, 0, rest).logical_or_(row.narrow(-2, away, rest))
    return out


def _require_masks(masks: Tensor, name: str) -> None:
    if masks.ndim not in (2, 3):
        raise ShapeError(f"{name}: masks: expected (n, h, w) or (h, w), got {tuple(masks.shape)}")
    if masks.dtype != torch.bool:
        raise ConfigError(f"{name}: masks: must be bool, got {masks.dtype}; a soft mask needs a threshold: mask > 0.5")
