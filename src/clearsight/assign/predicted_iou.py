"""Assignment by overlap thresholds, of the boxes that the head predicts in place of anchors."""

from __future__ import annotations

import torch
from torch import Tensor

from clearsight.assign.assignment import Assignment, Points, Predictions
from clearsight.assign.base import assigned_objects, background_weight
from clearsight.errors import ConfigError
from clearsight.ops.boxes import box_area
from clearsight.types import Targets

__all__ = ["PredictedIou"]


class PredictedIou:
    """Each point takes the object of its image that its predicted box overlaps most, if it overlaps enough.

    A point is positive from an overlap of `positive` on, background below `negative`, and ignored between. With
    `force_best`, the points whose boxes overlap an object most of all (ties included) are positive whatever that
    overlap; such a point still answers for the object that it overlaps most itself. Boxes that are no numbers overlap
    nothing.

    Method: Yang et al. 2019 (RepPoints), arXiv:1904.11490, section 4.2, with the rule of Ren et al. 2015,
    arXiv:1506.01497, section 3.1.2, as in `assign.max_iou`. Differs from the authors' code: there a forced point goes
    to the object that forces it, and an object that no box touches forces all boxes without any overlap.

    Args:
        positive: in [0, 1].
        negative: at most `positive`.
        force_best: see above.

    Raises:
        ConfigError: a threshold lies outside [0, 1], or `negative` exceeds `positive`.
    """

    needs_predictions = True

    def __init__(self, *, positive: float = 0.5, negative: float = 0.4, force_best: bool = True) -> None:
        if not 0 <= negative <= positive <= 1:
            raise ConfigError(
                f"predicted_iou: thresholds in [0, 1], and negative ({negative}) at most positive ({positive})"
            )
        self.positive = positive
        self.negative = negative
        self.force_best = force_best

    @torch.no_grad()
    def __call__(
        self, points: Points, targets: Targets, predictions: Predictions | None = None, *, images: int
    ) -> Assignment:
        """Assign; see `assign.base.Assigner`. The pairs have no `quality`.

        Cost: three float tables of images, objects of the image that has most, and points.
        """
        if predictions is None:
            raise ConfigError("predicted_iou: assigns by predicted boxes, so predictions must be given, not None")
        usable = assigned_objects(targets)
        image, boxes = targets.image[usable], targets.boxes[usable].to(torch.float32)
        first = torch.searchsorted(image, torch.arange(images, device=image.device))
        slot = torch.arange(len(image), device=image.device) - first[image]
        slots = int(slot.max()) + 1 if len(slot) else 1
        table = boxes.new_zeros((images, slots, 4))
        table[image, slot] = boxes
        missing = torch.ones((images, slots, 1), dtype=torch.bool, device=image.device)
        missing[image, slot] = False

        overlap = _overlaps(table, predictions.boxes.float()).masked_fill_(missing, -1.0)  # n slots l
        best, owner = overlap.max(dim=1)  # n l
        positive = best >= self.positive
        if self.force_best:
            most = overlap.amax(dim=2, keepdim=True)
            positive |= ((overlap == most) & (overlap > 0)).any(dim=1)
        place = positive.view(-1).nonzero().squeeze(1)
        background = background_weight(points, targets, place, images=images)
        background[best >= self.negative] = 0.0
        which = place.div(len(points.xy), rounding_mode="floor")
        return Assignment(
            object=usable[first[which] + owner.view(-1)[place]],
            point=place - which * len(points.xy),
            weight=torch.ones(len(place), device=place.device),
            background=background,
        )


def _overlaps(objects: Tensor, boxes: Tensor) -> Tensor:
    """IoU of each object `(n, s, 4)` and each box `(n, l, 4)` of the same image: `(n, s, l)`, 0 where it is none."""
    left, top, right, bottom = objects[..., None].unbind(2)  # n s 1
    start_x, start_y, end_x, end_y = boxes[:, None].unbind(3)  # n 1 l
    both = torch.minimum(right, end_x).sub_(torch.maximum(left, start_x)).clamp_(min=0)
    both *= torch.minimum(bottom, end_y).sub_(torch.maximum(top, start_y)).clamp_(min=0)
    union = (box_area(objects)[..., None] + box_area(boxes)[:, None]).sub_(both)
    return both.div_(union.clamp_(min=torch.finfo(union.dtype).tiny)).nan_to_num_(nan=0.0)
