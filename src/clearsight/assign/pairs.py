"""Which points lie in which boxes, as a list of pairs: no matrix of all objects and all points is made."""

from __future__ import annotations

import torch
from torch import Tensor

from clearsight.assign.assignment import Points

__all__ = ["pairs_inside", "pairs_near"]


def pairs_inside(xy: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor]:
    """The pairs of boxes and points where the point lies strictly inside: `base.inside(xy, boxes).nonzero()`.

    Args:
        xy: `(l, 2)` pixels.
        boxes: `(m, 4)` xyxy pixels.

    Returns:
        `(p,)` rows of boxes and `(p,)` indices of points, int64, by row and then by point.

    Cost: memory for the points of the band between each box's top and bottom; on a grid, some rows of it.
    """
    row, point = _inside(xy, boxes)
    return _in_order(row, point, len(xy))


def pairs_near(points: Points, boxes: Tensor, radius: float) -> tuple[Tensor, Tensor]:
    """The pairs of boxes and points where the point lies less than `radius` of its strides from the centre, in x and y.

    Args:
        points: l points.
        boxes: `(m, 4)` xyxy pixels.
        radius: strides of the point's level.

    Returns:
        As `pairs_inside`.
    """
    centre = (boxes[:, :2] + boxes[:, 2:]) / 2
    rows, found, start = [], [], 0
    for size in torch.unique_consecutive(points.level, return_counts=True)[1].tolist():
        xy, stride = points.xy[start : start + size], points.stride[start : start + size]
        # Somewhat more than wanted, so that rounding cannot lose a point: the distance itself decides below.
        reach = radius * stride.max() * 1.001 + 0.01
        row, point = _inside(xy, torch.cat((centre - reach, centre + reach), dim=1))
        near = ((xy[point] - centre[row]).abs() < radius * stride[point, None]).all(dim=1)
        rows.append(row[near])
        found.append(point[near] + start)
        start += size
    return _in_order(torch.cat(rows), torch.cat(found), len(points.xy))


def _inside(xy: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor]:
    """`pairs_inside` in whatever order."""
    y, order = xy[:, 1].sort(stable=True)
    x = xy[order, 0]
    first = torch.searchsorted(y, boxes[:, 1].contiguous(), right=True)
    end = torch.searchsorted(y, boxes[:, 3].contiguous())
    count = (end - first).clamp(min=0)
    row = torch.repeat_interleave(torch.arange(len(boxes), device=xy.device), count)
    place = torch.arange(len(row), device=xy.device) + (first - count.cumsum(0) + count)[row]
    across = x[place]
    within = ((across > boxes[row, 0]) & (across < boxes[row, 2])).nonzero().squeeze(1)
    return row[within], order[place[within]]


def _in_order(row: Tensor, point: Tensor, count: int) -> tuple[Tensor, Tensor]:
    place = (row * count + point).sort().values
    return place.div(count, rounding_mode="floor"), place % count
