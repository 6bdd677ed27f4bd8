"""Which objects the proposals of a batch hold, and a sample of them for the second stage to learn from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from clearsight.assign.base import assigned_objects
from clearsight.errors import ConfigError
from clearsight.models.detect.rpn import Proposals
from clearsight.models.detect.sampling import check_sampling, sample_balanced
from clearsight.types import Targets

__all__ = ["Matches", "RoiSampler", "Rois", "match_boxes"]


class Matches(NamedTuple):
    """What each box holds.

    Args:
        object: `(s,)` int64 index into the targets of the object that is overlapped most; -1 where that is not enough.
        background: `(s,)` bool; a box may be neither, inside of an ignored object.
    """

    object: Tensor
    background: Tensor


class Rois(NamedTuple):
    """Regions of interest of a batch, image by image.

    Args:
        boxes: `(s, 4)` xyxy pixels.
        image: `(s,)` int64, ascending.
        object: `(s,)` int64 index into the targets, -1 for background.
    """

    boxes: Tensor
    image: Tensor
    object: Tensor


@torch.no_grad()
def match_boxes(boxes: Tensor, image: Tensor, targets: Targets, *, images: int, iou: float) -> Matches:
    """Give each box the object of its image that it overlaps most, the first of equals, if by `iou` at least.

    Method: Girshick 2015 (Fast R-CNN), arXiv:1504.08083, section 2.3. Whatever is not positive is background, but for
    boxes whose centre lies inside of an ignored object, as with the points of dense heads.

    Args:
        boxes: `(s, 4)` xyxy pixels; any order of images.
        image: `(s,)` int64.
        targets: of the batch.
        images: n.
        iou: above 0.

    Cost: some `(s, o)` floats, for o objects in the image that has the most.
    """
    usable = assigned_objects(targets)
    truth, first = _by_image(targets.boxes[usable].to(boxes.dtype), targets.image[usable], images=images)
    overlap = _overlap(boxes, truth, image)
    best, slot = overlap.max(dim=1)
    held = best >= iou
    place = (first[image] + slot).clamp(max=max(len(usable) - 1, 0))
    found = usable[place] if len(usable) else torch.zeros_like(image)
    background = ~held
    if targets.ignore is not None and bool(targets.ignore.any()):
        hidden = targets.ignore.nonzero().squeeze(1)
        ignored, _ = _by_image(targets.boxes[hidden].to(boxes.dtype), targets.image[hidden], images=images)
        background = background & ~_centre_inside(boxes, ignored, image)
    return Matches(torch.where(held, found, -1), background)


@dataclass(frozen=True, kw_only=True)
class RoiSampler:
    """Draws regions from the proposals and the objects themselves; see `match_boxes` and `sample_balanced`.

    The objects' own boxes stand behind the proposals of their image, as in the published code: without them a network
    that proposes nothing yet would have no positives to learn from.

    Args:
        samples: regions of each image.
        share: of positives among them, at most.
        positive: overlap from which on a region is positive, above 0.

    Raises:
        ConfigError: a value is out of range.
    """

    samples: int = 512
    share: float = 0.25
    positive: float = 0.5

    def __post_init__(self) -> None:
        check_sampling("regions", count=self.samples, share=self.share)
        if not 0 < self.positive <= 1:
            raise ConfigError(f"regions: positive must be in (0, 1], got {self.positive}")

    @torch.no_grad()
    def __call__(self, proposals: Proposals, targets: Targets) -> Rois:
        """Draw.

        Args:
            proposals: of n images.
            targets: of the batch.
        """
        images = len(proposals.scores)
        usable = assigned_objects(targets)
        truth, _ = _by_image(targets.boxes[usable].to(proposals.boxes.dtype), targets.image[usable], images=images)
        there = torch.bincount(targets.image[usable], minlength=images)[:, None]
        boxes = torch.cat((proposals.boxes, truth), dim=1)  # n p+o 4
        valid = torch.cat((proposals.scores > 0, torch.arange(truth.shape[1], device=there.device) < there), dim=1)
        flat, image = boxes.flatten(0, 1), torch.arange(images, device=boxes.device).repeat_interleave(boxes.shape[1])
        found = match_boxes(flat, image, targets, images=images, iou=self.positive)
        positive, background = (kind.view(valid.shape) & valid for kind in (found.object >= 0, found.background))
        drawn = sample_balanced(positive, background, count=self.samples, share=self.share)
        rows = drawn.flatten().nonzero().squeeze(1)
        return Rois(flat[rows], image[rows], found.object[rows])


def _by_image(boxes: Tensor, image: Tensor, *, images: int) -> tuple[Tensor, Tensor]:
    """Boxes of ascending images, padded with empty ones to `(n, o, 4)` with o at least 1; each image's first row."""
    first = torch.searchsorted(image, torch.arange(images, device=image.device))
    slot = torch.arange(len(boxes), device=image.device) - first[image]
    padded = boxes.new_zeros((images, int(slot.max()) + 1 if len(boxes) else 1, 4))
    padded[image, slot] = boxes
    return padded, first


def _overlap(boxes: Tensor, truth: Tensor, image: Tensor) -> Tensor:
    """IoU of each box with the objects of its image, `(s, o)`; 0 with empty ones."""
    sides = []
    for low, high in ((0, 2), (1, 3)):  # an axis at a time and in place, as `ops.boxes.box_iou`
        end = torch.minimum(boxes[:, high, None], truth[..., high][image])
        sides.append(end.sub_(torch.maximum(boxes[:, low, None], truth[..., low][image])).clamp_(min=0))
    both = sides[0].mul_(sides[1])
    area = (truth[..., 2:] - truth[..., :2]).prod(dim=-1)
    union = area[image].add_((boxes[:, 2:] - boxes[:, :2]).prod(dim=-1)[:, None]).sub_(both)
    return both / union.clamp_(min=torch.finfo(union.dtype).tiny)


def _centre_inside(boxes: Tensor, regions: Tensor, image: Tensor) -> Tensor:
    """Whether a box's centre lies strictly inside any of its image's regions `(n, o, 4)`, `(s,)` bool."""
    x, y = ((boxes[:, :2] + boxes[:, 2:]) / 2)[..., None].unbind(1)
    left, top, right, bottom = regions[image].unbind(-1)
    return ((x > left) & (x < right) & (y > top) & (y < bottom)).any(dim=1)
