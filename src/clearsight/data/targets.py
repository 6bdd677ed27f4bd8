"""What a model is trained on, from what a file says: records to instances, semantic maps and labels."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torchvision import tv_tensors

from clearsight.data.class_map import read_class_map
from clearsight.data.geometry import resize_map, wrap_instances
from clearsight.ops.masks import mask_to_polygons, polygons_to_mask, rle_to_mask
from clearsight.types import Instances, Object, Record, Task

__all__ = ["TargetStore", "read_semantic"]


class TargetStore:
    """Boxes, labels and flags of all records in three flat arrays, and masks drawn from polygons when asked for.

    Flat arrays instead of tensors an image: forked workers share them without touching a reference count, and
    workers that are started afresh receive them as three buffers.

    Args:
        records: in the order of the data set.
        task: `detection` gives boxes, labels and flags; `instance` adds masks and contours; others give no instances.
    """

    def __init__(self, records: Sequence[Record], task: Task) -> None:
        self.task: Task = task
        counts = [len(record.objects) for record in records]
        self._first = np.concatenate(([0], np.cumsum(counts, dtype=np.int64)))
        objects = [item for record in records for item in record.objects]
        self._boxes = np.array([item.box for item in objects], dtype=np.float64).reshape(-1, 4)
        self._labels = np.array([item.label for item in objects], dtype=np.int64)
        self._ignore = np.array([item.crowd or item.difficult for item in objects], dtype=bool)
        self._any_ignore = bool(self._ignore.any())

    def instances(
        self, index: int, record: Record, *, size: tuple[int, int], scale: tuple[float, float]
    ) -> Instances | None:
        """The objects of a record in the pixels of its resized image.

        Args:
            index: position of the record.
            record: the record itself, for polygons.
            size: `(height, width)` of the resized image.
            scale: `(y, x)` factors from the file's pixels to these.
        """
        if self.task not in ("detection", "instance"):
            return None
        part = slice(self._first[index], self._first[index + 1])
        boxes = self._boxes[part] * (scale[1], scale[0], scale[1], scale[0])
        instances = Instances(
            boxes=torch.from_numpy(boxes.astype(np.float32)),
            labels=torch.from_numpy(self._labels[part].copy()),
            ignore=torch.from_numpy(self._ignore[part].copy()) if self._any_ignore else None,
        )
        if self.task == "instance":
            _add_shapes(instances, record.objects, size, scale)
        return wrap_instances(instances, size)


def _add_shapes(
    instances: Instances, objects: Sequence[Object], size: tuple[int, int], scale: tuple[float, float]
) -> None:
    """Masks and contours at the resized size, drawn there from polygons, so that no edge is resampled."""
    masks = np.zeros((len(objects), *size), dtype=bool)
    rings: list[np.ndarray] = []
    owners: list[int] = []
    for number, item in enumerate(objects):
        outline = item.polygons
        if not outline and item.rle is not None:
            outline = mask_to_polygons(rle_to_mask(item.rle))
        scaled = [np.asarray(ring, dtype=np.float64) * (scale[1], scale[0]) for ring in outline]
        if item.rle is not None:
            masks[number] = _resize_mask(rle_to_mask(item.rle), size)
        else:
            masks[number] = polygons_to_mask(scaled or [_corners(instances.boxes[number])], size)
        rings += scaled
        owners += [number] * len(scaled)
    instances.masks = torch.from_numpy(masks)
    instances.contours, instances.ring_object = _pad_rings(rings), torch.tensor(owners, dtype=torch.int64)


def _resize_mask(mask: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    return resize_map(torch.from_numpy(np.ascontiguousarray(mask))[None], size)[0].numpy()


def _corners(box: Tensor) -> np.ndarray:
    """The outline of an object of which the file says only its box."""
    left, top, right, bottom = box.tolist()
    return np.array(((left, top), (right, top), (right, bottom), (left, bottom)))


def _pad_rings(rings: Sequence[np.ndarray]) -> Tensor:
    longest = max((len(ring) for ring in rings), default=0)
    padded = np.zeros((len(rings), longest, 2), dtype=np.float32)
    for row, ring in zip(padded, rings, strict=True):
        row[: len(ring)] = ring
        row[len(ring) :] = ring[-1]
    return torch.from_numpy(padded)


def read_semantic(record: Record, size: tuple[int, int]) -> Tensor | None:
    """The semantic map of a record, `(h, w)` int64 at `size`, nearest pixel; None where it has none."""
    if record.semantic is None:
        return None
    values = read_class_map(record).astype(np.int64)
    return tv_tensors.Mask(resize_map(torch.from_numpy(values)[None], size)[0])
