"""Flip and turn an image with its boxes, masks, contours and semantic map in step.

Coordinates name pixel corners, so a flip takes x to w - x. (Transforms v2 flips key points about pixel centres, x to
w - 1 - x, one pixel away from the boxes; contours here follow the boxes.)
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as v2

from clearsight.data.geometry import IGNORED, Rect, drop_hidden, mask_boxes, mean_colour, plain, wrap_instances
from clearsight.types import Instances, Sample

__all__ = ["flip_horizontal", "flip_vertical", "rotate", "rotate90"]


def flip_horizontal(sample: Sample) -> Sample:
    """Left to right."""
    width = sample.image.shape[-1]
    return _moved(sample, v2.horizontal_flip, lambda xy: torch.stack((width - xy[..., 0], xy[..., 1]), dim=-1))


def flip_vertical(sample: Sample) -> Sample:
    """Top to bottom."""
    height = sample.image.shape[-2]
    return _moved(sample, v2.vertical_flip, lambda xy: torch.stack((xy[..., 0], height - xy[..., 1]), dim=-1))


def rotate90(sample: Sample, turns: int) -> Sample:
    """Quarter turns, counter-clockwise as seen; exact, no resampling. A side that was the height becomes the width."""
    for _ in range(turns % 4):
        sample = _quarter_turn(sample)
    return sample


def _quarter_turn(sample: Sample) -> Sample:
    width = sample.image.shape[-1]

    def turn(tensor: Tensor) -> Tensor:
        return _bits(plain(tensor)).transpose(-1, -2).flip(-2).view(tensor.dtype)

    def points(xy: Tensor) -> Tensor:
        return torch.stack((xy[..., 1], width - xy[..., 0]), dim=-1)

    return _apply(sample, turn, lambda boxes: points(boxes.view(-1, 2, 2)), points)


def _moved(sample: Sample, kernel: Callable[[Tensor], Tensor], points: Callable[[Tensor], Tensor]) -> Sample:
    """A flip: images and maps by the kernel of transforms v2, corners and contours by `points`."""

    def move(tensor: Tensor) -> Tensor:
        return kernel(_bits(plain(tensor))).view(tensor.dtype)

    return _apply(sample, move, lambda boxes: points(boxes.view(-1, 2, 2)), points)


def _bits(tensor: Tensor) -> Tensor:
    """uint16 seen as int16: torch moves those, but hardly anything of uint16."""
    return tensor.view(torch.int16) if tensor.dtype == torch.uint16 else tensor


def _apply(
    sample: Sample,
    move: Callable[[Tensor], Tensor],
    corners: Callable[[Tensor], Tensor],
    points: Callable[[Tensor], Tensor],
) -> Sample:
    """One rigid change of a sample: `move` pixels, `corners` of boxes (any two opposite ones), `points` of contours."""
    image = move(sample.image)
    size = (int(image.shape[-2]), int(image.shape[-1]))
    semantic = None if sample.semantic is None else tv_tensors.Mask(move(sample.semantic))
    instances = sample.instances
    if instances is not None:
        ends = corners(plain(instances.boxes))
        boxes = torch.cat((ends.amin(dim=1), ends.amax(dim=1)), dim=1)
        masks = None if instances.masks is None else move(instances.masks)
        contours = None if instances.contours is None else points(plain(instances.contours))
        instances = wrap_instances(replace(instances, boxes=boxes, masks=masks, contours=contours), size)
    return replace(sample, image=tv_tensors.Image(image), instances=instances, semantic=semantic)


def rotate(sample: Sample, degrees: float) -> Sample:
    """Turn about the image's centre, counter-clockwise as seen, on a canvas of the same size.

    Corners that come into view have the mean colour. Boxes follow their masks, else their contours; with neither, the
    box becomes that of the turned ellipse inscribed in it, which fits real objects better than the box around its
    turned corners (Kalra et al. 2021, arXiv:2109.13488).
    """
    image = plain(sample.image)
    height, width = image.shape[-2:]
    size = (int(height), int(width))
    turned = _rotate_image(image, degrees)
    semantic = sample.semantic
    if semantic is not None:
        semantic = tv_tensors.Mask(v2.rotate(tv_tensors.Mask(plain(semantic)[None]), degrees, fill=[float(IGNORED)])[0])
    instances = sample.instances
    if instances is not None:
        instances = _rotate_instances(instances, degrees, size)
    return replace(sample, image=tv_tensors.Image(turned), instances=instances, semantic=semantic)


def _rotate_image(image: Tensor, degrees: float) -> Tensor:
    fill = mean_colour(image).tolist()
    linear = InterpolationMode.BILINEAR
    if image.dtype == torch.uint8:
        return v2.rotate(image, degrees, interpolation=linear, fill=fill)
    turned = v2.rotate(image.float(), degrees, interpolation=linear, fill=fill)
    return turned.round_().to(torch.int32).to(image.dtype)


def _rotate_instances(instances: Instances, degrees: float, size: tuple[int, int]) -> Instances:
    height, width = size
    angle = torch.deg2rad(torch.tensor(degrees, dtype=torch.float64))
    cos, sin = float(angle.cos()), float(angle.sin())
    # Image coordinates point down, so a turn that is seen counter-clockwise takes (x, y) to (cx + sy, cy - sx).
    matrix = torch.tensor(((cos, -sin), (sin, cos)), dtype=torch.float32)
    middle = torch.tensor((width / 2, height / 2))
    boxes = plain(instances.boxes)
    centre = ((boxes[:, :2] + boxes[:, 2:]) / 2 - middle) @ matrix + middle
    half = (((boxes[:, 2:] - boxes[:, :2]) / 2).square() @ matrix.square()).sqrt()
    turned = torch.cat((centre - half, centre + half), dim=1)
    masks, contours, ring_object = instances.masks, instances.contours, instances.ring_object
    if contours is not None and ring_object is not None:
        contours = (plain(contours) - middle) @ matrix + middle
        turned = _ring_boxes(contours, ring_object, turned)
    if masks is not None:
        masks = v2.rotate(tv_tensors.Mask(plain(masks).to(torch.uint8)), degrees).to(torch.bool)
        masks = plain(masks)
    moved = replace(instances, boxes=turned, masks=masks, contours=contours)
    moved = drop_hidden(moved, Rect(0, 0, height, width), size)
    if moved.masks is not None:
        moved = wrap_instances(replace(moved, boxes=mask_boxes(plain(moved.masks))), size)
    return moved


def _ring_boxes(contours: Tensor, ring_object: Tensor, otherwise: Tensor) -> Tensor:
    """Boxes of objects from their rings; objects without a ring keep the box given."""
    n = len(otherwise)
    index = ring_object[:, None].expand(-1, 2)
    low = torch.full((n, 2), torch.inf).scatter_reduce(0, index, contours.amin(dim=1), "amin")
    high = torch.full((n, 2), -torch.inf).scatter_reduce(0, index, contours.amax(dim=1), "amax")
    return torch.where(torch.isfinite(low[:, :1]), torch.cat((low, high), dim=1), otherwise)
