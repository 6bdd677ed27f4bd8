"""RepPoints' three loss terms: the classes, and the boxes of the first and of the second points."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clearsight.assign.assignment import Assignment, Points, Predictions
from clearsight.assign.base import Assigner
from clearsight.assign.nearest_points import NearestPoints
from clearsight.assign.predicted_iou import PredictedIou
from clearsight.errors import ConfigError
from clearsight.losses.box import smooth_l1_loss
from clearsight.losses.focal import sigmoid_focal_loss
from clearsight.models.detect.bag_terms import bag_terms
from clearsight.models.detect.dense import class_targets
from clearsight.nn.parallel import mean_over_processes
from clearsight.nn.precision import at_least_float32
from clearsight.types import Targets

__all__ = ["RepPointsLoss", "box_offsets", "offset_boxes"]

SCALE = 4.0  # strides that box differences are measured in
BEND = 1 / 9  # of the smooth absolute difference, in these units


class RepPointsLoss(nn.Module):
    """Focal loss of the classes, smooth absolute differences of both stages' boxes in units of 4 strides.

    The first points learn from the objects whose centres are nearest (`assign.nearest_points`). Classes and second
    points learn from the pairs of `assigner`, which is shown the boxes of the first points: these are what the features
    were sampled on. Each term is divided by the number of its stage's positives in the batch (averaged over processes,
    so that two processes at half the batch each equal one).

    Method: Yang et al. 2019, arXiv:1904.11490, section 4; units, bend and weights as in the authors' code. Differs from
    that: positives are counted over the batch, not as one at least in each image. An assigner's `quality` becomes the
    target of the class score, its `weight` that of the class and second terms. With an assigner that gives objects bags
    of points (FreeAnchor, AutoAssign) these two terms are those of `models.detect.bag_terms`; `alpha`, `gamma` and
    `refine_weight` are then without effect.

    Args:
        assigner: of the classes and the second points; None for `PredictedIou()`. One with parameters is trained and
            saved with the model; others leave no trace in the state dict.
        alpha: of the focal loss.
        gamma: of the focal loss.
        first_weight: of the first points' term.
        refine_weight: of the second points' term.

    Raises:
        ConfigError: a weight is negative.
    """

    def __init__(
        self,
        *,
        assigner: Assigner | None = None,
        alpha: float = 0.25,
        gamma: float = 2.0,
        first_weight: float = 0.5,
        refine_weight: float = 1.0,
    ) -> None:
        super().__init__()
        if min(first_weight, refine_weight) < 0:
            raise ConfigError(
                f"first_weight, refine_weight: must be at least 0, got {first_weight} and {refine_weight}"
            )
        self.first_assigner = NearestPoints(scale=SCALE)
        self.assigner: Assigner = PredictedIou() if assigner is None else assigner
        self.alpha = alpha
        self.gamma = gamma
        self.first_weight = first_weight
        self.refine_weight = refine_weight

    def forward(
        self, logits: Tensor, first: Tensor, refined: Tensor, points: Points, targets: Targets
    ) -> dict[str, Tensor]:
        """All terms.

        Args:
            logits: `(n, l, k)`.
            first: `(n, l, 4)` boxes of the first points, xyxy in strides from their location.
            refined: `(n, l, 4)` boxes of the second points, likewise.
            points: l locations.
            targets: of the batch.

        Returns:
            `class`, `points_first` and `points_refined`, scalars in float32; of an assigner with bags `bag`,
            `background` and `points_first`.
        """
        images = len(logits)
        nearest = self.first_assigner(points, targets, images=images)
        points_first = self.first_weight * self._points(first, nearest, points, targets)
        predictions = None
        if self.assigner.needs_predictions:
            with torch.no_grad():
                predictions = Predictions(logits, offset_boxes(first.float(), points.xy, points.stride))
        found = self.assigner(points, targets, predictions, images=images)
        if found.combine != "each":
            predicted, wanted_box = _pairs(refined, found, points, targets)
            losses = F.smooth_l1_loss(predicted, wanted_box, beta=BEND, reduction="none").sum(dim=1)
            return {**bag_terms(found, targets, logits, losses), "points_first": points_first}
        wanted, weight = class_targets(found, targets, classes=logits.shape[-1])
        share = 1 / _positives(found)
        class_loss = sigmoid_focal_loss(
            logits, wanted, alpha=self.alpha, gamma=self.gamma, weight=(weight * share)[..., None]
        )
        points_refined = self.refine_weight * self._points(refined, found, points, targets)
        return {"class": class_loss, "points_first": points_first, "points_refined": points_refined}

    def _points(self, boxes: Tensor, found: Assignment, points: Points, targets: Targets) -> Tensor:
        """The term of one stage's boxes before its weight."""
        weight = found.weight / _positives(found)
        return smooth_l1_loss(*_pairs(boxes, found, points, targets), beta=BEND, weight=weight)


def offset_boxes(offsets: Tensor, xy: Tensor, stride: Tensor) -> Tensor:
    """Boxes given in strides from their locations, in pixels.

    Args:
        offsets: `(..., 4)` xyxy in strides from the location.
        xy: `(..., 2)` locations, pixels, broadcast with the offsets.
        stride: `(...)` pixels.

    Returns:
        `(..., 4)` xyxy pixels.
    """
    return offsets * stride[..., None] + torch.cat((xy, xy), dim=-1)


def box_offsets(boxes: Tensor, xy: Tensor, stride: Tensor) -> Tensor:
    """Inverse of `offset_boxes`.

    Args:
        boxes: `(..., 4)` xyxy pixels.
        xy: `(..., 2)` locations, pixels.
        stride: `(...)` pixels.

    Returns:
        `(..., 4)` in strides from the location.
    """
    return (boxes - torch.cat((xy, xy), dim=-1)) / stride[..., None]


def _pairs(boxes: Tensor, found: Assignment, points: Points, targets: Targets) -> tuple[Tensor, Tensor]:
    """Predicted and true boxes of the pairs, `(p, 4)` each, in units of 4 strides from the pair's location."""
    object_, point = found.object, found.point
    predicted = at_least_float32(boxes[targets.image[object_], point]) / SCALE
    truth = box_offsets(targets.boxes[object_], points.xy[point], points.stride[point]) / SCALE
    return predicted, truth.to(predicted.dtype)


def _positives(found: Assignment) -> Tensor:
    """What the sums of a batch are divided by."""
    return mean_over_processes(found.weight.sum()).clamp(min=1)
