"""Which anchors overlap which objects enough, as a list of pairs: no matrix of all objects and all anchors is made."""

from __future__ import annotations

import torch
from torch import Tensor

from clearsight.assign.assignment import Points
from clearsight.assign.level_grid import LevelGrid, level_grids
from clearsight.ops.boxes import box_area

__all__ = ["overlapping_pairs"]

SLACK = 1e-4  # of the bounds, relative: rounding must lose no pair, the overlap itself decides in the end


def overlapping_pairs(points: Points, boxes: Tensor, least: float, *, best: bool) -> tuple[Tensor, Tensor, Tensor]:
    """The pairs of objects and anchors that overlap by `least` or more.

    On a grid the width that an object and an anchor share depends on the column alone, and the height on the row. From
    the largest of each follows how much of the other an overlap needs; the columns and rows that have it are a window
    of each level, and only there the overlap is computed.

    Args:
        points: l points.
        boxes: `(m, 4)` xyxy pixels of objects.
        least: overlap, above 0.
        best: besides, the anchors that overlap an object most of all (all of equals), where they overlap it at all.

    Returns:
        `(p,)` rows of boxes and `(p,)` indices of points, int64, and `(p,)` overlaps, with the bits of
        `ops.boxes.box_iou`. The pairs of a point are by row.

    Cost: memory for the windows; for a level that is no grid, the matrix of its points and all objects.
    """
    levels = [_Level(grid, points, boxes) for grid in level_grids(points)]
    threshold = boxes.new_full((len(boxes),), least)
    if best and levels:
        reached = torch.stack([level.reached() for level in levels]).amax(dim=0)
        threshold = torch.where(reached > 0, reached.clamp(max=least), threshold)
    found = [level.pairs(threshold) for level in levels]
    none = torch.zeros(0, dtype=torch.int64, device=boxes.device)
    rows, indices, overlaps = zip((none, none, boxes[:0, 0]), *found, strict=True)
    row, point, overlap = torch.cat(rows), torch.cat(indices), torch.cat(overlaps)
    if best:
        most = torch.zeros_like(threshold).scatter_reduce(0, row, overlap, "amax")
        kept = ((overlap >= least) | (overlap == most[row])).nonzero().squeeze(1)
        row, point, overlap = row[kept], point[kept], overlap[kept]
    return row, point, overlap


class _Level:
    """What objects and the anchors of a level share; a level that is no grid is one location of many anchors."""

    def __init__(self, grid: LevelGrid, points: Points, boxes: Tensor) -> None:
        self.start = grid.start
        self.shape = (grid.rows, grid.columns, grid.anchors) if grid.columns else (1, 1, grid.size)
        anchors = points.boxes[grid.start : grid.start + grid.size].view(*self.shape, 4)
        self.width = _shared(boxes[:, 0], boxes[:, 2], anchors[0, ..., 0], anchors[0, ..., 2])  # m a columns
        self.height = _shared(boxes[:, 1], boxes[:, 3], anchors[:, 0, :, 1], anchors[:, 0, :, 3])  # m a rows
        self.area = box_area(anchors)  # rows columns a
        self.object_area = box_area(boxes)

    def reached(self) -> Tensor:
        """An overlap of each object that one of the anchors has, nearly the largest, `(m,)`."""
        width, x = self.width.max(dim=-1)  # m a
        height, y = self.height.max(dim=-1)
        anchor = torch.arange(self.shape[2], device=x.device)
        area = self.area.view(-1)[(y * self.shape[1] + x) * self.shape[2] + anchor]
        return _iou(width * height, self.object_area[:, None] + area).amax(dim=1)

    def pairs(self, threshold: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Rows, points and overlaps of the pairs that reach the object's threshold, by row."""
        share = threshold / (1 + threshold) * (1 - SLACK)  # an overlap t shares t / (1 + t) of the sum of the areas
        need = share[:, None] * (self.object_area[:, None] + self.area.amin(dim=(0, 1)))  # m a
        first_x, columns = _window(self.width, need / self.height.amax(dim=-1))
        first_y, rows = _window(self.height, need / self.width.amax(dim=-1))
        count = (columns * rows).view(-1)
        which = torch.repeat_interleave(torch.arange(len(count), device=count.device), count)  # object and anchor
        place = torch.arange(len(which), device=count.device) - (count.cumsum(0) - count)[which]
        across = columns.view(-1)[which]
        down = place.div(across, rounding_mode="floor")
        x = place - down * across + first_x.view(-1)[which]
        y = down + first_y.view(-1)[which]
        height, width, anchors = self.shape
        row = which.div(anchors, rounding_mode="floor")
        point = (y * width + x) * anchors + which - row * anchors
        both = self.width.view(-1)[which * width + x] * self.height.view(-1)[which * height + y]
        overlap = _iou(both, self.object_area[row] + self.area.view(-1)[point])
        kept = (overlap >= threshold[row]).nonzero().squeeze(1)
        return row[kept], point[kept] + self.start, overlap[kept]


def _shared(low: Tensor, high: Tensor, anchor_low: Tensor, anchor_high: Tensor) -> Tensor:
    """What sides `(m,)` and the anchors' `(s, a)` share, `(m, a, s)`."""
    end = torch.minimum(high[:, None, None], anchor_high.mT.contiguous())
    return end.sub_(torch.maximum(low[:, None, None], anchor_low.mT.contiguous())).clamp_(min=0)


def _window(shared: Tensor, need: Tensor) -> tuple[Tensor, Tensor]:
    """First and number of the columns (rows) from the first to the last that share enough, `(m, a)`."""
    enough = (shared >= need[..., None]) & (shared > 0)
    place = torch.arange(shared.shape[-1], device=shared.device)
    first = torch.where(enough, place, shared.shape[-1]).amin(dim=-1)
    end = torch.where(enough, place + 1, 0).amax(dim=-1)
    return first, (end - first).clamp_(min=0)


def _iou(both: Tensor, areas: Tensor) -> Tensor:
    """Overlap from the shared area and the sum of the areas, as `ops.boxes.box_iou`."""
    union = areas.sub_(both)
    return both / union.clamp_(min=torch.finfo(union.dtype).tiny)
