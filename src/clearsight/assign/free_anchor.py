"""FreeAnchor: each object has a bag of anchors, and learns with those of them that explain it best."""

from __future__ import annotations

import torch
from torch import Tensor

from clearsight.assign.assignment import Assignment, BagOptions, Points, Predictions
from clearsight.assign.base import assigned_objects, background_weight, rank_in_group
from clearsight.assign.pairs import pairs_inside
from clearsight.errors import ConfigError
from clearsight.ops.boxes import box_iou, paired_iou
from clearsight.ops.segments import segment_max
from clearsight.types import Targets

__all__ = ["FreeAnchor"]


class FreeAnchor:
    """Learning to match anchors.

    The bag of an object holds the `bag` anchors that overlap it most. Its loss is the negative logarithm of the
    mean-max of their likelihoods, see `models.detect.bag_terms`. An anchor whose prediction overlaps the object by t is
    an anchor of its class with probability `(t - threshold) / (best - threshold)`, between 0 and 1, best the largest
    overlap of all predictions with the object; of several objects of the class the largest counts. What is left to 1 is
    the weight of the background for that class, also outside the bags: such anchors come as pairs of weight 0.

    Method: Zhang et al. 2019, arXiv:1909.02466, sections 3.2 and 3.3, with the published code's values of COCO. Differs
    from both: an anchor that does not touch the object is in no bag, so that an object off the grid has none; of equal
    overlaps the first are taken.

    Args:
        bag: anchors an object.
        threshold: overlap of a prediction above which it is no longer all background, in (0, 1).
        box_weight: β, factor of the box loss in the likelihood.
        alpha: share of the objects' term, in [0, 1].
        gamma: of the background's focal loss, at least 0.

    Raises:
        ConfigError: an argument is out of range.
    """

    needs_predictions = True

    def __init__(
        self,
        *,
        bag: int = 50,
        threshold: float = 0.6,
        box_weight: float = 0.75,
        alpha: float = 0.5,
        gamma: float = 2.0,
    ) -> None:
        if bag < 1 or not box_weight > 0:
            raise ConfigError(f"free_anchor: bag and box_weight must be above 0, got {bag} and {box_weight}")
        if not 0 < threshold < 1:
            raise ConfigError(f"free_anchor: threshold must be in (0, 1), got {threshold}")
        if not 0 <= alpha <= 1 or not gamma >= 0:
            raise ConfigError(f"free_anchor: alpha must be in [0, 1] and gamma at least 0, got {alpha} and {gamma}")
        self.bag = bag
        self.threshold = threshold
        self.options = BagOptions(box_weight=box_weight, alpha=alpha, gamma=gamma)

    @torch.no_grad()
    def __call__(
        self, points: Points, targets: Targets, predictions: Predictions | None = None, *, images: int
    ) -> Assignment:
        """Assign bags; see `assign.base.Assigner`. Of the predictions only the boxes are looked at."""
        if predictions is None:
            raise ConfigError("free_anchor: looks at what the model predicts, so predictions must be given, not None")
        usable = assigned_objects(targets)
        boxes, count = targets.boxes[usable], len(points.xy)
        row, point = self._bags(points, boxes)
        found_row, found_point, share = self._found(predictions.boxes, boxes, targets.image[usable])
        in_bag = row * count + point
        place, inverse = torch.unique(torch.cat((in_bag, found_row * count + found_point)), return_inverse=True)
        weight, left = place.new_zeros(len(place), dtype=torch.float32), torch.ones_like(place, dtype=torch.float32)
        weight[inverse[: len(in_bag)]] = 1.0
        left[inverse[len(in_bag) :]] = 1 - share
        return Assignment(
            object=usable[place.div(count, rounding_mode="floor")],
            point=place % count,
            weight=weight,
            background=background_weight(points, targets, place[:0], images=images),
            combine="mean_max",
            class_background=left,
            bag=self.options,
        )

    def _bags(self, points: Points, boxes: Tensor) -> tuple[Tensor, Tensor]:
        """Rows of boxes and points of the anchors that overlap each most."""
        overlap = box_iou(boxes, points.boxes)  # m l
        size = min(self.bag, overlap.shape[1])
        least = overlap.topk(size, dim=1, sorted=True).values[:, -1:]
        row, point = ((overlap >= least) & (overlap > 0)).nonzero(as_tuple=True)
        kept = rank_in_group(row, -overlap[row, point]) < size  # of those equal to the last the first
        return row[kept], point[kept]

    def _found(self, predicted: Tensor, boxes: Tensor, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Rows and points where a prediction `(n, l, 4)` finds a box, and the probability that it does.

        Two boxes that overlap by t or more: the centre of either lies inside the other, or beyond its edge by no more
        than `0.5 / t - 1` of its side. So only such centres are looked at, of all images at once, one above the other.
        """
        images, count = predicted.shape[:2]
        exact = torch.float32 if boxes.device.type == "mps" else torch.float64  # there is no float64 there
        flat, whole = predicted.flatten(0, 1).to(exact), boxes.to(exact)
        margin = (whole[:, 2:] - whole[:, :2]) * (max(0.5 / self.threshold - 1, 0.0) + 1e-3)
        wide = torch.cat((whole[:, :2] - margin, whole[:, 2:] + margin), dim=1)
        lowest, highest = (wide[:, 1].min(), wide[:, 3].max()) if len(wide) else (0.0, 0.0)
        x, y = ((flat[:, :2] + flat[:, 2:]) / 2).unbind(1)
        nowhere = ~((y > lowest) & (y < highest))  # NaN, too
        shift = torch.arange(images, device=boxes.device, dtype=exact) * (highest - lowest + 1)
        y = (y + shift.repeat_interleave(count)).masked_fill(nowhere, -torch.inf)
        raised = wide + torch.stack((torch.zeros_like(shift), shift), dim=1).repeat(1, 2)[image]
        row, place = pairs_inside(torch.stack((x, y), dim=1), raised)
        overlap = paired_iou(predicted.flatten(0, 1)[place].float(), boxes[row])
        held = overlap > self.threshold
        row, place, overlap = row[held], place[held], overlap[held]
        best = segment_max(overlap, row, segments=len(boxes))[row]
        share = (overlap - self.threshold) / (best - self.threshold)
        return row, place % count, share.clamp(max=1.0)
