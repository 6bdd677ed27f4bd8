"""A model's anchors against the objects that it is to learn: how many have none, and what becomes of those."""

from __future__ import annotations

from itertools import pairwise
from typing import Any, Literal, NamedTuple

import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor, nn

from clearsight.assign import Assigner, MaxIou, MultiBox, ShapeRatio
from clearsight.assign.assignment import Points
from clearsight.assign.level_grid import level_grids
from clearsight.data.dataset import Dataset
from clearsight.errors import DataError
from clearsight.measure.anchor_proposal import propose
from clearsight.measure.anchor_recall import AnchorRecall, anchor_recall, placed_iou, shape_ratio
from clearsight.measure.object_boxes import ObjectBoxes, object_boxes
from clearsight.models.detect.dense import PointGrid
from clearsight.types import Finding, Targets

__all__ = ["AnchorCheck", "anchor_findings", "anchored_part", "check_anchors"]

SAMPLE = 2000  # objects that are looked at before a training
_IMAGES = 32  # assigned at a time
_MANY = 0.05  # share of objects without any anchor, or with none that is near, from which on it is a warning
_LISTED = 10


class AnchoredPart(NamedTuple):
    """What of a model works with anchors.

    Args:
        module: the model, or its `rpn`.
        grid: of its anchors.
        assigner: which of them answer for which objects.
        measure: what the assigner goes by.
        threshold: from (overlap), or below (ratio), which an anchor is an object's.
    """

    module: nn.Module
    grid: PointGrid
    assigner: MaxIou | MultiBox | ShapeRatio
    measure: Literal["placed", "ratio"]
    threshold: float

    def fits(self, best: Tensor) -> Tensor:
        """Which objects an anchor fits, from the overlap or ratio of the one that fits best."""
        return best < self.threshold if self.measure == "ratio" else best >= self.threshold


class AnchorCheck(BaseModel):
    """A model's anchors against objects.

    Args:
        model: name of its class.
        size: `(height, width)` of the images that it sees.
        total: objects of the data set; `recall.objects` of them were looked at.
        recall: how many an anchor fits by the assigner's own threshold.
        best_only: objects that no anchor fits, but that the assigner gives the anchors that fit best all the same.
        without: objects that the assigner gives no anchor at all, among them those whose anchors all go to others.
        otherwise: what becomes of them, in words.
        override: recipe keys and values of anchors that fit more objects; empty where none were found.
        proposed: recall with them; None without.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str
    size: tuple[int, int]
    total: int
    recall: AnchorRecall
    best_only: int
    without: int
    otherwise: str
    override: dict[str, list[Any]]
    proposed: AnchorRecall | None

    def __str__(self) -> str:
        """What was found, and what to put into a recipe."""
        lines = [f"{self.model} at {self.size[0]}×{self.size[1]}: {self.recall}"]
        if self.recall.missed or self.without:
            lines.append(f"of the others {self._rescued}; {self.otherwise}")
        if self.proposed is not None:
            lines.append(f"with {_pasted(self.override)}: {self.proposed}")
        return "\n".join(lines)

    @property
    def _rescued(self) -> str:
        number = "none gets" if not self.best_only else "1 gets" if self.best_only == 1 else f"{self.best_only} get"
        return f"{number} the anchors that fit best all the same"

    @property
    def far(self) -> int:
        """Objects whose best anchor is off by twice what the assigner allows."""
        limit, ratio = self.recall.threshold, self.recall.measure == "ratio"
        return sum(one.best > 2 * limit if ratio else one.best < limit / 2 for one in self.recall.missed)

    def finding(self) -> Finding | None:
        """`objects-without-anchor`; None where every object has one that fits."""
        missed = self.recall.missed
        if not missed and not self.without:
            return None
        counted = f"{len(missed)} of {self.recall.objects} objects"
        if self.recall.objects < self.total:
            counted += f" (a sample of {self.total})"
        fits = (
            f"differ from every anchor's sides by {self.recall.threshold:g} times or more"
            if self.recall.measure == "ratio"
            else f"overlap no anchor by {self.recall.threshold:g} or more"
        )
        text = f"{counted} {fits} at {self.size[0]}×{self.size[1]}{_of_what(self.recall)}. "
        text += f"Of them {self._rescued}; {self.otherwise}."
        best = [one.best for one in missed]
        keys = ("objects", "total", "missed", "best_only", "without", "far")
        counts = (self.recall.objects, self.total, len(missed), self.best_only, self.without, self.far)
        return Finding(
            id="objects-without-anchor",
            severity="warning" if max(self.far, self.without) >= _MANY * self.recall.objects else "info",
            where=next(iter(self.override), "model"),
            explanation=text,
            action="trains all the same",
            evidence={
                **dict(zip(keys, counts, strict=True)),
                "measure": self.recall.measure,
                "threshold": self.recall.threshold,
                "best": [min(best), max(best)] if best else None,
                "classes": {group.name: group.objects - group.matched for group in self.recall.by_class},
                "sizes": {group.name: group.objects - group.matched for group in self.recall.by_size},
                "first": [one._asdict() for one in missed[:_LISTED]],
                "recall": self.recall.share,
                "mean_best": self.recall.mean_best,
                "recall_with_remedy": None if self.proposed is None else self.proposed.share,
                "mean_best_with_remedy": None if self.proposed is None else self.proposed.mean_best,
            },
            remedy=dict(self.override),
        )


def anchored_part(model: nn.Module) -> AnchoredPart | None:
    """What of a model assigns anchors by a threshold; None where nothing does.

    Models without anchors, and assigners that take the best anchors whatever their overlap, have no such threshold.

    Args:
        model: a detector; its anchors are `points` and their assigner `criterion.assigner`, of itself or of its `rpn`.
    """
    for module in (model, getattr(model, "rpn", None)):
        grid = getattr(module, "points", None)
        assigner: Assigner | None = getattr(getattr(module, "criterion", None), "assigner", None)
        if not isinstance(module, nn.Module) or not isinstance(grid, PointGrid):
            continue
        if isinstance(assigner, ShapeRatio):
            return AnchoredPart(module, grid, assigner, "ratio", assigner.ratio)
        if isinstance(assigner, MaxIou | MultiBox) and assigner.positive > 0:
            return AnchoredPart(module, grid, assigner, "placed", assigner.positive)
    return None


def check_anchors(
    model: nn.Module,
    dataset: Dataset,
    size: tuple[int, int],
    *,
    fit: Literal["letterbox", "stretch"] = "letterbox",
    most: int | None = None,
    seed: int = 0,
) -> AnchorCheck | None:
    """Set a model's anchors against the objects of a data set, as its own assigner does, before anything random.

    Args:
        model: a detector; its weights do not matter.
        dataset: read with image sizes.
        size: `(height, width)` of the images that the model sees.
        fit: how images are scaled to it.
        most: about as many objects at most, and an eighth as many images; see `object_boxes`. None takes all.
        seed: of the draw of those.

    Returns:
        What was found; None where the model assigns no anchors by a threshold.

    Raises:
        DataError: there is no object.
    """
    part = anchored_part(model)
    if part is None:
        return None
    objects = object_boxes(dataset, size, fit, most=most, images=None if most is None else max(1, most // 8), seed=seed)
    points = part.grid.make(size, torch.device("cpu"))  # the grid need not remember it
    best = _best(part, points, objects.boxes)
    recall = anchor_recall(objects, best, measure=part.measure, threshold=part.threshold)
    has = _assigned(part.assigner, points, objects)
    without = int((~has).sum())
    override, proposed = _better(part, points, objects, recall) if recall.missed else ({}, None)
    return AnchorCheck(
        model=type(model).__name__,
        size=size,
        total=objects.total,
        recall=recall,
        best_only=int((has & ~part.fits(best)).sum()),
        without=without,
        otherwise=_otherwise(part.assigner, without),
        override=override,
        proposed=proposed,
    )


def anchor_findings(
    model: nn.Module, dataset: Dataset, size: tuple[int, int], *, fit: Literal["letterbox", "stretch"]
) -> list[Finding]:
    """The finding of `check_anchors` on a sample of 2,000 objects, none where there is nothing to say."""
    try:
        found = check_anchors(model, dataset, size, fit=fit, most=SAMPLE)
    except DataError:
        return []  # no objects: other findings say so
    finding = None if found is None else found.finding()
    return [] if finding is None else [finding]


def _best(part: AnchoredPart, points: Points, boxes: Tensor) -> Tensor:
    """Overlap, or ratio, of the anchor that fits each object best."""
    if part.measure == "placed":
        return placed_iou(points, boxes)
    first = torch.cat([points.boxes[grid.start : grid.start + grid.anchors] for grid in level_grids(points)])
    return shape_ratio(boxes[:, 2:] - boxes[:, :2], first[:, 2:] - first[:, :2])


def _assigned(assigner: Assigner, points: Points, objects: ObjectBoxes) -> Tensor:
    """Which objects get an anchor, `(m,)` bool; by the assigner itself, some images at a time."""
    has = torch.zeros(len(objects), dtype=torch.bool)
    bounds = torch.searchsorted(objects.image, torch.arange(0, len(objects.records) + _IMAGES, _IMAGES)).tolist()
    for block, (start, end) in enumerate(pairwise(bounds)):
        image = objects.image[start:end] - block * _IMAGES
        targets = Targets(boxes=objects.boxes[start:end], labels=objects.labels[start:end], image=image)
        has[start + assigner(points, targets, images=_IMAGES).object] = True
    return has


def _better(
    part: AnchoredPart, points: Points, objects: ObjectBoxes, now: AnchorRecall
) -> tuple[dict[str, list[Any]], AnchorRecall | None]:
    """A recipe patch with which more objects have an anchor that fits, and how many; nothing where none was found."""
    proposal = propose(part.module, points, objects, threshold=part.threshold if part.measure == "placed" else 0.5)
    if proposal is None:
        return {}, None
    best = _best(part, proposal.points, objects.boxes)
    found = anchor_recall(objects, best, measure=part.measure, threshold=part.threshold)
    return ({proposal.key: proposal.values}, found) if found.matched > now.matched else ({}, None)


def _otherwise(assigner: MaxIou | MultiBox | ShapeRatio, without: int) -> str:
    if not without:
        return "none is left without an anchor"
    taught = (
        f"what overlaps them by less than {assigner.negative:g}"
        if isinstance(assigner, MaxIou)
        else "every anchor on them"
    )
    have = "object has none" if without == 1 else "objects have none"
    return f"{without} {have} at all: nothing is learned there, and {taught} is taught as background"


def _of_what(recall: AnchorRecall) -> str:
    """Sizes, classes and best overlaps of the objects missed."""
    if not recall.missed:
        return ""
    by_area = sorted((one.sides for one in recall.missed), key=lambda sides: sides[0] * sides[1])
    least, most = (f"{width:g}×{height:g}" for width, height in (by_area[0], by_area[-1]))
    best = sorted(int(100 * one.best) / 100 for one in recall.missed)  # cut, so that none seems to reach the threshold
    classes = sorted(recall.by_class, key=lambda group: group.matched - group.objects)
    named = ", ".join(f"{one.name} {one.objects - one.matched}" for one in classes[:3] if one.objects > one.matched)
    what = "ratio" if recall.measure == "ratio" else "overlap"
    return f" (width × height {least} to {most} px, best {what} {best[0]:.2f} to {best[-1]:.2f}; {named})"


def _pasted(override: dict[str, list[Any]]) -> str:
    """As it is given to a command."""
    return " ".join(f"{key}={value}".replace(", ", ",") for key, value in override.items())
