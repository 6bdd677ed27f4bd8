"""SimOTA: each object takes as many of its cheapest points as its predictions already overlap it."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from clearsight.assign.assignment import Assignment, Points, Predictions
from clearsight.assign.base import (
    assigned_objects,
    background_weight,
    inside,
    rank_in_group,
    resolve_conflicts,
)
from clearsight.errors import ConfigError
from clearsight.ops.boxes import paired_iou
from clearsight.types import Targets

__all__ = ["SimOta"]

OUTSIDE_PENALTY = 1e4  # above any other cost, so that points both inside and central come first; float32 keeps 1e-3


class SimOta:
    """Simplified optimal transport assignment.

    Candidates of an object are the points inside its box or within `centre_radius` strides of its centre (in x and in
    y). The cost of a pair is `class_weight * BCE(class probabilities, one-hot) + iou_weight * -log(IoU)`, and 1e4 more
    for a point that is not both inside and central. An object takes its k cheapest candidates, where k is the sum of
    its `candidates` largest overlaps, rounded down, at least 1. A point that several objects of an image take goes to
    the one where it costs least.

    Method: Ge et al. 2021 (YOLOX), arXiv:2107.08430, section 2.1. Differs from the published code: the class
    probability has no objectness factor (the heads here have none); an object meets its own candidates only, not those
    of its neighbours; a contested point goes to the cheapest of the objects that took it rather than of all objects;
    the pairs are a sparse list, so that the cost is computed for candidates alone and for the whole batch at once.

    Args:
        candidates: overlaps that are summed for an object's number of points.
        centre_radius: in strides of the point's level.
        iou_weight: factor of the overlap's cost.
        class_weight: factor of the class cost.
    """

    needs_predictions = True

    def __init__(
        self,
        *,
        candidates: int = 10,
        centre_radius: float = 2.5,
        iou_weight: float = 3.0,
        class_weight: float = 1.0,
    ) -> None:
        self.candidates = candidates
        self.centre_radius = centre_radius
        self.iou_weight = iou_weight
        self.class_weight = class_weight

    @torch.no_grad()
    def __call__(
        self, points: Points, targets: Targets, predictions: Predictions | None = None, *, images: int
    ) -> Assignment:
        """Assign; see `assign.base.Assigner`. The pairs' `quality` is the overlap of prediction and object."""
        if predictions is None:
            raise ConfigError("simota: assigns by what the model predicts, so predictions must be given, not None")
        usable = assigned_objects(targets)
        boxes = targets.boxes[usable]
        central = self._central(points, boxes)
        within = inside(points.xy, boxes)
        row, point = (central | within).nonzero(as_tuple=True)
        both = (central & within)[row, point]
        object_ = usable[row]
        image = targets.image[object_]

        overlap = paired_iou(predictions.boxes[image, point].float(), boxes[row])
        cost = (
            self.class_weight * _class_cost(predictions.logits[image, point].float(), targets.labels[object_])
            - self.iou_weight * torch.log(overlap + 1e-8)
            + OUTSIDE_PENALTY * ~both
        )
        wanted = self._wanted(row, overlap, objects=len(usable))
        taken = (rank_in_group(row, cost) < wanted[row]).nonzero().squeeze(1)
        place = image[taken] * len(points.xy) + point[taken]
        kept = taken[resolve_conflicts(place, cost[taken])]
        return Assignment(
            object=object_[kept],
            point=point[kept],
            weight=torch.ones_like(overlap[kept]),
            background=background_weight(points, targets, image[kept] * len(points.xy) + point[kept], images=images),
            quality=overlap[kept],
        )

    def _central(self, points: Points, boxes: Tensor) -> Tensor:
        """Which points lie near which objects' centres, `(m, l)` bool."""
        centre = (boxes[:, :2] + boxes[:, 2:]) / 2
        reach = self.centre_radius * points.stride
        near_x = (points.xy[:, 0] - centre[:, None, 0]).abs() < reach
        near_y = (points.xy[:, 1] - centre[:, None, 1]).abs() < reach
        return near_x & near_y

    def _wanted(self, row: Tensor, overlap: Tensor, *, objects: int) -> Tensor:
        """Number of points of each object, `(m,)` int64: its largest overlaps summed, rounded down, at least 1."""
        rank = rank_in_group(row, -overlap)
        best = rank < self.candidates
        largest = overlap.new_zeros((objects, self.candidates))
        largest[row[best], rank[best]] = overlap[best]  # a table instead of a scatter-add: one order of summation
        return largest.sum(dim=1).long().clamp(min=1)


def _class_cost(logits: Tensor, labels: Tensor) -> Tensor:
    """Binary cross-entropy against one-hot labels, summed over classes: `(p, k)`, `(p,)` → `(p,)`."""
    return F.softplus(logits).sum(dim=1) - logits.gather(1, labels[:, None]).squeeze(1)
