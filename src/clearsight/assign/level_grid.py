"""How the points of each level stand: in rows and columns, with some anchors at each location."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from clearsight.assign.assignment import Points

__all__ = ["LevelGrid", "level_grids"]


class LevelGrid(NamedTuple):
    """The points of one level: row by row, the anchors of a location side by side.

    Args:
        start: index of the level's first point.
        size: number of its points.
        anchors: at each location.
        columns: locations in a row; 0 where the level is no grid, that is, where x and the left and right sides of an
            anchor differ within a column, or y and its top and bottom within a row.
    """

    start: int
    size: int
    anchors: int
    columns: int

    @property
    def rows(self) -> int:
        """Rows of locations; 0 where the level is no grid."""
        return self.size // (self.columns * self.anchors) if self.columns else 0


def level_grids(points: Points) -> list[LevelGrid]:
    """The levels in their order; their sizes sum to l.

    Args:
        points: l points.
    """
    found, start = [], 0
    for size in torch.unique_consecutive(points.level, return_counts=True)[1].tolist():
        xy, boxes = points.xy[start : start + size], points.boxes[start : start + size]
        anchors = int((xy == xy[0]).all(dim=1).sum())  # a location's anchors stand next to each other
        first = int((xy[:, 1] == xy[0, 1]).cumprod(dim=0).sum())  # points of the first row
        whole = first % anchors == 0 and size % first == 0
        columns = first // anchors if whole and _is_grid(xy, boxes, first, anchors) else 0
        found.append(LevelGrid(start, size, anchors, columns))
        start += size
    return found


def _is_grid(xy: Tensor, boxes: Tensor, first: int, anchors: int) -> bool:
    """Whether x and its sides are those of the first row, and y and its sides those of the first column."""
    across = torch.cat((xy[:, :1], boxes[:, ::2]), dim=1).view(-1, first, 3)
    down = torch.cat((xy[:, 1:], boxes[:, 1::2]), dim=1).view(len(across), -1, anchors, 3)
    same = (across == across[:1]).all() & (down == down[:, :1]).all()
    return bool(same & (xy.view(-1, anchors, 2) == xy[::anchors, None]).all())
