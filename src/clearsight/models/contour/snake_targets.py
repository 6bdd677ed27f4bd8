"""What Deep Snake should learn of a batch: which objects, where their extreme points lie, and their outlines."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from clearsight.errors import DataError
from clearsight.nn.precision import at_least_float32
from clearsight.ops.rings import cut_rings, extreme_points, orient_rings, resample_rings, ring_areas
from clearsight.types import Targets

__all__ = ["SnakeTargets", "largest_rings", "snake_targets"]


class SnakeTargets(NamedTuple):
    """The objects whose contours count, m' of them.

    Args:
        image: `(m',)` int64.
        boxes: `(m', 4)` xyxy pixels, as given.
        extremes: `(m', 4, 2)` top, left, bottom, right.
        contours: `(m', points, 2)` clockwise, at equal distances, the first nearest to the top extreme point.
    """

    image: Tensor
    boxes: Tensor
    extremes: Tensor
    contours: Tensor


@torch.no_grad()
def snake_targets(targets: Targets, *, points: int = 128, max_objects: int | None = None) -> SnakeTargets:
    """The extreme points and outlines of a batch's objects.

    One ring stands for an object: its largest; holes and lesser parts are not represented, and the box is that of the
    whole object. An object has no part in this if it is ignored, its box has no area, it has no ring, or none of its
    rings has an area: fewer than three vertices, all on one line, or crossing itself into loops that cancel out.

    Method: Peng et al. 2020 (Deep Snake), arXiv:2001.01629, section 3.3. The outline is cut at the very place nearest
    to the top extreme point, where the authors' code takes the nearest of many vertices, and begins the octagon there.

    Args:
        targets: m objects with `contours`.
        points: vertices of the contours.
        max_objects: if there are more, so many are drawn, of PyTorch's global stream on the CPU; None for all.

    Raises:
        DataError: the targets have no contours.
    """
    if targets.contours is None or targets.ring_object is None:
        raise DataError(
            "Deep Snake learns from outlines, but the targets have boxes alone; train it on data with polygons or "
            "masks, read for the task instance"
        )
    rings, owner = at_least_float32(targets.contours), targets.ring_object
    if not len(rings):
        return _nothing(targets, points)
    ring = largest_rings(ring_areas(rings), owner)
    owner = owner[ring]
    sides = targets.boxes[:, 2:] - targets.boxes[:, :2]
    counts = ~(sides[owner] <= 0).any(dim=1)  # NaN does, for the loss to name it
    if targets.ignore is not None:
        counts &= ~targets.ignore[owner]
    ring, owner = ring[counts], owner[counts]
    if max_objects is not None and len(ring) > max_objects:
        drawn = torch.randperm(len(ring))[:max_objects].sort().values.to(ring.device)
        ring, owner = ring[drawn], owner[drawn]
    outlines = orient_rings(rings[ring])
    extremes = extreme_points(outlines)
    contours = resample_rings(cut_rings(outlines, extremes[:, 0]), points)
    return SnakeTargets(targets.image[owner], at_least_float32(targets.boxes[owner]), extremes, contours)


def largest_rings(areas: Tensor, owner: Tensor) -> Tensor:
    """The index of each object's largest ring, in the order of the objects; objects without area have none.

    Args:
        areas: `(r,)`, at least 0; NaN counts as larger than all.
        owner: `(r,)` int64, the object of each ring, in any order.

    Returns:
        `(o,)` int64; of several rings of one size, the first.
    """
    order = areas.argsort(descending=True, stable=True)
    order = order[owner[order].argsort(stable=True)]
    group = owner[order]
    first = torch.ones_like(group, dtype=torch.bool)
    first[1:] = group[1:] != group[:-1]
    ring = order[first]
    return ring[~(areas[ring] <= 0)]


def _nothing(targets: Targets, points: int) -> SnakeTargets:
    boxes = at_least_float32(targets.boxes[:0])
    return SnakeTargets(targets.image[:0], boxes, boxes.new_zeros(0, 4, 2), boxes.new_zeros(0, points, 2))
