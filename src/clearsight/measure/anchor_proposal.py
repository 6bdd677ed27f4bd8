"""Anchor sizes that suit a data set, in the form in which a model's recipe says them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from clearsight.assign.assignment import Points
from clearsight.assign.level_grid import level_grids
from clearsight.errors import ConfigError
from clearsight.measure.anchor_fit import fit_shapes
from clearsight.measure.object_boxes import ObjectBoxes
from clearsight.models.detect import retinanet, rpn, ssd_levels
from clearsight.models.detect.retinanet import RetinaNet
from clearsight.models.detect.rpn import Rpn
from clearsight.models.detect.ssd import Ssd
from clearsight.models.detect.yolov3 import YoloV3, level_anchors

__all__ = ["Design", "Proposal", "anchor_design", "propose", "propose_values", "rounded_shapes", "with_cells"]

_SAMPLE = 2000  # objects that are looked at

_STEPS = 4  # sizes tried an octave
_ROUNDS = 4


class Design(NamedTuple):
    """How a recipe says a model's anchors.

    Args:
        key: of the recipe.
        usual: its values as published, rising.
        cells: from values and the image's `(height, width)` to `(a, 4)` boxes around the origin, a tensor a level.
        relative: values are shares of the image's sides, not pixels.
    """

    key: str
    usual: tuple[float, ...]
    cells: Callable[[Sequence[float], tuple[int, int]], list[Tensor]]
    relative: bool = False


class Proposal(NamedTuple):
    """Anchors for a recipe.

    Args:
        key: of the recipe.
        values: plain JSON values.
        points: the model's grid with them.
    """

    key: str
    values: list[Any]
    points: Points


def propose(part: nn.Module, points: Points, objects: ObjectBoxes, *, threshold: float) -> Proposal | None:
    """Anchors that suit objects; of more than 2,000 every so manyth is looked at.

    Args:
        part: what has the grid of anchors: the model, or its `rpn`.
        points: the grid.
        objects: of the data set.
        threshold: overlap from which on an anchor is an object's.

    Returns:
        Shapes fitted by `fit_shapes` for a YOLOv3, sizes by `propose_values` for a RetinaNet, an EfficientDet, an RPN
        and an SSD; None for other models, and where there are fewer different objects than anchors.
    """
    step = -(-len(objects) // _SAMPLE)
    levels = int(points.level[-1]) + 1
    if isinstance(part, YoloV3):
        try:
            shapes = rounded_shapes(fit_shapes(objects.sides[::step], 3 * levels).shapes)
        except ConfigError:
            return None
        cells = level_anchors([(width, height) for width, height in shapes])
        return Proposal("model.anchors", shapes, with_cells(points, cells))
    design = anchor_design(part)
    if design is None or len(design.cells(design.usual, objects.size)) != levels:
        return None
    boxes, labels = objects.boxes[::step], objects.labels[::step]
    values = propose_values(design, points, boxes, labels, size=objects.size, threshold=threshold)
    return Proposal(design.key, list(values), with_cells(points, design.cells(values, objects.size)))


def anchor_design(part: nn.Module) -> Design | None:
    """How a recipe says the anchors of a RetinaNet, an EfficientDet, an RPN or an SSD; None for anything else.

    Args:
        part: what has the grid of anchors: the model, or its `rpn`.
    """
    if isinstance(part, RetinaNet):
        return Design("model.anchor_sizes", retinanet.ANCHOR_SIZES, _retinanet_cells)
    if isinstance(part, Rpn):
        return Design("model.anchor_sizes", rpn.ANCHOR_SIZES, _rpn_cells)
    if isinstance(part, Ssd):
        return Design("model.anchor_scales", ssd_levels.SCALES, _ssd_cells, relative=True)
    return None


def _retinanet_cells(values: Sequence[float], size: tuple[int, int]) -> list[Tensor]:
    del size
    return [retinanet.cell_anchors(value) for value in values]


def _rpn_cells(values: Sequence[float], size: tuple[int, int]) -> list[Tensor]:
    del size
    return [rpn.anchors_of_cell(value) for value in values]


def _ssd_cells(values: Sequence[float], size: tuple[int, int]) -> list[Tensor]:
    half = torch.tensor([size[1], size[0]]) / 2
    shapes = ssd_levels.default_shapes(values, ssd_levels.RATIOS)
    return [torch.cat((-sides * half, sides * half), dim=1) for sides in shapes]


def with_cells(points: Points, cells: Sequence[Tensor]) -> Points:
    """The same points with other anchors, as many at each location.

    Args:
        points: l points.
        cells: `(a, 4)` boxes around the origin, one tensor a level.
    """
    parts = []
    for grid, cell in zip(level_grids(points), cells, strict=True):
        xy = points.xy[grid.start : grid.start + grid.size]
        parts.append(xy.repeat(1, 2) + cell.to(xy).repeat(grid.size // len(cell), 1))
    return Points(points.xy, points.stride, points.level, torch.cat(parts))


def propose_values(
    design: Design, points: Points, boxes: Tensor, labels: Tensor, *, size: tuple[int, int], threshold: float
) -> tuple[float, ...]:
    """Values for a recipe with which anchors, where they stand, fit as many boxes as can be found.

    From the published values and from sizes evenly spread (by factors) over those of the boxes, one value after the
    other is changed to the one that is best, until nothing improves. What is best is the share of boxes that an anchor
    overlaps by the threshold plus the mean overlap with the best anchor, both as means over the classes: what most
    objects are does not crowd out what is rare. Values stay in rising order.

    Args:
        design: of the model.
        points: its grid.
        boxes: `(m, 4)` xyxy pixels, none empty; a sample of 2,000 does.
        labels: `(m,)` int64 classes.
        size: `(height, width)` of the images.
        threshold: overlap.

    Returns:
        As many as the published ones, to three digits.
    """
    unit = math.sqrt(size[0] * size[1]) if design.relative else 1.0
    sides = (boxes[:, 2:] - boxes[:, :2]).double()
    low, high = sides.prod(dim=1).sqrt().quantile(torch.tensor([0.005, 0.995], dtype=torch.float64)).tolist()
    tried = _spread(0.5 * low / unit, 1.25 * high / unit)
    count = len(design.usual)
    even = [_rounded(low / unit * (high / low) ** (place / (count - 1))) for place in range(count)]
    judge = _Judge(design, points, boxes, labels, size=size, threshold=threshold)
    return max((_climb(judge, start, tried) for start in (design.usual, even)), key=lambda pair: pair[0])[1]


def rounded_shapes(shapes: Tensor) -> list[list[float]]:
    """Width and height to three digits, by rising area.

    Args:
        shapes: `(k, 2)`.
    """
    pairs = [[_rounded(width), _rounded(height)] for width, height in shapes.tolist()]
    return sorted(pairs, key=lambda pair: pair[0] * pair[1])


def _rounded(value: float) -> float:
    return float(f"{value:.3g}")


def _spread(low: float, high: float) -> list[float]:
    """Sizes from `low` to `high`, each a fixed factor larger than the one before."""
    steps = math.ceil(_STEPS * math.log2(max(high / low, 1.0)))
    return [_rounded(low * 2 ** (step / _STEPS)) for step in range(steps + 1)]


class _Judge:
    """How well anchors of some values fit: recall and mean overlap, together.

    At a location nearer to a box's centre, in x or in y, an anchor shares as much or more of the box. So only the
    location nearest in both can matter, and an overlap with a shape is one number a level.
    """

    def __init__(
        self, design: Design, points: Points, boxes: Tensor, labels: Tensor, *, size: tuple[int, int], threshold: float
    ) -> None:
        self.design, self.size, self.threshold = design, size, threshold
        counts = torch.bincount(labels)
        self.weight = 1 / (counts[labels].double() * int((counts > 0).sum()))
        self.half = (boxes[:, None, 2:] - boxes[:, None, :2]) / 2  # m 1 2
        self.area = 4 * self.half.prod(dim=-1)
        centres = (boxes[:, 2:] + boxes[:, :2]) / 2
        self.offsets = []
        for grid in level_grids(points):
            xy = points.xy[grid.start : grid.start + grid.size]
            near = [_distance(centres[:, axis], xy[:, axis].unique()) for axis in (0, 1)]
            self.offsets.append(torch.stack(near, dim=-1)[:, None])  # m 1 2
        self.known: dict[tuple[float, ...], Tensor] = {}

    def __call__(self, values: Sequence[float]) -> float:
        best = torch.zeros_like(self.area[:, 0])
        for level, cell in enumerate(self.design.cells(values, self.size)):
            key = (level, *cell.flatten().tolist())  # one value changes, most levels do not
            if key not in self.known:
                self.known[key] = self._level(self.offsets[level], cell)
            best = torch.maximum(best, self.known[key])
        return float((self.weight * ((best >= self.threshold) + best.double())).sum())

    def _level(self, near: Tensor, cell: Tensor) -> Tensor:
        half = ((cell[:, 2:] - cell[:, :2]) / 2).to(self.half)  # a 2
        shared = torch.minimum(self.half, near + half).sub_(torch.maximum(-self.half, near - half)).clamp_(min=0)
        both = shared[..., 0] * shared[..., 1]
        return (both / (self.area + 4 * half.prod(dim=-1) - both)).amax(dim=1)


def _distance(values: Tensor, places: Tensor) -> Tensor:
    """From each value to the nearest of ascending places."""
    right = torch.searchsorted(places, values.contiguous()).clamp(max=len(places) - 1)
    left = (right - 1).clamp(min=0)
    return torch.minimum((values - places[left]).abs(), (values - places[right]).abs())


def _climb(judge: _Judge, start: Sequence[float], tried: Sequence[float]) -> tuple[float, tuple[float, ...]]:
    """The score and the values where changing a single one gains nothing."""
    values, score = list(start), judge(start)
    for _ in range(_ROUNDS):
        before = score
        for place in range(len(values)):
            low = values[place - 1] if place else 0.0
            high = values[place + 1] if place + 1 < len(values) else math.inf
            for value in tried:
                other = [*values[:place], value, *values[place + 1 :]]
                if low < value < high and (found := judge(other)) > score:
                    values, score = other, found
        if score == before:
            break
    return score, tuple(values)
