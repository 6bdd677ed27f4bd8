"""YOLOv3's three loss terms, for any assigner."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clearsight.assign.assignment import Assignment, Points, Predictions
from clearsight.assign.base import Assigner
from clearsight.assign.shape_ratio import ShapeRatio
from clearsight.errors import ConfigError, nearest
from clearsight.losses.checks import trace_nan
from clearsight.models.detect.bag_terms import bag_terms, joint_logits
from clearsight.models.detect.yolov3_head import decode_boxes
from clearsight.nn.parallel import mean_over_processes
from clearsight.nn.precision import at_least_float32
from clearsight.ops.boxes import OVERLAPS, paired_iou
from clearsight.types import Targets

__all__ = ["YoloV3Loss"]


class YoloV3Loss(nn.Module):
    """An overlap loss of the boxes, and cross-entropy of the objectness of all anchors and of the positives' classes.

    The objectness of a positive anchor is to be the overlap (IoU) of its box, as it is decoded now, with its object; no
    gradient goes through that number. An assigner's `quality` takes its place, and its `weight` is that of all three
    terms. Each is divided by the number of positives of the batch (averaged over processes, so that two processes at
    half the batch each equal one).

    Method: the YOLOv5 project (2020), which has no paper, and whose target is the CIoU; the weights are those of YOLOX
    (Ge et al. 2021, arXiv:2107.08430) in its published code, which divides in the same way. Differs from Redmon and
    Farhadi 2018, arXiv:1804.02767, sections 2.1 and 2.2: there the squared error of the codes takes the place of the
    overlap loss, one anchor answers for an object, its objectness is to be 1, and an anchor whose box overlaps an
    object by more than 0.5 is no background. The independent yes or no of each class is the paper's.

    With an assigner that gives objects bags of points (FreeAnchor, AutoAssign) the terms are those of
    `models.detect.bag_terms` with the products of objectness and class, and the three weights are without effect.

    Args:
        assigner: which anchors answer for which objects; None for `ShapeRatio()`. Assigners that look at predictions
            are given the products of objectness and class. One with parameters is trained and saved with the model.
            What it asks of an anchor may be out of reach, see `decode_boxes`.
        box_loss: 1 less the `iou`, `giou`, `diou` or `ciou`.
        box_weight: factor of the term, at least 0.
        objectness_weight: factor of the term, at least 0.
        class_weight: factor of the term, at least 0.

    Raises:
        ConfigError: there is no such box loss, or a weight is negative.
    """

    def __init__(
        self,
        *,
        assigner: Assigner | None = None,
        box_loss: Literal["iou", "giou", "diou", "ciou"] = "ciou",
        box_weight: float = 5.0,
        objectness_weight: float = 1.0,
        class_weight: float = 1.0,
    ) -> None:
        super().__init__()
        if box_loss not in OVERLAPS:
            raise ConfigError(f"box_loss: there is none named {box_loss!r}{nearest(box_loss, OVERLAPS)}")
        weights = {"box_weight": box_weight, "objectness_weight": objectness_weight, "class_weight": class_weight}
        for name, value in weights.items():
            if not value >= 0:
                raise ConfigError(f"{name}: must be at least 0, got {value}")
        self.assigner: Assigner = ShapeRatio() if assigner is None else assigner
        self.box_loss = box_loss
        self.box_weight = box_weight
        self.objectness_weight = objectness_weight
        self.class_weight = class_weight

    def forward(
        self, logits: Tensor, codes: Tensor, objectness: Tensor, points: Points, targets: Targets
    ) -> dict[str, Tensor]:
        """All terms.

        Args:
            logits: `(n, l, k)` of the classes.
            codes: `(n, l, 4)`, see `decode_boxes`.
            objectness: `(n, l)` logits.
            points: l anchors.
            targets: of the batch.

        Returns:
            `box`, `objectness` and `class`, scalars in float32; of an assigner with bags `bag` and `background`.
        """
        found = self.assigner(points, targets, self._predictions(logits, codes, objectness, points), images=len(logits))
        image, point, truth = targets.image[found.object], found.point, targets.boxes[found.object]
        boxes = decode_boxes(
            at_least_float32(codes[image, point]), points.xy[point], points.stride[point], points.boxes[point]
        )
        box_losses = 1 - OVERLAPS[self.box_loss](boxes, truth)
        if found.combine != "each":
            return bag_terms(found, targets, joint_logits(logits, objectness), box_losses)
        share = 1 / mean_over_processes(found.weight.sum()).clamp(min=1)
        box_loss = trace_nan((box_losses * found.weight).sum() * share, boxes=truth, weight=found.weight)
        quality = paired_iou(boxes.detach(), truth) if found.quality is None else found.quality
        wanted = F.one_hot(targets.labels[found.object], logits.shape[-1])
        own = at_least_float32(logits[image, point])
        entropy = F.binary_cross_entropy_with_logits(own, wanted.to(own.dtype), reduction="none").sum(dim=1)
        return {
            "box": self.box_weight * box_loss,
            "objectness": self.objectness_weight * share * _objectness(objectness, found, image, quality),
            "class": self.class_weight * share * (entropy * found.weight).sum(),
        }

    @torch.no_grad()
    def _predictions(self, logits: Tensor, codes: Tensor, objectness: Tensor, points: Points) -> Predictions | None:
        """What assigners look at."""
        if not self.assigner.needs_predictions:
            return None
        boxes = decode_boxes(codes.float(), points.xy, points.stride, points.boxes)
        return Predictions(joint_logits(logits, objectness), boxes)


def _objectness(logits: Tensor, found: Assignment, image: Tensor, quality: Tensor) -> Tensor:
    """Sum of the cross-entropies of all anchors, a positive one's against its quality and by its weight.

    Args:
        logits: `(n, l)`.
        found: the assignment.
        image: `(p,)` of its pairs.
        quality: `(p,)` in [0, 1].
    """
    x = at_least_float32(logits)
    wanted, weight = torch.zeros_like(x), found.background.to(x.dtype, copy=True)
    wanted[image, found.point] = quality.to(x.dtype)
    weight[image, found.point] = found.weight.to(x.dtype)
    return F.binary_cross_entropy_with_logits(x, wanted, weight, reduction="sum")
