"""Predictions and truth side by side: both in the pixels of the image file, masks as outlines."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from clearsight.data.geometry import mask_boxes, plain, resize_map
from clearsight.data.object_rings import object_rings
from clearsight.ops.contours import pad_rings
from clearsight.ops.outlines import mask_to_polygons
from clearsight.types import ImageMeta, Instances, Object, Record, SemanticMap

__all__ = ["labels_in_file", "to_file_pixels", "truth_of"]


def to_file_pixels(instances: Instances, meta: ImageMeta) -> Instances:
    """Predictions moved from the pixels of a sample to those of its file, on the CPU.

    Boxes are scaled and cut to the image. Contours are scaled and kept as they are, also where they leave the image.
    Masks (of instances without contours) are cut to the valid part, brought to the file's size, where a pixel takes
    the value under its centre (as `data.geometry.resize_map`), and kept as their outlines: `polygons_to_mask` gives
    the mask of the file's size back exactly. An object whose mask is empty there stays, without a ring.

    Args:
        instances: of one image; masks are `(n, h, w)` of the batch's image, padding included.
        meta: where the image came from.
    """
    boxes = instances.boxes.detach().float().cpu()
    y, x = meta.scale
    height, width = meta.size
    boxes = boxes / torch.tensor([x, y, x, y])
    limit = torch.tensor([width, height, width, height], dtype=boxes.dtype)
    contours = owners = None
    if instances.contours is not None and instances.ring_object is not None:
        points = plain(instances.contours.detach()).cpu().double()
        contours = (points / torch.tensor([x, y], dtype=torch.float64)).float()
        owners = instances.ring_object.cpu()
    elif instances.masks is not None:
        contours, owners = _join(_outlines(plain(instances.masks).detach().cpu().bool(), meta))
    return Instances(
        boxes=boxes.clamp(min=0).minimum(limit),
        labels=instances.labels.cpu(),
        scores=None if instances.scores is None else instances.scores.float().cpu(),
        contours=contours,
        ring_object=owners,
    )


def truth_of(record: Record, *, shapes: bool = False) -> Instances:
    """What a file says of its objects, exactly, in its own pixels; crowds and difficult objects are marked `ignore`.

    Args:
        record: of one image.
        shapes: also the outlines: of the run-length mask, else the polygons, else the box. Polygons that cover what
            any of them covers (attribute `fill` is `union`) are drawn first, since rings are read by the even-odd rule.

    Raises:
        DataError: run lengths do not add up.
    """
    boxes = torch.tensor([item.box for item in record.objects], dtype=torch.float32).reshape(-1, 4)
    labels = torch.tensor([item.label for item in record.objects], dtype=torch.int64)
    ignore = torch.tensor([item.crowd or item.difficult for item in record.objects], dtype=torch.bool)
    contours = owners = None
    if shapes:
        contours, owners = _join([_shape(item, record.size) for item in record.objects])
    return Instances(boxes=boxes, labels=labels, ignore=ignore, contours=contours, ring_object=owners)


def labels_in_file(found: SemanticMap, size: tuple[int, int]) -> np.ndarray:
    """The most probable class of every pixel of the file, `(h, w)` uint8, on the CPU.

    Probabilities are interpolated (bilinear), not classes: borders stay smooth where the model saw a smaller image. One
    class after the other, so that two maps of the file's size lie in memory and not one a class; the first of equals.

    Args:
        found: of the valid part of the model's image, at most 255 classes.
        size: `(height, width)` of the file.
    """
    probs = found.probs.detach().float()
    if tuple(probs.shape[-2:]) == size:
        return probs.argmax(dim=0).to(torch.uint8).cpu().numpy()
    best = torch.full(size, -1.0, device=probs.device)
    label = torch.zeros(size, dtype=torch.uint8, device=probs.device)
    for index, each in enumerate(probs):
        here = F.interpolate(each[None, None], size, mode="bilinear", align_corners=False)[0, 0]
        label.masked_fill_(here > best, index)
        best = torch.maximum(best, here)
    return label.cpu().numpy()


def _shape(item: Object, size: tuple[int, int] | None) -> list[np.ndarray]:
    if item.polygons or item.rle is not None:
        return object_rings(item, size)
    left, top, right, bottom = item.box
    return [np.array(((left, top), (right, top), (right, bottom), (left, bottom)))]


def _outlines(masks: Tensor, meta: ImageMeta) -> list[list[np.ndarray]]:
    """The rings of each mask, in the file's pixels."""
    height, width = (
        min(side, max(1, round(own * scale)))
        for side, own, scale in zip(masks.shape[1:], meta.size, meta.scale, strict=True)
    )
    masks = masks[:, :height, :width]
    bits = masks.numpy()
    # Which row and column of the mask lies under the centre of each of the file's.
    rows = resize_map(torch.arange(height)[None, :, None], (meta.size[0], 1)).flatten()
    columns = resize_map(torch.arange(width)[None, None, :], (1, meta.size[1])).flatten()
    boxes = mask_boxes(masks).long()
    xs = torch.searchsorted(columns, boxes[:, 0::2].contiguous()).tolist()
    ys = torch.searchsorted(rows, boxes[:, 1::2].contiguous()).tolist()
    outlines = []
    for mask, (left, right), (top, bottom) in zip(bits, xs, ys, strict=True):
        part = mask[np.ix_(rows[top:bottom].numpy(), columns[left:right].numpy())]
        outlines.append([np.add(ring, (left, top)) for ring in mask_to_polygons(part)])
    return outlines


def _join(outlines: Sequence[Sequence[np.ndarray]]) -> tuple[Tensor, Tensor]:
    """All rings, padded by their last vertex, and the object of each."""
    owners = [number for number, outline in enumerate(outlines) for _ in outline]
    rings = pad_rings([ring for outline in outlines for ring in outline])
    return torch.from_numpy(rings), torch.tensor(owners, dtype=torch.int64)
