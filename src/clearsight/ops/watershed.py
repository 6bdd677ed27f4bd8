"""Watershed: basins of a surface flooded from markers, and touching objects split by it."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from clearsight.errors import ConfigError, DataError, RangeError, ShapeError
from clearsight.ops.components import connected_components

__all__ = ["split_touching", "watershed"]

_WINDOW_CELLS = 4_000_000  # of all windows that are looked through at once


def split_touching(masks: Tensor, *, min_distance: int = 5, min_area: int = 1) -> Tensor:
    """Split the objects of a mask that touch, at the necks between them.

    The distance of each pixel to the nearest pixel outside is flooded from its peaks; where two floods meet, two
    objects touch. A peak is the deepest pixel of its component within `min_distance` rows and columns (the first of
    equals, row by row), so two objects are told apart where their centres are further than that from each other.

    Method: Meyer 1991, the flooding of `watershed` on the negative distance; peaks as in the well-known recipe of
    scikit-image, but that a component's peaks are sought among its own pixels only: none is ever without one.

    Args:
        masks: `(h, w)` or `(n, h, w)` bool. The image's border is no outside: a cut object is as deep as it looks.
        min_distance: at least 1; about the radius of the smallest object. Too small a value splits objects at the
            dents of their outline, too large a one leaves small neighbours together.
        min_area: a basin of fewer pixels is left to its neighbours, its peak taken away; a component stays whatever
            its area.

    Returns:
        int32 of the same shape: 0 outside, the objects of each image 1, 2, … in the order of their peaks, row by row.

    Raises:
        ShapeError: not two or three axes.
        ConfigError: not bool.
        RangeError: `min_distance` below 1.

    Cost: see `watershed`; on the CPU whatever the device.
    """
    if masks.ndim not in (2, 3):
        raise ShapeError(f"split_touching: masks: expected (h, w) or (n, h, w), got {tuple(masks.shape)}")
    if masks.dtype != torch.bool:
        raise ConfigError(
            f"split_touching: masks: must be bool, got {masks.dtype}; a soft mask needs a threshold: mask > 0.5"
        )
    if min_distance < 1:
        raise RangeError(f"split_touching: min_distance: must be at least 1, got {min_distance}")
    if not masks.numel():
        return torch.zeros(masks.shape, dtype=torch.int32, device=masks.device)
    stack = (masks if masks.ndim == 3 else masks[None]).detach().cpu()
    inside, components = stack.numpy(), connected_components(stack)[0].numpy()
    depth = np.stack([_squared_distance(mask) for mask in inside])
    peaks = _peaks(depth, components, min_distance)
    labels = _flood(-depth, _numbered(peaks), inside)
    if min_area > 1:
        kept = _large(labels, peaks, depth, components, min_area)
        labels = _flood(-depth, _numbered(kept), inside)
    return torch.from_numpy(labels).to(masks.device).reshape(masks.shape)


def watershed(surface: Tensor, markers: Tensor, *, mask: Tensor | None = None) -> Tensor:
    """Flood a surface from markers; each pixel gets the number of the marker whose flood comes first.

    Method: Meyer 1991, flooding in the order of the surface: what is lower is flooded before what is higher, what is
    equally high in the order in which the floods arrive, one pixel a step to the 4 neighbours. Agrees with
    `skimage.segmentation.watershed` but for single pixels that two floods reach in the same step: there the flood that
    entered the level first is preferred here.

    Args:
        surface: `(n, h, w)` or `(h, w)`, any numbers.
        markers: integers of the same shape; 0 is to be flooded, any other value stays and spreads.
        mask: bool of the same shape, what is flooded at all; None for everything.

    Returns:
        int32 of the same shape; 0 outside the mask and where no flood arrives.

    Raises:
        ShapeError: not two or three axes, or shapes that differ.
        ConfigError: markers that are no integers, or a mask that is not bool.
        DataError: NaN in the surface.

    Cost: a few vectorised calls for each distinct value of the surface and each step on level ground, whatever the
        number of images; round a surface of many values. On the CPU whatever the device.
    """
    inside = torch.ones_like(markers, dtype=torch.bool) if mask is None else mask
    if surface.ndim not in (2, 3) or not surface.shape == markers.shape == inside.shape:
        raise ShapeError(
            "watershed: expected surface, markers and mask of one shape, (n, h, w) or (h, w), got "
            f"{tuple(surface.shape)}, {tuple(markers.shape)} and {tuple(inside.shape)}"
        )
    if markers.is_floating_point() or markers.dtype == torch.bool:
        raise ConfigError(f"watershed: markers: must be integers, got {markers.dtype}; see connected_components")
    if inside.dtype != torch.bool:
        raise ConfigError(f"watershed: mask: must be bool, got {inside.dtype}")
    if bool(surface.isnan().any()):
        raise DataError("watershed: surface: a value is NaN")
    shape = (-1, *surface.shape[-2:]) if surface.numel() else (0, 1, 1)
    arrays = (part.detach().cpu().numpy().reshape(shape) for part in (surface, markers, inside))
    return torch.from_numpy(_flood(*arrays)).to(surface.device).reshape(surface.shape)


def _flood(surface: np.ndarray, markers: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """`watershed` of `(n, h, w)` arrays."""
    frame = ((0, 0), (1, 1), (1, 1))  # no neighbour of a pixel is in another row or image by mistake
    free = np.pad(inside, frame).ravel()
    labels = np.pad(np.where(inside, markers, 0).astype(np.int32), frame).ravel()
    width = surface.shape[2] + 2
    around = np.array([-width, -1, 1, width])
    pixels = np.flatnonzero(free)
    level = np.zeros(len(free), dtype=np.int64)
    values, level[pixels] = np.unique(surface[inside], return_inverse=True)
    by_level = pixels[np.argsort(level[pixels], kind="stable")]
    bounds = np.searchsorted(level[by_level], np.arange(len(values) + 1))
    free &= labels == 0
    arrived = np.zeros(len(free), dtype=np.int64)  # the order in which pixels were reached; markers before all
    clock = 1
    for begin, end in zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True):
        here = by_level[begin:end]
        height = level[here[0]]
        front = here[labels[here] != 0]
        front = front[np.argsort(arrived[front], kind="stable")]
        while len(front):
            near = (front[:, None] + around).ravel()
            dry = free[near]
            near, source = near[dry], np.repeat(labels[front], 4)[dry]
            # Where a pixel is reached more than once, what is written last stays: from back to front, the first flood.
            labels[near[::-1]] = source[::-1]
            now = np.arange(clock, clock + len(near))
            clock += len(near)
            arrived[near[::-1]] = now[::-1]
            free[near] = False
            front = near[(arrived[near] == now) & (level[near] <= height)]
    inner = labels.reshape(len(surface), surface.shape[1] + 2, width)[:, 1:-1, 1:-1]
    return np.ascontiguousarray(inner)


# ------------------------------------------------------------------------------------------------ peaks
def _squared_distance(mask: np.ndarray) -> np.ndarray:
    """Squared distance of each pixel inside to the nearest one outside, exactly; 1 everywhere where all is inside."""
    from scipy import ndimage

    if mask.all():
        return np.ones(mask.shape, dtype=np.int64)
    return np.rint(np.asarray(ndimage.distance_transform_edt(mask)) ** 2).astype(np.int64)


def _peaks(depth: np.ndarray, components: np.ndarray, min_distance: int) -> np.ndarray:
    """Pixels that are the deepest of their component within a window, the first of equals; `(n, h, w)` bool."""
    inside = np.flatnonzero(depth)
    rank = np.zeros(depth.size, dtype=np.int64)  # 1 and up, all different
    rank[inside[np.lexsort((-inside, depth.ravel()[inside]))]] = np.arange(1, len(inside) + 1)
    frame = ((0, 0), (min_distance, min_distance), (min_distance, min_distance))
    ranks, parts = np.pad(rank.reshape(depth.shape), frame), np.pad(components, frame)
    width = ranks.shape[2]
    ranks, parts = ranks.ravel(), parts.ravel()
    # Few pixels are higher than their neighbours, and only these are compared with a whole window.
    places = np.flatnonzero(ranks)
    own = ranks[places]
    places = places[np.logical_and.reduce([own > ranks[places + step] for step in (-width, -1, 1, width)])]
    reach = np.arange(-min_distance, min_distance + 1)
    window = (reach[:, None] * width + reach).ravel()
    found = np.zeros(len(ranks), dtype=bool)
    size = max(1, _WINDOW_CELLS // len(window))
    for begin in range(0, len(places), size):
        some = places[begin : begin + size]
        around = some[:, None] + window
        highest = np.where(parts[around] == parts[some][:, None], ranks[around], 0).max(axis=1)
        found[some[highest == ranks[some]]] = True
    margin = slice(min_distance, -min_distance)
    return found.reshape(len(depth), -1, width)[:, margin, margin]


def _numbered(peaks: np.ndarray) -> np.ndarray:
    """Markers 1, 2, … of each image, row by row."""
    each = peaks.reshape(len(peaks), -1)
    return np.where(each, np.cumsum(each, axis=1), 0).reshape(peaks.shape)


def _large(
    labels: np.ndarray, peaks: np.ndarray, depth: np.ndarray, components: np.ndarray, min_area: int
) -> np.ndarray:
    """The peaks whose basins have an area, and of a component without any such its deepest one."""
    image, y, x = np.nonzero(peaks)
    stride = int(labels.max()) + 1
    whole = np.arange(len(labels))[:, None, None] * stride + labels
    area = np.bincount(whole.ravel(), minlength=len(labels) * stride)[image * stride + labels[image, y, x]]
    kept = area >= min_area
    part = image * (int(components.max()) + 1) + components[image, y, x]
    order = np.lexsort((-depth[image, y, x], ~kept, part))
    first = np.diff(part[order], prepend=-1) != 0
    kept[order[first]] = True
    out = np.zeros_like(peaks)
    out[image[kept], y[kept], x[kept]] = True
    return out
