"""SSD's two loss terms, for any assigner: of all the background only the hardest part is learned from."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

from clearsight.assign.assignment import Assignment, Points, Predictions
from clearsight.assign.base import Assigner
from clearsight.assign.multibox import MultiBox
from clearsight.errors import ConfigError
from clearsight.losses.box import smooth_l1_loss
from clearsight.nn.parallel import mean_over_processes
from clearsight.nn.precision import at_least_float32
from clearsight.ops.box_codes import decode_deltas, encode_deltas
from clearsight.types import Targets

__all__ = ["SsdLoss", "decode_boxes", "hardest_background"]

CODE = (0.1, 0.1, 0.2, 0.2)  # the deltas' unit, so that those of shifts and of sizes weigh alike


@dataclass(frozen=True, kw_only=True)
class SsdLoss:
    """Cross-entropy of positives and of the hardest background, and smooth L1 of the positives' deltas.

    Both are divided by the number of positives of the batch (averaged over processes).

    Method: Liu et al. 2016, arXiv:1512.02325, section 2.2, equations 1 to 3, and "hard negative mining". An assigner's
    `quality` q makes the target of a pair's scores q for its class and 1 - q for background.

    Args:
        assigner: which boxes answer for which objects.
        negatives: background boxes for each positive one of the same image.

    Raises:
        ConfigError: `negatives` is below 0.
    """

    assigner: Assigner = field(default_factory=MultiBox)
    negatives: float = 3.0

    def __post_init__(self) -> None:
        if not self.negatives >= 0:
            raise ConfigError(f"negatives: must be at least 0 for each positive, got {self.negatives}")

    def __call__(self, logits: Tensor, deltas: Tensor, points: Points, targets: Targets) -> dict[str, Tensor]:
        """Both terms.

        Args:
            logits: `(n, l, k + 1)`, the first of background.
            deltas: `(n, l, 4)`.
            points: l default boxes.
            targets: of the batch.

        Returns:
            `class` and `box`, scalars in float32.

        Raises:
            ConfigError: the assigner gives bags of points, whose loss needs a sigmoid for each class.
        """
        found = self.assigner(points, targets, self._predictions(logits, deltas, points), images=len(logits))
        if found.combine != "each":
            raise ConfigError(f"assigner: SSD's softmax takes no bags of points ({found.combine}); use one of pairs")
        image = targets.image[found.object]
        share = 1 / mean_over_processes(found.weight.sum()).clamp(min=1)
        chosen = hardest_background(logits, found, image, each=self.negatives)

        # softmax of the chosen rows alone: their gradient is one of a few hundred rows, not of all
        positive = F.log_softmax(at_least_float32(logits[image, found.point]), dim=-1)
        negative = F.log_softmax(at_least_float32(logits[chosen]), dim=-1)
        likelihood = positive.gather(1, targets.labels[found.object][:, None] + 1).squeeze(1)
        if found.quality is not None:
            likelihood = found.quality * likelihood + (1 - found.quality) * positive[:, 0]
        entropy = -(likelihood * found.weight).sum() - (negative[:, 0] * found.background[chosen]).sum()

        wanted = encode_deltas(targets.boxes[found.object], points.boxes[found.point]) / deltas.new_tensor(CODE).float()
        box_loss = smooth_l1_loss(at_least_float32(deltas[image, found.point]), wanted, weight=found.weight * share)
        return {"class": entropy * share, "box": box_loss}

    @torch.no_grad()
    def _predictions(self, logits: Tensor, deltas: Tensor, points: Points) -> Predictions | None:
        """What assigners look at: the logarithm of each class's odds, and boxes."""
        if not self.assigner.needs_predictions:
            return None
        odds = torch.logit(logits.float().softmax(dim=-1)[..., 1:], eps=1e-6)
        return Predictions(odds, decode_boxes(deltas, points.boxes))


@torch.no_grad()
def hardest_background(logits: Tensor, found: Assignment, image: Tensor, *, each: float) -> tuple[Tensor, Tensor]:
    """The background boxes that are taken for objects most, some for each positive box of the same image.

    Args:
        logits: `(n, l, k + 1)`, the first of background.
        found: the assignment.
        image: `(p,)` of its pairs.
        each: background boxes for each positive.

    Returns:
        Image and point of each, two of `(q,)`; an image without positives has none.
    """
    logits = at_least_float32(logits)
    loss = (logits.logsumexp(dim=-1) - logits[..., 0]) * found.background
    loss = loss.masked_fill(found.background == 0, -torch.inf)
    hardest, point = loss.sort(dim=1, descending=True, stable=True)
    wanted = torch.bincount(image, minlength=len(logits)) * each
    rank = torch.arange(loss.shape[1], device=loss.device)
    row, column = ((rank < wanted[:, None]) & (hardest > -torch.inf)).nonzero(as_tuple=True)
    return row, point[row, column]


def decode_boxes(deltas: Tensor, anchors: Tensor) -> Tensor:
    """Boxes of SSD's deltas, `(..., 4)` xyxy pixels.

    Args:
        deltas: `(..., 4)` in tenths and fifths of `ops.box_codes.decode_deltas`'.
        anchors: `(..., 4)` xyxy pixels.
    """
    return decode_deltas(deltas.float() * anchors.new_tensor(CODE), anchors)
