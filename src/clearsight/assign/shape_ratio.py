"""Shape matching: anchors whose sides are not too unlike an object's, in the cells around its centre."""

from __future__ import annotations

import torch
from torch import Tensor

from clearsight.assign.assignment import Assignment, Points, Predictions
from clearsight.assign.base import assigned_objects, background_weight, resolve_conflicts
from clearsight.assign.pairs import pairs_near
from clearsight.errors import ConfigError
from clearsight.types import Targets

__all__ = ["ShapeRatio"]


class ShapeRatio:
    """Matching by the ratio of sides.

    An anchor is positive for an object when neither its width nor its height differs from the object's by a factor of
    `ratio` or more, either way round, and it stands in the cell that holds the object's centre or, with `neighbours`,
    in the nearest cell beside that one, in x and in y. A cell is a stride wide and has its point in the middle; what
    lies outside the grid is in the cell at its edge. Of several objects of an image an anchor takes the one whose shape
    is most like its own, of equals the first.

    Method: the matching of the YOLOv5 project (2020), which has no paper. Differs from it: there an anchor answers for
    all objects that match it, and a centre exactly between two cells has one of them twice; here an anchor has one
    object, and that centre is in the right or lower cell.

    Args:
        ratio: above 1.
        neighbours: see above; False takes the cell that holds the centre alone.

    Raises:
        ConfigError: the ratio is not above 1.
    """

    needs_predictions = False

    def __init__(self, *, ratio: float = 4.0, neighbours: bool = True) -> None:
        if not ratio > 1:
            raise ConfigError(f"shape_ratio: ratio must be above 1, got {ratio}")
        self.ratio = ratio
        self.neighbours = neighbours

    @torch.no_grad()
    def __call__(
        self, points: Points, targets: Targets, predictions: Predictions | None = None, *, images: int
    ) -> Assignment:
        """Assign; see `assign.base.Assigner`. Predictions are not looked at; the pairs have no `quality`."""
        usable = assigned_objects(targets)
        boxes = targets.boxes[usable]
        row, point = self._cells(points, boxes)
        sides, anchors = boxes[row], points.boxes[point]
        factor = (sides[:, 2:] - sides[:, :2]) / (anchors[:, 2:] - anchors[:, :2])
        unlike = torch.maximum(factor, 1 / factor).amax(dim=1)
        fits = (unlike < self.ratio) & (factor > 0).all(dim=1)  # an inverted box fits none
        row, point, unlike = row[fits], point[fits], unlike[fits]
        place = targets.image[usable][row] * len(points.xy) + point
        kept = resolve_conflicts(place, unlike)
        return Assignment(
            object=usable[row[kept]],
            point=point[kept],
            weight=torch.ones(len(kept), device=point.device),
            background=background_weight(points, targets, place[kept], images=images),
        )

    def _cells(self, points: Points, boxes: Tensor) -> tuple[Tensor, Tensor]:
        """Pairs of object and point that stand in the right place, level by level."""
        centres = ((boxes[:, :2] + boxes[:, 2:]) / 2).repeat(1, 2)
        rows, found, start = [], [], 0
        for size in torch.unique_consecutive(points.level, return_counts=True)[1].tolist():
            level = Points(*(part[start : start + size] for part in points))
            edge = torch.cat((level.xy.amin(dim=0), level.xy.amax(dim=0)))
            centre = centres.clamp(edge[:2].repeat(2), edge[2:].repeat(2))
            row, point = pairs_near(level, centre, 1.0)
            off = (centre[row, :2] - level.xy[point]) / level.stride[point, None]
            own = (off >= -0.5) & (off < 0.5)  # in x and in y
            taken = own.any(dim=1) if self.neighbours else own.all(dim=1)
            rows.append(row[taken])
            found.append(point[taken] + start)
            start += size
        return torch.cat(rows), torch.cat(found)
