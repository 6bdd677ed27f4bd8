"""Copies of small objects, put where nothing is yet."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor
from torchvision import tv_tensors

from clearsight.data.geometry import plain
from clearsight.data.joining import join_instances
from clearsight.types import Instances, Sample

__all__ = ["SMALL_AREA", "SMALL_SHARE", "copy_paste"]

SMALL_AREA = 32.0**2
"""Box area in square pixels below which an object counts as small (COCO's bound)."""
SMALL_SHARE = 0.01
"""Share of the image below which an object counts as small too."""


def copy_paste(sample: Sample, *, most: int = 10, tries: int = 8) -> Sample:
    """Paste small objects of an image again elsewhere in it, without covering any object.

    Method: Kisantal et al. 2019, arXiv:1902.07296. With masks only the object's own pixels are copied; without, its
    box, and then only boxes that touch no other object. Objects marked `ignore` are neither copied nor covered. Draws
    from torch's CPU generator.

    Args:
        sample: with instances; others come back as they are.
        most: copies at most, of objects chosen at random.
        tries: places that are tried for each.

    Returns:
        A sample whose copies come after its own objects; a semantic map takes its values along.
    """
    instances = sample.instances
    if instances is None or not len(instances):
        return sample
    height, width = (int(side) for side in sample.image.shape[-2:])
    pasted: list[tuple[int, int, int]] = []
    taken = plain(instances.boxes).clone()
    for number in _candidates(instances, height * width)[:most]:
        left, top, right, bottom = _outer(taken[number])
        found = _free_place(taken, (bottom - top, right - left), (height, width), tries)
        if found is not None:
            y, x = found
            taken = torch.cat((taken, taken[number : number + 1] + torch.tensor((x - left, y - top)).repeat(2)))
            pasted.append((number, y - top, x - left))
    return _paste_all(sample, instances, pasted) if pasted else sample


def _candidates(instances: Instances, image_area: int) -> list[int]:
    """Small objects that may be copied, in random order."""
    boxes = plain(instances.boxes)
    area = (boxes[:, 2:] - boxes[:, :2]).prod(dim=1)
    allowed = (area > 0) & (area <= max(SMALL_AREA, SMALL_SHARE * image_area))
    if instances.ignore is not None:
        allowed &= ~instances.ignore
    if instances.masks is None:
        meets = _overlaps(boxes, boxes)
        allowed &= meets.sum(dim=1) <= 1  # itself
    order = torch.randperm(len(boxes))
    return order[allowed[order]].tolist()


def _overlaps(a: Tensor, b: Tensor) -> Tensor:
    """Whether boxes share area, `(n, m)` bool."""
    low = torch.maximum(a[:, None, :2], b[None, :, :2])
    high = torch.minimum(a[:, None, 2:], b[None, :, 2:])
    return (high > low).all(dim=2)


def _outer(box: Tensor) -> tuple[int, int, int, int]:
    """Whole pixels that hold a box."""
    left, top = box[:2].floor().to(torch.int64).tolist()
    right, bottom = box[2:].ceil().to(torch.int64).tolist()
    return left, top, right, bottom


def _free_place(taken: Tensor, side: tuple[int, int], size: tuple[int, int], tries: int) -> tuple[int, int] | None:
    """Top left corner of a place that touches no box, the first of several drawn."""
    room = torch.tensor((size[0] - side[0] + 1, size[1] - side[1] + 1))
    if int(room.min()) < 1:
        return None
    corners = (torch.rand(tries, 2) * room).to(torch.int64)
    places = torch.stack((corners[:, 1], corners[:, 0], corners[:, 1] + side[1], corners[:, 0] + side[0]), dim=1)
    free = ~_overlaps(places.to(taken.dtype), taken).any(dim=1)
    if not bool(free.any()):
        return None
    y, x = corners[int(free.to(torch.uint8).argmax())].tolist()
    return y, x


def _paste_all(sample: Sample, instances: Instances, pasted: list[tuple[int, int, int]]) -> Sample:
    """`pasted`: object, and how far down and to the right its copy lies."""
    size = (int(sample.image.shape[-2]), int(sample.image.shape[-1]))
    image, source = plain(sample.image).clone(), plain(sample.image)
    semantic = None if sample.semantic is None else plain(sample.semantic).clone()
    copies = instances.select(torch.tensor([number for number, _, _ in pasted]))
    masks = None if copies.masks is None else torch.zeros_like(plain(copies.masks))
    for row, (number, down, right) in enumerate(pasted):
        x0, y0, x1, y1 = (max(value, 0) for value in _outer(plain(instances.boxes)[number]))
        here = slice(y0, min(y1, size[0])), slice(x0, min(x1, size[1]))
        there = slice(here[0].start + down, here[0].stop + down), slice(here[1].start + right, here[1].stop + right)
        shape = None if instances.masks is None else plain(instances.masks)[number][here]
        image[:, *there] = source[:, *here] if shape is None else torch.where(shape, source[:, *here], image[:, *there])
        if semantic is not None and shape is not None:
            semantic[there] = torch.where(shape, semantic[here], semantic[there])
        if masks is not None and shape is not None:
            masks[row][there] = shape
    offsets = torch.tensor([(right, down) for _, down, right in pasted], dtype=torch.float32)
    contours = copies.contours
    if contours is not None and copies.ring_object is not None:
        contours = plain(contours) + offsets[copies.ring_object][:, None]
    moved = replace(copies, boxes=plain(copies.boxes) + offsets.repeat(1, 2), masks=masks, contours=contours)
    return replace(
        sample,
        image=tv_tensors.Image(image),
        semantic=None if semantic is None else tv_tensors.Mask(semantic),
        instances=join_instances([instances, moved], size),
    )
