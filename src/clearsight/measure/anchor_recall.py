"""Best possible recall: how many objects some anchor fits well enough, by class and by size, and which none fits."""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor

from clearsight.assign.assignment import Points
from clearsight.assign.overlap import overlapping_pairs
from clearsight.errors import ConfigError, ShapeError
from clearsight.measure.object_boxes import ObjectBoxes
from clearsight.metrics.match import COCO_AREAS

__all__ = ["CURVE", "AnchorRecall", "Group", "Missed", "anchor_recall", "placed_iou", "shape_ratio"]

Measure = Literal["placed", "centred", "ratio"]

CURVE = tuple(step / 50 for step in range(51))
"""Overlaps at which `AnchorRecall.curve` has the recall."""

_BLOCK = 2**24  # elements of a matrix of objects and what they are set against


class Group(NamedTuple):
    """Objects of one class or size.

    Args:
        name: of the class, or `small`, `medium` and `large` as COCO has them, in pixels of the model's images.
        objects: number of them.
        matched: those that some anchor fits.
    """

    name: str
    objects: int
    matched: int


class Missed(NamedTuple):
    """An object that no anchor fits.

    Args:
        file: its image.
        where: `file:line` or `file#id` of the annotation; empty where that is unknown.
        name: its class.
        box: xyxy pixels of the file.
        sides: width and height, pixels of the image that the model sees.
        best: the overlap, or the ratio, of the anchor that fits it best.
    """

    file: str
    where: str
    name: str
    box: tuple[float, float, float, float]
    sides: tuple[float, float]
    best: float


class AnchorRecall(BaseModel):
    """How many objects some anchor fits.

    Args:
        measure: `placed` overlap, of the anchors where they stand; `centred` overlap, of box and anchor around one
            centre; or `ratio`, the larger of the ratios of widths and of heights, either way round.
        threshold: overlap from which on, or ratio below which, an anchor fits.
        objects: number of them.
        matched: those that some anchor fits.
        mean_best: mean over the objects of the overlap, or ratio, of the anchor that fits best.
        by_class: in label order, without classes that have no objects.
        by_size: small, medium, large, by area.
        missed: the objects that no anchor fits, in the order of their files.
        curve: recall at the overlaps `CURVE`; empty for ratios.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    measure: Measure
    threshold: float
    objects: int
    matched: int
    mean_best: float
    by_class: tuple[Group, ...]
    by_size: tuple[Group, ...]
    missed: tuple[Missed, ...]
    curve: tuple[float, ...] = ()

    @property
    def share(self) -> float:
        """Best possible recall, in [0, 1]."""
        return self.matched / self.objects

    def __str__(self) -> str:
        """One sentence."""
        how = {
            "placed": f"overlap an anchor where it stands by {self.threshold:g} or more",
            "centred": f"overlap an anchor of the same centre by {self.threshold:g} or more",
            "ratio": f"have an anchor whose sides differ from theirs by less than {self.threshold:g} times",
        }[self.measure]
        best = "" if self.measure == "ratio" else f" (the best overlap is {self.mean_best:.2f} on average)"
        return f"{self.matched} of {self.objects} objects ({_percent(self.share)}) {how}{best}"


def placed_iou(points: Points, boxes: Tensor) -> Tensor:
    """The largest overlap that any anchor of a grid has with each box.

    Args:
        points: l anchors.
        boxes: `(m, 4)` xyxy pixels.

    Returns:
        `(m,)` float32, with the bits of `ops.boxes.box_iou`; 0 where no anchor touches the box.

    Cost: no matrix of all boxes and anchors is made where a level is a grid; boxes are taken in blocks, so memory does
    not grow with their number.
    """
    if boxes.ndim != 2 or boxes.shape[1] != 4:
        raise ShapeError(f"boxes: expected (m, 4) as xyxy pixels, got {tuple(boxes.shape)}")
    boxes = boxes.to(points.boxes)
    found = torch.zeros(len(boxes), dtype=boxes.dtype, device=boxes.device)
    block = max(1, _BLOCK // max(1, len(points.xy)))
    for start in range(0, len(boxes), block):
        row, _, overlap = overlapping_pairs(points, boxes[start : start + block], 1.0, best=True)
        found[start : start + block].scatter_reduce_(0, row, overlap, "amax")
    return found


def shape_ratio(sides: Tensor, shapes: Tensor) -> Tensor:
    """Of the shape that is most like each box: the larger of the ratios of widths and of heights, either way round.

    Args:
        sides: `(m, 2)` width and height, above 0.
        shapes: `(k, 2)`.

    Returns:
        `(m,)` at least 1.
    """
    if sides.ndim != 2 or sides.shape[1] != 2 or shapes.ndim != 2 or shapes.shape[1] != 2 or not len(shapes):
        raise ShapeError(
            "sides and shapes: expected (m, 2) and (k, 2) as width and height, "
            f"got {tuple(sides.shape)} and {tuple(shapes.shape)}"
        )
    found = sides.new_empty(len(sides))
    block = max(1, _BLOCK // len(shapes))
    for start in range(0, len(sides), block):
        factor = sides[start : start + block, None] / shapes
        found[start : start + block] = torch.maximum(factor, 1 / factor).amax(dim=2).amin(dim=1)
    return found


def anchor_recall(objects: ObjectBoxes, best: Tensor, *, measure: Measure, threshold: float) -> AnchorRecall:
    """Sum up what `placed_iou`, `shape_ratio` or `anchor_fit.best_shape` found.

    Args:
        objects: m of them.
        best: `(m,)` overlap, or ratio, of the anchor that fits best.
        measure: which it is.
        threshold: overlap in (0, 1] from which on, or ratio above 1 below which, an anchor fits.

    Raises:
        ConfigError: the threshold lies outside its range.
        ShapeError: `best` has another number of objects.
    """
    if not (threshold > 1 if measure == "ratio" else 0 < threshold <= 1):
        expected = "above 1" if measure == "ratio" else "in (0, 1]"
        raise ConfigError(f"threshold: a {measure} threshold must be {expected}, got {threshold}")
    if tuple(best.shape) != (len(objects),):
        raise ShapeError(f"best: expected ({len(objects)},), one value an object, got {tuple(best.shape)}")
    matched = best < threshold if measure == "ratio" else best >= threshold
    area = objects.sides.prod(dim=1)
    sizes = {name: (area >= low) & (area < high) for name, (low, high) in COCO_AREAS.items() if name != "all"}
    labels = objects.labels
    classes = {name: labels == label for label, name in enumerate(objects.classes)}
    curve = () if measure == "ratio" else tuple(float((best >= at).double().mean()) for at in CURVE)
    return AnchorRecall(
        measure=measure,
        threshold=threshold,
        objects=len(objects),
        matched=int(matched.sum()),
        mean_best=float(best.double().mean()),
        by_class=tuple(_group(name, mine, matched) for name, mine in classes.items() if bool(mine.any())),
        by_size=tuple(_group(name, mine, matched) for name, mine in sizes.items()),
        missed=tuple(_missed(objects, row, float(best[row])) for row in (~matched).nonzero().flatten().tolist()),
        curve=curve,
    )


def _group(name: str, mine: Tensor, matched: Tensor) -> Group:
    return Group(name, int(mine.sum()), int((mine & matched).sum()))


def _missed(objects: ObjectBoxes, row: int, best: float) -> Missed:
    item, record = objects.items[row], objects.records[int(objects.image[row])]
    width, height = objects.sides[row].tolist()
    return Missed(
        file=str(record.image),
        where=item.where,
        name=objects.classes[item.label],
        box=item.box,
        sides=(round(width, 2), round(height, 2)),
        best=round(best, 4),
    )


def _percent(share: float) -> str:
    """Nothing is rounded to none or all."""
    if share in (0.0, 1.0):
        return f"{100 * share:.0f} %"
    return f"{min(99.9, max(0.1, 100 * share)):.1f} %"
