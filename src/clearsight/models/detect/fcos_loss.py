"""FCOS' three loss terms, for any assigner."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clearsight.assign.assignment import Points, Predictions
from clearsight.assign.base import Assigner
from clearsight.assign.fcos import CentreSampling
from clearsight.errors import ConfigError, nearest
from clearsight.losses.checks import trace_nan
from clearsight.losses.focal import sigmoid_focal_loss
from clearsight.models.detect.bag_terms import bag_terms, joint_logits
from clearsight.models.detect.dense import class_targets
from clearsight.nn.parallel import mean_over_processes
from clearsight.nn.precision import at_least_float32
from clearsight.ops.box_codes import decode_distances
from clearsight.ops.boxes import OVERLAPS
from clearsight.types import Targets

__all__ = ["FcosLoss", "centreness"]


class FcosLoss(nn.Module):
    """Focal loss of the classes, an overlap loss of the boxes and cross-entropy of the centreness.

    Each is divided by the number of positives of the batch (averaged over processes, so that two processes at half the
    batch each equal one).

    Method: Tian et al. 2019, arXiv:1904.01355, equation 2, with the generalised IoU of the authors' later code and of
    torchvision in place of `-log IoU`. An assigner's `quality` becomes the target of the class score, its `weight` that
    of all three terms. With an assigner that gives objects bags of points (FreeAnchor, AutoAssign) the terms are those
    of `models.detect.bag_terms`, with the assigner's numbers, and the centreness is AutoAssign's implicit objectness:
    it learns through its product with the class scores alone; `alpha` and `gamma` are then without effect.

    Args:
        assigner: which points answer for which objects; None for `CentreSampling()`. One with parameters is trained and
            saved with the model; others leave no trace in the state dict.
        box_loss: 1 less the `iou`, `giou`, `diou` or `ciou`.
        alpha: of the focal loss.
        gamma: of the focal loss.

    Raises:
        ConfigError: there is no such box loss.
    """

    def __init__(
        self,
        *,
        assigner: Assigner | None = None,
        box_loss: Literal["iou", "giou", "diou", "ciou"] = "giou",
        alpha: float = 0.25,
        gamma: float = 2.0,
    ) -> None:
        super().__init__()
        if box_loss not in OVERLAPS:
            raise ConfigError(f"box_loss: there is none named {box_loss!r}{nearest(box_loss, OVERLAPS)}")
        self.assigner: Assigner = CentreSampling() if assigner is None else assigner
        self.box_loss = box_loss
        self.alpha = alpha
        self.gamma = gamma

    def forward(
        self, logits: Tensor, distances: Tensor, central: Tensor, points: Points, targets: Targets
    ) -> dict[str, Tensor]:
        """All terms.

        Args:
            logits: `(n, l, k)`.
            distances: `(n, l, 4)` in strides.
            central: `(n, l)` logits of the centreness.
            points: l points.
            targets: of the batch.

        Returns:
            `class`, `box` and `centreness`, scalars in float32; of an assigner with bags `bag` and `background`.
        """
        predictions = None
        if self.assigner.needs_predictions:
            with torch.no_grad():
                predictions = Predictions(logits, decode_distances(distances.float(), points.xy, points.stride))
        found = self.assigner(points, targets, predictions, images=len(logits))
        image = targets.image[found.object]
        xy, stride, truth = points.xy[found.point], points.stride[found.point], targets.boxes[found.object]
        boxes = decode_distances(at_least_float32(distances[image, found.point]), xy, stride)
        box_losses = 1 - OVERLAPS[self.box_loss](boxes, truth)
        if found.combine != "each":
            return bag_terms(found, targets, joint_logits(logits, central), box_losses)
        share = 1 / mean_over_processes(found.weight.sum()).clamp(min=1)
        wanted, weight = class_targets(found, targets, classes=logits.shape[-1])
        class_loss = sigmoid_focal_loss(
            logits, wanted, alpha=self.alpha, gamma=self.gamma, weight=(weight * share)[..., None]
        )
        logit = at_least_float32(central[image, found.point])
        ideal = centreness(truth, xy).to(logit.dtype)
        entropy = F.binary_cross_entropy_with_logits(logit, ideal, found.weight, reduction="sum")
        box_loss = trace_nan((box_losses * found.weight).sum() * share, boxes=truth, weight=found.weight)
        return {"class": class_loss, "box": box_loss, "centreness": entropy * share}


def centreness(boxes: Tensor, xy: Tensor) -> Tensor:
    """How central points lie in their boxes: 1 at the centre, 0 on the edge and outside.

    Method: Tian et al. 2019, arXiv:1904.01355, equation 3.

    Args:
        boxes: `(p, 4)` xyxy pixels.
        xy: `(p, 2)` pixels.

    Returns:
        `(p,)` in [0, 1].

    Example:
        >>> centreness(torch.tensor([[0.0, 0.0, 8.0, 8.0]]), torch.tensor([[2.0, 4.0]]))  # sqrt(2/6 * 4/4)
        tensor([0.5774])
    """
    before, after = xy - boxes[:, :2], boxes[:, 2:] - xy
    near, far = torch.minimum(before, after).clamp(min=0), torch.maximum(before, after)
    return (near / far.clamp(min=torch.finfo(far.dtype).tiny)).prod(dim=1).sqrt()
