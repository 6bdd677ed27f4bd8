"""AutoAssign: every point inside an object may answer for it; how much is learned."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from clearsight.assign.assignment import Assignment, BagOptions, Points, Predictions
from clearsight.assign.base import assigned_objects, background_weight
from clearsight.assign.held import pairs_held
from clearsight.errors import ConfigError
from clearsight.ops.boxes import paired_iou
from clearsight.ops.segments import segment_max
from clearsight.types import Targets

__all__ = ["AutoAssign"]

LEAST_LOG_PRIOR = -60.0  # e^-60: far from an object's centre the prior is small, but never 0 in float32
CLOSEST = 1e-12  # least distance of an overlap from 1, as in the published code


class AutoAssign(nn.Module):
    """Differentiable label assignment.

    The bag of an object holds the points inside its box. The prior weight of a point d strides of its level away from
    the centre is `exp(-Σ (d - mean)² / (2 sigma²))`, over x and y, with a mean and a sigma for each class that are
    learned. With the weights goes the points' confidence, see `models.detect.bag_terms`. The weight of the background
    for the class of the object is 1 less `1 / (1 - IoU)` of prediction and object, brought to the range from 0 to 1
    over the points of the object.

    Method: Zhu et al. 2020, arXiv:2007.03496, equations 5 to 10, with the published code's values of COCO. Differs from
    the paper: sigma is learned as a logarithm, so that it stays above 0 and a decay of the weights draws it to 1; an
    object that holds no point, being smaller than a stride, has those within a stride of its centre; the prior is at
    least e^-60; where objects of one class share a point, the smallest weight of the background counts (in the
    published code the last); the published code's extra term that keeps the priors wide is left out. The implicit
    objectness is a matter of the head: one that has none does without, one that has a further factor of its scores
    gives `models.detect.bag_terms.joint_logits`.

    Args:
        num_classes: k.
        box_weight: λ, factor of the box loss in the likelihood.
        alpha: share of the objects' term, in [0, 1].
        gamma: of the background's focal loss, at least 0.
        temperature: τ of the confidence, above 0.

    Raises:
        ConfigError: an argument is out of range.

    Attributes:
        mean: `(k, 2)` learned, strides in x and y.
        log_sigma: `(k, 2)` learned, logarithm of strides.
    """

    needs_predictions = True

    def __init__(
        self,
        num_classes: int,
        *,
        box_weight: float = 5.0,
        alpha: float = 0.25,
        gamma: float = 2.0,
        temperature: float = 1 / 3,
    ) -> None:
        super().__init__()
        if num_classes < 1 or not box_weight > 0 or not temperature > 0:
            raise ConfigError(
                "auto_assign: num_classes, box_weight and temperature must be above 0, "
                f"got {num_classes}, {box_weight} and {temperature}"
            )
        if not 0 <= alpha <= 1 or not gamma >= 0:
            raise ConfigError(f"auto_assign: alpha must be in [0, 1] and gamma at least 0, got {alpha} and {gamma}")
        self.options = BagOptions(box_weight=box_weight, alpha=alpha, gamma=gamma, temperature=temperature)
        self.mean = nn.Parameter(torch.zeros(num_classes, 2))
        self.log_sigma = nn.Parameter(torch.zeros(num_classes, 2))

    def forward(
        self, points: Points, targets: Targets, predictions: Predictions | None = None, *, images: int
    ) -> Assignment:
        """Assign bags; see `assign.base.Assigner`. The weights carry gradient to the prior; the predictions none."""
        if predictions is None:
            raise ConfigError("auto_assign: looks at what the model predicts, so predictions must be given, not None")
        usable = assigned_objects(targets)
        row, point = pairs_held(points, targets.boxes[usable])
        object_ = usable[row]
        return Assignment(
            object=object_,
            point=point,
            weight=self._prior(points, targets, object_, point),
            background=background_weight(points, targets, row[:0], images=images),
            combine="confidence",
            class_background=_background(predictions, targets, object_, point),
            bag=self.options,
        )

    def _prior(self, points: Points, targets: Targets, object_: Tensor, point: Tensor) -> Tensor:
        """The centre prior of each pair."""
        box, label = targets.boxes[object_], targets.labels[object_]
        step = (points.xy[point] - (box[:, :2] + box[:, 2:]) / 2) / points.stride[point, None]
        exponent = -((step - self.mean[label]) ** 2) / (2 * (2 * self.log_sigma[label]).exp())
        return exponent.sum(dim=1).clamp(min=LEAST_LOG_PRIOR).exp()


@torch.no_grad()
def _background(predictions: Predictions, targets: Targets, object_: Tensor, point: Tensor) -> Tensor:
    """What each pair leaves to the background; a point that is alone in its bag, or like all others, leaves nothing."""
    objects = len(targets.labels)
    overlap = paired_iou(predictions.boxes[targets.image[object_], point].float(), targets.boxes[object_])
    strength = 1 / (1 - overlap.nan_to_num(nan=0.0)).clamp(min=CLOSEST)
    most = segment_max(strength, object_, segments=objects)[object_]
    least = -segment_max(-strength, object_, segments=objects)[object_]
    return torch.where(most > least, (most - strength) / (most - least), 0.0)
