"""PAA: the anchors that an object's predictions tell apart as good are positive."""

from __future__ import annotations

import torch
from torch import Tensor

from clearsight.assign.assignment import Assignment, Points, Predictions
from clearsight.assign.base import background_weight, rank_in_group
from clearsight.assign.focal import finite, focal_of_no, focal_of_yes
from clearsight.assign.max_iou import MaxIou
from clearsight.assign.two_gaussians import fit_two
from clearsight.errors import ConfigError
from clearsight.ops.boxes import paired_giou
from clearsight.types import Targets

__all__ = ["Paa"]


class Paa:
    """Probabilistic anchor assignment.

    Each anchor that overlaps an object by `iou` or more, and the best anchors of each object, go to the object that
    they overlap most. Of an object's anchors the `candidates` of least loss on each level stay, where the loss is the
    focal loss of the classes and `box_weight * (1 - GIoU)`. Two Gaussians are fitted to these losses. Positive are the
    candidates from the least loss up to the one where the density of both together is largest among those that belong
    to the Gaussian that began at the least loss; all are, where none belongs to it. Everything else is background.

    Method: Kim and Lee 2020, arXiv:2007.08103, sections 3.1 and 3.2, with the separation (c) of figure 3, which is the
    published code's: nothing is ignored. An object that no anchor touches has none. The class target is 1; votes of
    neighbouring boxes (section 3.4) are `ops.voting.vote_boxes`.

    Args:
        iou: least overlap of a candidate's anchor, in (0, 1].
        candidates: kept a level and object.
        box_weight: factor of the box loss (1 in the authors' code; 1.3 in others').

    Raises:
        ConfigError: an argument is out of range.
    """

    needs_predictions = True

    def __init__(self, *, iou: float = 0.1, candidates: int = 9, box_weight: float = 1.0) -> None:
        if not (0 < iou <= 1 and candidates >= 1 and box_weight >= 0):
            raise ConfigError(
                "paa: iou must be in (0, 1], candidates at least 1 and box_weight at least 0, "
                f"got {iou}, {candidates} and {box_weight}"
            )
        self.iou = iou
        self.candidates = candidates
        self.box_weight = box_weight

    @torch.no_grad()
    def __call__(
        self, points: Points, targets: Targets, predictions: Predictions | None = None, *, images: int
    ) -> Assignment:
        """Assign; see `assign.base.Assigner`. The pairs have no `quality`."""
        if predictions is None:
            raise ConfigError("paa: assigns by what the model predicts, so predictions must be given, not None")
        near = MaxIou(positive=self.iou, negative=self.iou)(points, targets, images=images)
        object_, point = near.object, near.point
        loss = self._loss(predictions, targets, object_, point)
        levels = int(points.level[-1]) + 1
        kept = (rank_in_group(object_ * levels + points.level[point], loss) < self.candidates).nonzero().squeeze(1)
        kept = kept[_chosen(object_[kept], loss[kept])]
        place = targets.image[object_[kept]] * len(points.xy) + point[kept]
        order = place.argsort()
        kept, place = kept[order], place[order]
        return Assignment(
            object=object_[kept],
            point=point[kept],
            weight=torch.ones(len(kept), device=kept.device),
            background=background_weight(points, targets, place, images=images),
        )

    def _loss(self, predictions: Predictions, targets: Targets, object_: Tensor, point: Tensor) -> Tensor:
        """What each pair's prediction costs, `(p,)`."""
        image, label = targets.image[object_], targets.labels[object_]
        logits = predictions.logits[image, point].float()
        hit = logits.gather(1, label[:, None]).squeeze(1)
        no = focal_of_no(logits)
        class_loss = no.sum(dim=1) - no.gather(1, label[:, None]).squeeze(1) + focal_of_yes(hit)
        giou = paired_giou(predictions.boxes[image, point].float(), targets.boxes[object_])
        return finite(class_loss + self.box_weight * (1 - giou))


def _chosen(object_: Tensor, loss: Tensor) -> Tensor:
    """Indices of the candidates that are positive, by object and loss."""
    if not len(object_):
        return object_
    found, group, count = object_.unique(return_inverse=True, return_counts=True)
    rank = rank_in_group(group, loss)
    table = torch.zeros((len(found), int(count.max())), dtype=torch.int64, device=loss.device)
    table[group, rank] = torch.arange(len(loss), device=loss.device)  # candidates of each object by rising loss
    number = torch.arange(table.shape[1], device=loss.device)
    valid = number < count[:, None]
    joint = fit_two(loss[table], valid).joint
    good = (joint[:, 0] >= joint[:, 1]) & valid
    density = torch.logsumexp(joint, dim=1).masked_fill(~good, -torch.inf)
    highest = density.argmax(dim=1)  # the first of equals
    last = torch.where(good.any(dim=1) & (count > 1), highest, count - 1)
    return table[number <= last[:, None]]
