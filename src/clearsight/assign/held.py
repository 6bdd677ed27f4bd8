"""Which points an object holds: those inside its box, or the nearest where it is too small to hold one."""

from __future__ import annotations

import torch
from torch import Tensor

from clearsight.assign.assignment import Points
from clearsight.assign.pairs import pairs_inside, pairs_near

__all__ = ["pairs_held"]


def pairs_held(points: Points, boxes: Tensor) -> tuple[Tensor, Tensor]:
    """The pairs of boxes and points where the point lies strictly inside the box.

    A box that holds no point, being smaller than a stride, has the points less than a stride of theirs from its centre
    (in x and in y); one far outside the grid has none.

    Args:
        points: l points.
        boxes: `(m, 4)` xyxy pixels.

    Returns:
        `(p,)` rows of boxes and `(p,)` indices of points, int64, by row and then by point.
    """
    row, point = pairs_inside(points.xy, boxes)
    empty = torch.bincount(row, minlength=len(boxes)) == 0
    if not bool(empty.any()):
        return row, point
    small = empty.nonzero().squeeze(1)
    near_row, near = pairs_near(points, boxes[small], 1.0)
    row, point = torch.cat((row, small[near_row])), torch.cat((point, near))
    order = torch.argsort(row, stable=True)
    return row[order], point[order]
