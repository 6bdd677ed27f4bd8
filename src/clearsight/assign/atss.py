"""ATSS: the overlap that makes a point positive adapts to each object."""

from __future__ import annotations

import torch
from torch import Tensor

from clearsight.assign.assignment import Assignment, Points, Predictions
from clearsight.assign.base import assigned_objects, background_weight, resolve_conflicts
from clearsight.assign.level_grid import level_grids
from clearsight.ops.boxes import paired_iou
from clearsight.types import Targets

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
        boxes = targets.boxes[usable].to(points.boxes.dtype)
        candidate = self._nearest(points, boxes)  # m c
        overlap = paired_iou(points.boxes[candidate], boxes[:, None])  # m c
        mean = overlap.mean(dim=1, keepdim=True)
        variance = ((overlap - mean) ** 2).sum(dim=1, keepdim=True) / max(overlap.shape[1] - 1, 1)
        threshold = mean + variance.sqrt()
        x, y = points.xy[candidate].unbind(-1)
        left, top, right, bottom = boxes[:, :, None].unbind(1)
        within = (x > left) & (x < right) & (y > top) & (y < bottom)
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
        found = []
        for grid in level_grids(points):
            xy = points.xy[grid.start : grid.start + grid.size : grid.anchors]
            if grid.columns:
                nearest = _nearest_of_grid(xy, grid.columns, centre, self.candidates)
            else:
                nearest = _nearest_of_any(xy, centre, self.candidates)
            anchor = torch.arange(grid.anchors, device=xy.device)
            found.append(grid.start + (nearest[:, :, None] * grid.anchors + anchor).flatten(1))
        return torch.cat(found, dim=1)


def _nearest_of_any(xy: Tensor, centre: Tensor, count: int) -> Tensor:
    """The locations nearest to each centre, `(m, c)`, nearest first, the first of equals before the next."""
    distance = ((xy - centre[:, None]) ** 2).sum(dim=-1)  # m locations
    return distance.argsort(dim=1, stable=True)[:, :count]


def _nearest_of_grid(xy: Tensor, columns: int, centre: Tensor, count: int) -> Tensor:
    """`_nearest_of_any` on a grid: only the nearest columns and rows are looked at, one more of each than are wanted.

    Of a column that is left out no location is nearer than those of one row in all columns that are kept. So it can
    have a part only as an equal of the last wanted one, where that row's farthest is such an equal too; then, as after
    rounding far from the grid, all locations are looked at.
    """
    across = (xy[:columns, 0] - centre[:, :1]) ** 2  # m columns
    down = (xy[::columns, 1] - centre[:, 1:]) ** 2  # m rows
    count = min(count, len(xy))
    kept_x, kept_y = min(count + 1, columns), min(count + 1, down.shape[1])
    x = across.topk(kept_x, dim=1, largest=False).indices.sort(dim=1).values
    y = down.topk(kept_y, dim=1, largest=False).indices.sort(dim=1).values
    distance = across.gather(1, x)[:, None] + down.gather(1, y)[:, :, None]  # m rows columns
    nearest, order = distance.flatten(1).sort(dim=1, stable=True)
    order = order[:, :count]
    row = order.div(kept_x, rounding_mode="floor")
    found = y.gather(1, row) * columns + x.gather(1, order - row * kept_x)
    last = nearest[:, count - 1, None]
    unsure = torch.zeros_like(last, dtype=torch.bool)
    if kept_x < columns:
        unsure |= (distance.amax(dim=2) <= last).any(dim=1, keepdim=True)
    if kept_y < down.shape[1]:
        unsure |= (distance.amax(dim=1) <= last).any(dim=1, keepdim=True)
    unsure = unsure.squeeze(1).nonzero().squeeze(1)
    if len(unsure):
        found[unsure] = _nearest_of_any(xy, centre[unsure], count)
    return found
