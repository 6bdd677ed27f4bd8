"""Assignment by overlap thresholds: the rule of Faster R-CNN and RetinaNet."""

from __future__ import annotations

import torch
from torch import Tensor

from clearsight.assign.base import assigned_objects, background_weight
from clearsight.errors import ConfigError
from clearsight.ops.boxes import box_iou
from clearsight.types import Assignment, Points, Predictions, Targets

__all__ = ["MaxIou"]


class MaxIou:
    """Each anchor takes the object of its image that it overlaps most, if it overlaps enough.

    An anchor is positive from an overlap of `positive` on, background below `negative`, and ignored between. With
    `force_best`, the anchors that overlap an object most of all anchors (ties included) are positive whatever that
    overlap; such an anchor still answers for the object that it overlaps most itself.

    Method: Ren et al. 2015, arXiv:1506.01497, section 3.1.2, with RetinaNet's thresholds (Lin et al. 2017,
    arXiv:1708.02002, section 4). As torchvision's matcher, but for an object that no anchor touches: there every
    anchor without any overlap would tie for the best, here none does.

    Args:
        positive: in [0, 1].
        negative: at most `positive`.
        force_best: see above.

    Raises:
        ConfigError: `negative` exceeds `positive`.
    """

    needs_predictions = False

    def __init__(self, *, positive: float = 0.5, negative: float = 0.4, force_best: bool = True) -> None:
        if negative > positive:
            raise ConfigError(f"max_iou: negative ({negative}) must not exceed positive ({positive})")
        self.positive = positive
        self.negative = negative
        self.force_best = force_best

    @torch.no_grad()
    def __call__(
        self, points: Points, targets: Targets, predictions: Predictions | None = None, *, images: int
    ) -> Assignment:
        """Assign; see `assign.base.Assigner`. Predictions are not looked at; the pairs have no `quality`."""
        usable = assigned_objects(targets)
        image = targets.image[usable]
        overlap = box_iou(targets.boxes[usable], points.boxes)  # m l
        best, row = best_of_image(overlap, image, images=images)  # n l
        positive = best >= self.positive
        if self.force_best and len(usable):
            most = overlap.amax(dim=1, keepdim=True)
            which, point = ((overlap == most) & (overlap > 0)).nonzero(as_tuple=True)
            positive[image[which], point] = True
        place = positive.view(-1).nonzero().squeeze(1)
        background = background_weight(points, targets, place, images=images)
        background.masked_fill_(best >= self.negative, 0.0)
        return Assignment(
            object=usable[row.view(-1)[place]],
            point=place % len(points.xy),
            weight=torch.ones(len(place), device=place.device),
            background=background,
        )


def best_of_image(overlap: Tensor, image: Tensor, *, images: int) -> tuple[Tensor, Tensor]:
    """For each image and point the object of that image with the largest overlap, the first of equals.

    Args:
        overlap: `(m, l)` at least 0.
        image: `(m,)` int64, ascending.
        images: n.

    Returns:
        `(n, l)` overlaps, -1 where the image has no objects; `(n, l)` int64 rows of `overlap`.
    """
    objects, count = overlap.shape
    first = torch.searchsorted(image, torch.arange(images, device=image.device))  # n: each image's first row
    slot = torch.arange(objects, device=image.device) - first[image]
    slots = int(slot.max()) + 1 if objects else 1
    padded = overlap.new_full((images, slots, count), -1.0)
    padded[image, slot] = overlap
    best, slot_of_best = padded.max(dim=1)
    return best, first[:, None] + slot_of_best
