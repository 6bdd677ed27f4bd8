"""ATSS: the overlap that makes a point positive adapts to each object."""

from __future__ import annotations

import torch
from torch import Tensor

from clearsight.assign.base import assigned_objects, background_weight, inside, resolve_conflicts
from clearsight.ops.boxes import paired_iou
from clearsight.types import Assignment, Points, Predictions, Targets

__all__ = ["Atss"]


class Atss:
    """Adaptive training sample selection.

    Candidates of an object are the `candidates` locations of each level nearest to its centre (with all the anchors
    that stand there). Among them, an anchor is positive when its overlap reaches the mean plus the standard deviation
    of all candidates' overlaps and its location lies inside the object. An anchor that several objects of an image
    claim goes to the one it overlaps most.

    Method: Zhang et al. 2020, arXiv:1912.02424, algorithm 1. Details as in the published code where the paper is
    silent: the deviation is the unbiased one, and with several anchors a location the number of candidates grows alike.
    Of equally near locations the first in row order is taken.

    Args:
        candidates: nearest locations a level and object.
    """

    needs_predictions = False

    def __init__(self, *, candidates: int = 9) -> None:
        self.candidates = candidates

    @torch.no_grad()
    def __call__(
        self, points: Points, targets: Targets, predictions: Predictions | None = None, *, images: int
    ) -> Assignment:
        """Assign; see `assign.base.Assigner`. Predictions are not looked at; the pairs have no `quality`."""
        usable = assigned_objects(targets)
        boxes = targets.boxes[usable]
        candidate = self._nearest(points, boxes)  # m c
        overlap = paired_iou(points.boxes[candidate], boxes[:, None])  # m c
        mean = overlap.mean(dim=1, keepdim=True)
        variance = ((overlap - mean) ** 2).sum(dim=1, keepdim=True) / max(overlap.shape[1] - 1, 1)
        threshold = mean + variance.sqrt()
        within = inside(points.xy, boxes).gather(1, candidate)
        row, column = ((overlap >= threshold) & within).nonzero(as_tuple=True)
        point = candidate[row, column]
        place = targets.image[usable][row] * len(points.xy) + point
        kept = resolve_conflicts(place, -overlap[row, column])
        return Assignment(
            object=usable[row[kept]],
            point=point[kept],
            weight=torch.ones(len(kept), device=point.device),
            background=background_weight(points, targets, place[kept], images=images),
        )

    def _nearest(self, points: Points, boxes: Tensor) -> Tensor:
        """Candidates of each object over all levels, `(m, c)` int64 indices of points."""
        centre = (boxes[:, :2] + boxes[:, 2:]) / 2
        found, start = [], 0
        for size in torch.unique_consecutive(points.level, return_counts=True)[1].tolist():
            xy = points.xy[start : start + size]
            anchors = int((xy == xy[0]).all(dim=1).sum())  # a location's anchors stand next to each other
            distance = ((xy[None, ::anchors] - centre[:, None]) ** 2).sum(dim=-1)  # m locations
            nearest = distance.argsort(dim=1, stable=True)[:, : self.candidates]
            anchor = torch.arange(anchors, device=xy.device)
            found.append(start + (nearest[:, :, None] * anchors + anchor).flatten(1))
            start += size
        return torch.cat(found, dim=1)
