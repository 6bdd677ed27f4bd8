"""Connected components of masks and class maps, and the objects that they are."""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from torch import Tensor

from clearsight.errors import ConfigError, ShapeError
from clearsight.types import Instances

__all__ = ["Connectivity", "connected_components", "connected_instances"]

Connectivity = Literal[4, 8]
"""Whether pixels that touch at a corner only belong together: 8 says they do."""


def connected_components(masks: Tensor, *, connectivity: Connectivity = 4) -> tuple[Tensor, Tensor]:
    """Number the components of each mask, or of each class of each class map.

    Args:
        masks: `(n, h, w)` or `(h, w)`; bool, or integers of which 0 is background and pixels of different values never
            belong together.
        connectivity: 4 or 8 neighbours of a pixel.

    Returns:
        labels: int32 of the same shape: 0 background, the components of each image 1, 2, … in the order of their first
            pixels, row by row.
        counts: int64, `(n,)` or `()`, how many there are.

    Raises:
        ShapeError: not two or three axes.
        ConfigError: floats, or another connectivity.

    Cost: one pass for each value that occurs, on the CPU whatever the device.

    Example:
        >>> connected_components(torch.tensor([[1, 0, 2], [1, 0, 1]]))
        (tensor([[1, 0, 2],
                [1, 0, 3]], dtype=torch.int32), tensor(3))
    """
    if masks.ndim not in (2, 3):
        raise ShapeError(f"connected_components: masks: expected (n, h, w) or (h, w), got {tuple(masks.shape)}")
    if masks.is_floating_point():
        raise ConfigError(
            f"connected_components: masks: must be bool or integers, got {masks.dtype}; a soft mask needs a threshold "
            "first, such as mask > 0.5"
        )
    stack = masks.detach().cpu().numpy()
    labels, counts = _label(stack if masks.ndim == 3 else stack[None], connectivity)
    found = torch.from_numpy(labels).to(masks.device).reshape(masks.shape)
    return found, torch.from_numpy(counts).to(masks.device).reshape(masks.shape[:-2])


def connected_instances(
    semantic: Tensor,
    *,
    background: int | None = 0,
    ignore_index: int = 255,
    connectivity: Connectivity = 4,
    min_area: int = 1,
    probs: Tensor | None = None,
) -> list[Instances]:
    """The objects of semantic maps: each component of each class is one.

    Args:
        semantic: `(n, h, w)` integers, a class index a pixel; for one map pass `semantic[None]`.
        background: the class that is no object; None where all classes are.
        ignore_index: the value of pixels that belong to nothing.
        connectivity: 4 or 8 neighbours of a pixel.
        min_area: components of fewer pixels are left out.
        probs: `(n, k, h, w)` of which `semantic` is the argmax; an object's score is the mean, over its pixels, of the
            probability of its class.

    Returns:
        For each map its objects in the order of their first pixels, row by row: boxes (half-open pixels), labels (the
        values in the map as they are), masks, and scores where `probs` is given.

    Raises:
        ShapeError: not three axes, or `probs` is of another size.
        ConfigError: floats, or another connectivity.
    """
    if semantic.ndim != 3:
        raise ShapeError(
            f"connected_instances: semantic: expected (n, h, w), got {tuple(semantic.shape)}; "
            "for one map pass semantic[None]"
        )
    if probs is not None and (probs.ndim != 4 or (probs.shape[0], *probs.shape[2:]) != semantic.shape):
        raise ShapeError(
            f"connected_instances: probs: expected (n, k, h, w) over maps of {tuple(semantic.shape)}, "
            f"got {tuple(probs.shape)}"
        )
    nothing = semantic == ignore_index
    if background is not None:
        nothing = nothing | (semantic == background)
    # Shifted past 0, which may be a class here.
    shifted = (semantic.long() - semantic.min() + 1 if semantic.numel() else semantic.long()).masked_fill(nothing, 0)
    shifted = semantic if semantic.is_floating_point() else shifted  # refused by what follows
    labels, counts = connected_components(shifted, connectivity=connectivity)
    each = [None] * len(semantic) if probs is None else probs
    parts = zip(labels, counts.tolist(), semantic, each, strict=True)
    return [_instances(*part, min_area=min_area) for part in parts]


def _instances(labels: Tensor, count: int, semantic: Tensor, probs: Tensor | None, *, min_area: int) -> Instances:
    """The components of one map as objects."""
    y, x = labels.nonzero(as_tuple=True)
    item = labels[y, x].long() - 1
    area = torch.bincount(item, minlength=count)
    classes = semantic.new_zeros(count, dtype=torch.int64)
    classes[item] = semantic[y, x].long()
    masks = torch.zeros(count, *labels.shape, dtype=torch.bool, device=labels.device)
    masks[item, y, x] = True
    scores = None
    if probs is not None:
        of_class = probs[semantic[y, x].long(), y, x].double()
        scores = (torch.bincount(item, weights=of_class, minlength=count) / area).float()
    boxes = torch.tensor(_boxes(labels, count), dtype=torch.float32, device=labels.device).reshape(-1, 4)
    found = Instances(boxes=boxes, labels=classes, scores=scores, masks=masks)
    return found if min_area <= 1 else found.select(area >= min_area)


def _boxes(labels: Tensor, count: int) -> list[tuple[int, int, int, int]]:
    from scipy import ndimage

    found = ndimage.find_objects(labels.cpu().numpy(), count) if count else []
    return [(x.start, y.start, x.stop, y.stop) for y, x in found]


def _label(stack: np.ndarray, connectivity: Connectivity) -> tuple[np.ndarray, np.ndarray]:
    """Components of `(n, h, w)`, numbered from 1 in each image, and their counts."""
    from scipy import ndimage

    if connectivity not in (4, 8):
        raise ConfigError(f"connectivity: must be 4 or 8, got {connectivity!r}")
    near = np.zeros((3, 3, 3), dtype=bool)  # images of a batch are no neighbours
    near[1] = ndimage.generate_binary_structure(2, 1 if connectivity == 4 else 2)
    values = [True] if stack.dtype == bool else np.unique(stack[stack != 0]).tolist()
    labels = np.zeros(stack.shape, dtype=np.int32)
    if len(values) == 1:
        ndimage.label(stack == values[0], near, output=labels)
    elif values:
        part = np.empty_like(labels)
        for value in values:
            total = labels.max(initial=0)
            ndimage.label(stack == value, near, output=part)
            labels += np.where(part > 0, part + total, 0)
        labels = _in_order(labels)
    highest = labels.max(axis=(1, 2), initial=0)
    before = np.maximum.accumulate(np.concatenate(([0], highest)))[:-1].astype(np.int32)
    if len(stack) > 1:
        labels -= before[:, None, None]
        np.maximum(labels, 0, out=labels)
    return labels, np.maximum(highest - before, 0).astype(np.int64)


def _in_order(labels: np.ndarray) -> np.ndarray:
    """The same parts, numbered by their first pixels; each value's are in order, all together are not."""
    present, first = np.unique(labels, return_index=True)
    first[present == 0] = -1
    rank = np.zeros(int(present.max()) + 1, dtype=np.int32)
    rank[present[np.argsort(first)]] = np.arange(len(present)) + (0 if present[0] == 0 else 1)
    return rank[labels]
