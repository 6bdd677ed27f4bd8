"""Samples to one batch: images padded on the right and below, targets ragged."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.utils.data import get_worker_info

from clearsight.data.geometry import IGNORED, plain
from clearsight.data.joining import join_flags, join_rings, soft_label
from clearsight.errors import ShapeError
from clearsight.types import Batch, Instances, Sample, Targets

__all__ = ["collate"]


def collate(samples: Sequence[Sample], *, size: tuple[int, int] | None = None) -> Batch:
    """Samples to a batch; padding is zeros (255 in semantic maps, False in masks) and changes no coordinate.

    Args:
        samples: at least one; the same channels, pixel type and kinds of targets in all.
        size: `(height, width)` to pad to, so that every batch has one shape; None, and any smaller side, takes the
            largest of the batch.

    Returns:
        A batch whose images are channels-last in memory.

    Raises:
        ShapeError: no samples, or channels or pixel types that differ.
    """
    if not samples:
        raise ShapeError("collate: no samples; expected at least one")
    sizes = [(int(s.image.shape[-2]), int(s.image.shape[-1])) for s in samples]
    height, width = (max(side) for side in zip(*sizes, *([size] if size else []), strict=True))
    return Batch(
        images=_stack_images(samples, sizes, (height, width)),
        sizes=torch.tensor(sizes, dtype=torch.int64),
        targets=_targets(samples, (height, width)),
        meta=[sample.meta for sample in samples],
    )


def _stack_images(samples: Sequence[Sample], sizes: Sequence[tuple[int, int]], canvas: tuple[int, int]) -> Tensor:
    first = plain(samples[0].image)
    channels, dtype = first.shape[0], first.dtype
    batch = _empty((len(samples), *canvas, channels), dtype)
    # Whole rows of bytes: copying (h, w, 3) with its tiny last axis is twenty times as slow.
    rows = batch.view(len(samples), canvas[0], -1)
    for row, sample, (height, width) in zip(rows, samples, sizes, strict=True):
        image = plain(sample.image)
        if image.shape[0] != channels or image.dtype != dtype:
            raise ShapeError(
                f"{sample.meta.path}: {image.shape[0]} channels of {image.dtype} in a batch of {channels} channels of "
                f"{dtype} (from {samples[0].meta.path}); convert the files to one kind"
            )
        row[:height, : width * channels] = image.permute(1, 2, 0).reshape(height, -1)
        row[height:] = 0
        row[:height, width * channels :] = 0
    return batch.permute(0, 3, 1, 2)


def _empty(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """Memory for a batch; in a worker process it is shared at once, which saves copying the batch to send it."""
    if get_worker_info() is None:
        return torch.empty(shape, dtype=dtype)
    items = 1
    for side in shape:
        items *= side
    storage = torch.UntypedStorage._new_shared(items * dtype.itemsize)  # pyright: ignore[reportPrivateUsage]
    return torch.empty(0, dtype=dtype).set_(storage, 0, shape)  # pyright: ignore[reportCallIssue, reportArgumentType]


def _targets(samples: Sequence[Sample], canvas: tuple[int, int]) -> Targets:
    instances = [sample.instances for sample in samples]
    targets = Targets(
        boxes=torch.zeros((0, 4)), labels=torch.zeros(0, dtype=torch.int64), image=torch.zeros(0, dtype=torch.int64)
    )
    given = [item for item in instances if item is not None]
    if given:
        if len(given) != len(instances):
            raise ShapeError("collate: some samples have instances and some have none; give all or none")
        _add_instances(targets, given, canvas)
    if samples[0].semantic is not None:
        targets.semantic = _pad_maps(
            [plain(s.semantic)[None] for s in samples if s.semantic is not None], canvas, IGNORED
        )
    targets.label = _labels(samples)
    return targets


def _add_instances(targets: Targets, instances: Sequence[Instances], canvas: tuple[int, int]) -> None:
    counts = torch.tensor([len(item) for item in instances])
    targets.boxes = torch.cat([plain(item.boxes) for item in instances])
    targets.labels = torch.cat([item.labels for item in instances])
    targets.image = torch.repeat_interleave(torch.arange(len(instances)), counts)
    targets.ignore = join_flags(instances)
    masks = [plain(item.masks) for item in instances if item.masks is not None]
    if masks:
        targets.masks = _pad_maps(masks, canvas, fill=0)
    targets.contours, targets.ring_object = join_rings(instances)


def _pad_maps(maps: Sequence[Tensor], canvas: tuple[int, int], fill: int) -> Tensor:
    """`(n_i, h_i, w_i)` maps one after the other on one canvas."""
    result = maps[0].new_full((sum(len(item) for item in maps), *canvas), fill)
    row = 0
    for item in maps:
        result[row : row + len(item), : item.shape[1], : item.shape[2]] = item
        row += len(item)
    return result


def _labels(samples: Sequence[Sample]) -> Tensor | None:
    """Classes `(n,)`; probabilities `(n, k)` as soon as one sample has them."""
    labels = [sample.label for sample in samples]
    if all(label is None for label in labels):
        return None
    missing = [str(sample.meta.path) for sample in samples if sample.label is None]
    if missing:
        raise ShapeError(f"{missing[0]}: no image label, while others of the batch have one")
    soft = [label for label in labels if isinstance(label, Tensor)]
    if not soft:
        return torch.tensor(labels, dtype=torch.int64)
    classes = len(soft[0])
    return torch.stack([soft_label(label, classes) for label in labels if label is not None])
