"""One point for each object: the nearest to its centre, on the level for its size."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from clearsight.assign.assignment import Assignment, Points, Predictions
from clearsight.assign.base import assigned_objects, background_weight, resolve_conflicts
from clearsight.assign.level_grid import LevelGrid, level_grids
from clearsight.errors import ConfigError
from clearsight.types import Targets

__all__ = ["NearestPoints"]

SMALLEST_SIDE = 1e-6  # pixels; of an object without a width or height


class NearestPoints:
    """Each object takes the point nearest to its centre, on one level.

    The level is the last whose stride is at most `sqrt(w h) / scale`, the first for objects too small for any: with
    strides that are powers of two `floor(log2(sqrt(w h) / scale))`. Of equally near points the first in row order is
    taken. A point that several objects of an image take goes to the one whose centre is nearest in that object's own
    widths and heights, of equals to the first; the others then have none.

    Method: Yang et al. 2019 (RepPoints), arXiv:1904.11490, section 4.2; how ties between objects are settled is that of
    the authors' code, as is the bound of a side at 1e-6 pixels.

    Args:
        scale: strides that an object of a level measures at least.

    Raises:
        ConfigError: the scale is not above 0.
    """

    needs_predictions = False

    def __init__(self, *, scale: float = 4.0) -> None:
        if not 0 < scale < math.inf:
            raise ConfigError(f"nearest_points: scale must be above 0 strides, got {scale}")
        self.scale = scale

    @torch.no_grad()
    def __call__(
        self, points: Points, targets: Targets, predictions: Predictions | None = None, *, images: int
    ) -> Assignment:
        """Assign; see `assign.base.Assigner`. Predictions are not looked at; the pairs have no `quality`."""
        usable = assigned_objects(targets)
        boxes = targets.boxes[usable].to(points.xy.dtype)
        centre = (boxes[:, :2] + boxes[:, 2:]) / 2
        sides = (boxes[:, 2:] - boxes[:, :2]).clamp(min=SMALLEST_SIDE)
        grids = level_grids(points)
        strides = torch.stack([points.stride[grid.start] for grid in grids])
        fits = self.scale * strides[1:] <= sides.prod(dim=1, keepdim=True).sqrt()  # m levels
        level = fits.cumprod(dim=1).sum(dim=1)
        nearest = torch.stack([_nearest(points.xy, grid, centre) for grid in grids], dim=1)  # m levels
        point = nearest.gather(1, level[:, None]).squeeze(1)
        away = ((points.xy[point] - centre) / sides).square().sum(dim=1)
        place = targets.image[usable] * len(points.xy) + point
        kept = resolve_conflicts(place, away)
        return Assignment(
            object=usable[kept],
            point=point[kept],
            weight=torch.ones(len(kept), device=point.device),
            background=background_weight(points, targets, place[kept], images=images),
        )


def _nearest(xy: Tensor, grid: LevelGrid, centre: Tensor) -> Tensor:
    """The point of a level nearest to each centre, the first of equals: `(m,)` int64.

    On a grid that is the nearest column's of the nearest row; elsewhere all points of the level are looked at.
    """
    own = xy[grid.start : grid.start + grid.size : grid.anchors]
    if grid.columns:
        column = (own[: grid.columns, 0] - centre[:, :1]).abs().argmin(dim=1)
        row = (own[:: grid.columns, 1] - centre[:, 1:]).abs().argmin(dim=1)
        place = row * grid.columns + column
    else:
        place = (own - centre[:, None]).square().sum(dim=2).argmin(dim=1)
    return grid.start + place * grid.anchors
