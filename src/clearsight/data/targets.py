"""What a model is trained on, from what a file says: records to instances, semantic maps and labels."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torchvision import tv_tensors

from clearsight.data.class_map import read_class_map
from clearsight.data.geometry import resize_map, wrap_instances
from clearsight.data.object_rings import object_rings
from clearsight.ops.contours import pad_rings
from clearsight.ops.masks import rle_to_mask
from clearsight.ops.outlines import polygons_to_masks
from clearsight.types import Instances, Record, Task

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
            _add_shapes(instances, record, size, scale)
        return wrap_instances(instances, size)


def _add_shapes(instances: Instances, record: Record, size: tuple[int, int], scale: tuple[float, float]) -> None:
    """Masks and contours at the resized size, drawn there from polygons, so that no edge is resampled.

    They are what the truth that is scored is made of too (`object_rings`): by the even-odd rule, parts that are united
    as such. An object of which the file says only its box is that box, without a contour.
    """
    objects = record.objects
    outlines = [[ring * (scale[1], scale[0]) for ring in object_rings(item, record.size)] for item in objects]
    drawn = [
        [] if item.rle is not None else rings if item.polygons else [_corners(box)]
        for item, rings, box in zip(objects, outlines, instances.boxes, strict=True)
    ]
    masks = polygons_to_masks(drawn, size)
    for number, item in enumerate(objects):
        if item.rle is not None:
            masks[number] = _resize_mask(rle_to_mask(item.rle), size)
    owners = [number for number, rings in enumerate(outlines) for _ in rings]
    instances.masks = torch.from_numpy(masks)
    instances.contours = torch.from_numpy(pad_rings([ring for rings in outlines for ring in rings]))
    instances.ring_object = torch.tensor(owners, dtype=torch.int64)


def _resize_mask(mask: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    return resize_map(torch.from_numpy(np.ascontiguousarray(mask))[None], size)[0].numpy()


def _corners(box: Tensor) -> np.ndarray:
    """The outline of an object of which the file says only its box."""
    left, top, right, bottom = box.tolist()
    return np.array(((left, top), (right, top), (right, bottom), (left, bottom)))


def read_semantic(record: Record, size: tuple[int, int]) -> Tensor | None:
    """The semantic map of a record, `(h, w)` int64 at `size`, nearest pixel; None where it has none."""
    if record.semantic is None:
        return None
    values = read_class_map(record).astype(np.int64)
    return tv_tensors.Mask(resize_map(torch.from_numpy(values)[None], size)[0])
