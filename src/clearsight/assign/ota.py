"""OTA: points are dealt out to objects and background so that the whole image costs least."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from clearsight.assign.assignment import Assignment, Points, Predictions
from clearsight.assign.base import assigned_objects, background_weight, resolve_conflicts
from clearsight.assign.focal import finite, focal_of_no, focal_of_yes
from clearsight.assign.pairs import pairs_near
from clearsight.assign.sinkhorn import Supply, members, sinkhorn
from clearsight.errors import ConfigError
from clearsight.ops.boxes import paired_iou
from clearsight.types import Targets

__all__ = ["Convergence", "Ota"]


class Convergence(NamedTuple):
    """How far the transport got.

    Args:
        steps: that were made.
        error: `(n,)` of each image, the largest distance from 1 of what a point received.
    """

    steps: int
    error: Tensor


class Ota:
    """Optimal transport assignment.

    Objects and background supply labels to the points, of which each takes one. A label costs `focal loss of the
    classes + iou_weight * -log(IoU)` of the point's prediction with the object; background costs the focal loss of no
    class. An object supplies the sum of its `candidates` largest overlaps, rounded down, at least 1; background the
    rest. Of the transport, found by `steps` scalings with an entropy of `epsilon`, a point takes the supplier that
    gives it most, in shares of what that supplier gives to its best point.

    An object reaches the points inside its box within `centre_radius` strides of its centre (in x and in y). One that
    holds no such point, being smaller than a stride, reaches those within that radius; one far outside the grid none.

    Method: Ge et al. 2021, arXiv:2103.14259, sections 3.2 and 3.3, algorithm 1. The centre prior is that of the
    published code, but points out of reach are left out of the transport, not made dear: the paper's additional cost
    of such points has the same effect. Predicted overlaps have no part in it; the class target is 1.

    Args:
        candidates: overlaps that are summed for an object's number of labels.
        centre_radius: in strides of the point's level.
        iou_weight: factor of the overlap's cost.
        epsilon: of the entropy.
        steps: scalings.

    Raises:
        ConfigError: an argument is not above 0.
    """

    needs_predictions = True

    def __init__(
        self,
        *,
        candidates: int = 20,
        centre_radius: float = 2.5,
        iou_weight: float = 1.5,
        epsilon: float = 0.1,
        steps: int = 50,
    ) -> None:
        given = {"candidates": candidates, "centre_radius": centre_radius, "iou_weight": iou_weight}
        for name, value in (given | {"epsilon": epsilon, "steps": steps}).items():
            if not value > 0:
                raise ConfigError(f"ota: {name} must be above 0, got {value}")
        self.candidates = candidates
        self.centre_radius = centre_radius
        self.iou_weight = iou_weight
        self.epsilon = epsilon
        self.steps = steps

    def __call__(
        self, points: Points, targets: Targets, predictions: Predictions | None = None, *, images: int
    ) -> Assignment:
        """Assign; see `assign.base.Assigner`. The pairs have no `quality`."""
        return self.solve(points, targets, predictions, images=images)[0]

    @torch.no_grad()
    def solve(
        self, points: Points, targets: Targets, predictions: Predictions | None = None, *, images: int
    ) -> tuple[Assignment, Convergence]:
        """Assign, and say how well the transport converged."""
        if predictions is None:
            raise ConfigError("ota: assigns by what the model predicts, so predictions must be given, not None")
        usable = assigned_objects(targets)
        row, point = self._reach(points, targets.boxes[usable])
        object_, row = torch.unique_consecutive(usable[row], return_inverse=True)  # those that reach a point
        image = targets.image[object_]
        places, column = torch.unique(image[row] * len(points.xy) + point, return_inverse=True)
        column_image = places.div(len(points.xy), rounding_mode="floor")

        overlap = paired_iou(predictions.boxes.flatten(0, 1)[places].float()[column], targets.boxes[object_][row])
        overlap = overlap.nan_to_num(nan=0.0)
        class_cost, background = _class_cost(predictions, places, column, targets.labels[object_][row])
        supply = Supply(
            cost=finite(class_cost - self.iou_weight * torch.log(overlap + 1e-8)),
            row=row,
            column=column,
            amount=self._amount(row, overlap, objects=len(object_)),
            image=image,
            background=finite(background),
            column_image=column_image,
            free=len(points.xy) - torch.bincount(column_image, minlength=images),
        )
        plan = sinkhorn(supply, epsilon=self.epsilon, steps=self.steps)

        share, of_background = _shares(plan.pairs, plan.background, plan.free, supply)
        best = resolve_conflicts(column, -share)  # one for each column
        kept = best[share[best] >= of_background]
        place = places[column[kept]]
        assignment = Assignment(
            object=object_[row[kept]],
            point=point[kept],
            weight=torch.ones(len(kept), device=kept.device),
            background=background_weight(points, targets, place, images=images),
        )
        return assignment, Convergence(self.steps, plan.error)

    def _reach(self, points: Points, boxes: Tensor) -> tuple[Tensor, Tensor]:
        """Pairs of object and point that may be, by row and point."""
        row, point = pairs_near(points, boxes, self.centre_radius)
        xy, box = points.xy[point], boxes[row]
        within = ((xy > box[:, :2]) & (xy < box[:, 2:])).all(dim=1)
        holds = torch.bincount(row[within], minlength=len(boxes)) > 0
        kept = within | ~holds[row]
        return row[kept], point[kept]

    def _amount(self, row: Tensor, overlap: Tensor, *, objects: int) -> Tensor:
        """Labels that each object supplies, `(m,)` float: its largest overlaps summed, rounded down, at least 1."""
        if not objects:
            return overlap.new_zeros(0)
        table = torch.cat((overlap, overlap.new_zeros(1)))[members(row, groups=objects)]
        largest = table.topk(min(self.candidates, table.shape[1]), dim=1).values
        return largest.sum(dim=1).floor().clamp(min=1)


def _class_cost(predictions: Predictions, places: Tensor, column: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Focal loss against one-hot labels `(p,)`, and against no class `(c,)`, both summed over classes."""
    logits = predictions.logits.flatten(0, 1)[places].float()
    no = focal_of_no(logits)
    background = no.sum(dim=1)
    return background[column] - no[column, labels] + focal_of_yes(logits[column, labels]), background


def _shares(pairs: Tensor, background: Tensor, free: Tensor, supply: Supply) -> tuple[Tensor, Tensor]:
    """Logarithms of the amounts `(p,)` and `(c,)` relative to the largest that the same supplier gives to a point."""
    if not len(pairs):
        return pairs, background
    none = pairs.new_tensor([-torch.inf])
    most = torch.cat((pairs, none))[members(supply.row, groups=len(supply.amount))].amax(dim=1)
    of_columns = torch.cat((background, none))[members(supply.column_image, groups=len(free))].amax(dim=1)
    of_background = torch.where(supply.free > 0, torch.maximum(of_columns, free), of_columns)
    return pairs - most[supply.row], background - of_background[supply.column_image]
