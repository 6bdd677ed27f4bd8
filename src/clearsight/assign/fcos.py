"""FCOS: points near an object's centre, on the level whose range of sizes fits, answer for it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from clearsight.assign.assignment import Assignment, Points, Predictions
from clearsight.assign.base import assigned_objects, background_weight, resolve_conflicts
from clearsight.assign.pairs import pairs_inside, pairs_near
from clearsight.errors import ConfigError
from clearsight.ops.boxes import box_area
from clearsight.types import Targets

__all__ = ["CentreSampling"]


class CentreSampling:
    """Centre sampling with a range of sizes for each level.

    A point is positive for an object when it lies strictly inside the box, less than `radius` strides of its level from
    the centre (in x and in y), and the farthest side of the box is more than 4 and less than 8 strides away: more than
    0 on the first level, any distance on the last. Of several objects of an image the one of the smallest area takes
    the point, of equals the first.

    Method: Tian et al. 2019, arXiv:1904.01355, section 3.2, with the centre sampling of arXiv:2006.09214, section 2.1.
    As torchvision: on levels of 8 to 128 pixels the ranges meet at 64, 128, 256 and 512, and a distance of exactly such
    a bound belongs to neither level (the paper would give it to both). Areas are compared as they are; torchvision
    compares `1e8 - area` in float32, which cannot tell areas that differ by less than 8 square pixels apart.

    Args:
        radius: in strides; None for the whole box, as in the first version of the paper.
        bounds: pixels at which the ranges of two neighbouring levels meet, rising, one fewer than there are levels;
            None for the strides' own.

    Raises:
        ConfigError: the radius is not above 0, or the bounds do not rise from above 0.
    """

    needs_predictions = False

    def __init__(self, *, radius: float | None = 1.5, bounds: Sequence[float] | None = None) -> None:
        if radius is not None and not radius > 0:
            raise ConfigError(f"centre_sampling: radius must be above 0 strides, or None, got {radius}")
        if bounds is not None and not all(a < b for a, b in zip((0, *bounds), bounds, strict=False)):
            raise ConfigError(f"centre_sampling: bounds must rise from above 0 pixels, got {tuple(bounds)}")
        self.radius = radius
        self.bounds = None if bounds is None else tuple(bounds)

    @torch.no_grad()
    def __call__(
        self, points: Points, targets: Targets, predictions: Predictions | None = None, *, images: int
    ) -> Assignment:
        """Assign; see `assign.base.Assigner`. Predictions are not looked at; the pairs have no `quality`.

        Raises:
            ConfigError: there are not as many bounds as the points' levels need.
        """
        usable = assigned_objects(targets)
        boxes = targets.boxes[usable]
        least, most = self._ranges(points)
        near = pairs_inside(points.xy, boxes) if self.radius is None else pairs_near(points, boxes, self.radius)
        row, point = near
        sides = _distances(points.xy[point], boxes[row])
        nearest, farthest = sides.aminmax(dim=1)
        fits = (nearest > 0) & (farthest > least[point]) & (farthest < most[point])
        row, point = row[fits], point[fits]
        place = targets.image[usable][row] * len(points.xy) + point
        kept = resolve_conflicts(place, box_area(boxes)[row])
        return Assignment(
            object=usable[row[kept]],
            point=point[kept],
            weight=torch.ones(len(kept), device=point.device),
            background=background_weight(points, targets, place[kept], images=images),
        )

    def _ranges(self, points: Points) -> tuple[Tensor, Tensor]:
        """Between which distances to the farthest side each point may answer, two of `(l,)`."""
        if self.bounds is None:
            least, most = 4 * points.stride, 8 * points.stride
            least = least.masked_fill(points.level == points.level[0], 0.0)
            return least, most.masked_fill(points.level == points.level[-1], torch.inf)
        levels = int(points.level[-1]) + 1
        if len(self.bounds) != levels - 1:
            raise ConfigError(
                f"centre_sampling: {levels} levels meet at {levels - 1} bounds, got {len(self.bounds)}: {self.bounds}"
            )
        edges = points.stride.new_tensor((0.0, *self.bounds, torch.inf))
        return edges[points.level], edges[points.level + 1]


def _distances(xy: Tensor, boxes: Tensor) -> Tensor:
    """Left, top, right, bottom in pixels, `(p, 4)`."""
    return torch.cat((xy - boxes[:, :2], boxes[:, 2:] - xy), dim=1)
