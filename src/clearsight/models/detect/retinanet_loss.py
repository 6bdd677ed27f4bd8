"""RetinaNet's two loss terms, for any assigner."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clearsight.assign import Assigner, MaxIou
from clearsight.assign.assignment import Assignment, Points, Predictions
from clearsight.errors import RangeError
from clearsight.losses.box import giou_loss, l1_loss, smooth_l1_loss
from clearsight.losses.focal import sigmoid_focal_loss
from clearsight.models.detect.bag_terms import bag_terms
from clearsight.models.detect.dense import class_targets
from clearsight.nn.parallel import mean_over_processes
from clearsight.nn.precision import at_least_float32
from clearsight.ops.box_codes import decode_deltas, encode_deltas
from clearsight.ops.boxes import paired_giou
from clearsight.types import Targets

__all__ = ["RetinaNetLoss"]


class RetinaNetLoss(nn.Module):
    """Focal loss of the classes and a loss of the boxes, each divided by the number of positives.

    With an assigner that gives objects bags of points (FreeAnchor, AutoAssign) the terms are those of
    `models.detect.bag_terms`, with the assigner's numbers; `alpha`, `gamma` and `normalise` are then without effect.

    Args:
        assigner: which anchors answer for which objects; None for `MaxIou()`. One with parameters is trained and saved
            with the model; others leave no trace in the state dict.
        box_loss: on deltas (`l1`, `smooth_l1`) or on boxes (`giou`).
        alpha: of the focal loss.
        gamma: of the focal loss.
        normalise: `batch` divides the sums of a batch by its positives (averaged over processes, so that two processes
            at half the batch each equal one); `image` divides each image's sums by its own positives and averages over
            images, as torchvision does.
        beta: where `smooth_l1` bends.

    Raises:
        RangeError: `beta` is not above 0.
    """

    def __init__(
        self,
        *,
        assigner: Assigner | None = None,
        box_loss: Literal["l1", "smooth_l1", "giou"] = "l1",
        alpha: float = 0.25,
        gamma: float = 2.0,
        normalise: Literal["batch", "image"] = "batch",
        beta: float = 1.0,
    ) -> None:
        super().__init__()
        if beta <= 0:
            raise RangeError(f"beta: must be above 0, got {beta}")
        self.assigner: Assigner = MaxIou() if assigner is None else assigner
        self.box_loss = box_loss
        self.alpha = alpha
        self.gamma = gamma
        self.normalise = normalise
        self.beta = beta

    def forward(self, logits: Tensor, deltas: Tensor, points: Points, targets: Targets) -> dict[str, Tensor]:
        """Both terms.

        Args:
            logits: `(n, l, k)`.
            deltas: `(n, l, 4)`.
            points: l anchors.
            targets: of the batch.

        Returns:
            `class` and `box`, scalars in float32; of an assigner with bags `bag` and `background`.
        """
        predictions = None
        if self.assigner.needs_predictions:
            with torch.no_grad():
                predictions = Predictions(logits, decode_deltas(deltas.float(), points.boxes))
        found = self.assigner(points, targets, predictions, images=len(logits))
        image = targets.image[found.object]
        pairs = at_least_float32(deltas[image, found.point])
        anchors, boxes = points.boxes[found.point], targets.boxes[found.object]
        if found.combine != "each":
            return bag_terms(found, targets, logits, self._each_box(pairs, anchors, boxes))
        share = 1 / self._normaliser(found, image)  # n
        wanted, weight = class_targets(found, targets, classes=logits.shape[-1])
        class_loss = sigmoid_focal_loss(
            logits, wanted, alpha=self.alpha, gamma=self.gamma, weight=(weight * share[:, None])[..., None]
        )
        return {"class": class_loss, "box": self._box(pairs, anchors, boxes, weight=found.weight * share[image])}

    def _normaliser(self, found: Assignment, image: Tensor) -> Tensor:
        """What each image's sums are divided by, `(n,)` float32."""
        images = len(found.background)
        if self.normalise == "image":
            counts = torch.bincount(image, minlength=images)
            return counts.clamp(min=1).float() * images
        positives = mean_over_processes(found.weight.sum()).clamp(min=1)
        return positives.expand(images)

    def _box(self, deltas: Tensor, anchors: Tensor, boxes: Tensor, *, weight: Tensor) -> Tensor:
        if self.box_loss == "giou":
            return giou_loss(decode_deltas(deltas, anchors), boxes, weight=weight)
        wanted = encode_deltas(boxes, anchors)
        if self.box_loss == "l1":
            return l1_loss(deltas, wanted, weight=weight)
        return smooth_l1_loss(deltas, wanted, beta=self.beta, weight=weight)

    def _each_box(self, deltas: Tensor, anchors: Tensor, boxes: Tensor) -> Tensor:
        """The box loss of each pair, `(p,)`."""
        if self.box_loss == "giou":
            return 1 - paired_giou(decode_deltas(deltas, anchors), boxes)
        wanted = encode_deltas(boxes, anchors).to(deltas.dtype)
        if self.box_loss == "l1":
            return F.l1_loss(deltas, wanted, reduction="none").sum(dim=-1)
        return F.smooth_l1_loss(deltas, wanted, beta=self.beta, reduction="none").sum(dim=-1)
