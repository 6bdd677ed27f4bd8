"""Assignment by overlap thresholds: the rule of Faster R-CNN and RetinaNet."""

from __future__ import annotations

import torch
from torch import Tensor

from clearsight.assign.assignment import Assignment, Points, Predictions
from clearsight.assign.base import assigned_objects, background_weight, resolve_conflicts
from clearsight.assign.overlap import overlapping_pairs
from clearsight.errors import ConfigError
from clearsight.ops.boxes import box_area, box_iou
from clearsight.types import Targets

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
        image, boxes = targets.image[usable], targets.boxes[usable].to(points.boxes.dtype)
        if self.negative > 0:
            owner, positive, near = self._by_pairs(points, boxes, image, images=images)
        else:
            owner, positive, near = self._by_matrix(points, boxes, image, images=images)
        place = positive.nonzero().squeeze(1)
        background = background_weight(points, targets, place, images=images)
        background.view(-1)[near] = 0.0
        return Assignment(
            object=usable[owner[place]],
            point=place % len(points.xy),
            weight=torch.ones(len(place), device=place.device),
            background=background,
        )

    def _by_pairs(self, points: Points, boxes: Tensor, image: Tensor, *, images: int) -> tuple[Tensor, Tensor, Tensor]:
        """Of each place (`image * l + point`) the row it belongs to and whether it is positive; the places near one."""
        row, point, overlap = overlapping_pairs(points, boxes, self.negative, best=self.force_best)
        place = image[row] * len(points.xy) + point
        owner = torch.full((images * len(points.xy),), -1, device=boxes.device)
        positive = torch.zeros_like(owner, dtype=torch.bool)
        near = (overlap >= self.negative).nonzero().squeeze(1)
        near = near[resolve_conflicts(place[near], -overlap[near])]
        owner[place[near]] = row[near]
        positive[place[near]] = overlap[near] >= self.positive
        if self.force_best:
            most = overlap.new_zeros(len(boxes)).scatter_reduce(0, row, overlap, "amax")
            positive[place[overlap == most[row]]] = True
            lone = (positive & (owner < 0)).nonzero().squeeze(1)  # near no object, but the best that one has
            owner[lone] = _first_best(points, boxes, image, lone, images=images)
        return owner, positive, place[near]

    def _by_matrix(self, points: Points, boxes: Tensor, image: Tensor, *, images: int) -> tuple[Tensor, Tensor, Tensor]:
        """As `_by_pairs`, where anchors without any overlap are near too."""
        overlap = box_iou(boxes, points.boxes)  # m l
        best, row = best_of_image(overlap, image, images=images)  # n l
        positive = best >= self.positive
        if self.force_best and len(boxes):
            most = overlap.amax(dim=1, keepdim=True)
            which, point = ((overlap == most) & (overlap > 0)).nonzero(as_tuple=True)
            positive[image[which], point] = True
        return row.view(-1), positive.view(-1), (best >= self.negative).view(-1)


def best_of_image(overlap: Tensor, image: Tensor, *, images: int) -> tuple[Tensor, Tensor]:
    """For each image and point the object of that image with the largest overlap, the first of equals.

    Args:
        overlap: `(m, l)` at least 0.
        image: `(m,)` int64, ascending.
        images: n.

    Returns:
        `(n, l)` overlaps, -1 where the image has no objects; `(n, l)` int64 rows of `overlap`.
    """
    first, slot, slots = _slots(image, images=images)
    padded = overlap.new_full((images, slots, overlap.shape[1]), -1.0)
    padded[image, slot] = overlap
    best, slot_of_best = padded.max(dim=1)
    return best, first[:, None] + slot_of_best


def _first_best(points: Points, boxes: Tensor, image: Tensor, place: Tensor, *, images: int) -> Tensor:
    """The row that each place's anchor overlaps most among those of its image, the first of equals."""
    first, slot, slots = _slots(image, images=images)
    padded = boxes.new_full((images, slots, 4), 0.0)  # an empty box overlaps nothing
    padded[image, slot] = boxes
    mine = place.div(len(points.xy), rounding_mode="floor")
    anchors = points.boxes[place % len(points.xy)]
    sides = []
    for low, high in ((0, 2), (1, 3)):  # an axis at a time and in place, as `ops.boxes.box_iou`
        end = padded[..., high][mine].clamp_(max=anchors[:, high, None])
        sides.append(end.sub_(padded[..., low][mine].clamp_(min=anchors[:, low, None])).clamp_(min=0))
    both = sides[0].mul_(sides[1])
    union = box_area(padded)[mine].add_(box_area(anchors)[:, None]).sub_(both)
    return first[mine] + both.div_(union.clamp_(min=torch.finfo(union.dtype).tiny)).argmax(dim=1)


def _slots(image: Tensor, *, images: int) -> tuple[Tensor, Tensor, int]:
    """Each image's first row `(n,)`, each row's number in its image `(m,)`, and the most of one (at least 1).

    Args:
        image: `(m,)` int64, ascending.
        images: n.
    """
    first = torch.searchsorted(image, torch.arange(images, device=image.device))
    slot = torch.arange(len(image), device=image.device) - first[image]
    return first, slot, int(slot.max()) + 1 if len(image) else 1
