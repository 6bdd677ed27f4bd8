"""Detectors with their suppression, as graphs that ONNX holds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol, cast, runtime_checkable

import torch
from torch import Tensor, nn

from clearsight.deploy.onnx_file import ExportGraph
from clearsight.deploy.onnx_suppression import Detections, best_boxes, check_selection, pair_boxes
from clearsight.models.detect.box_head import LEAST_SIDE
from clearsight.models.detect.cascade_rcnn import CascadeRcnn
from clearsight.models.detect.dense import Scored, probability
from clearsight.models.detect.faster_rcnn import FasterRcnn
from clearsight.models.detect.given_regions import GivenRegions
from clearsight.models.detect.regions import RegionDetections, score_regions, size_of
from clearsight.models.detect.rpn import Proposals
from clearsight.ops.boxes import clip_boxes
from clearsight.ops.selection import Selection
from clearsight.types import Instances

if TYPE_CHECKING:
    from clearsight.models.base import Detects

__all__ = [
    "DetectorGraph",
    "RegionGraph",
    "ScoresBoxes",
    "best_of_regions",
    "best_of_scored",
    "level_counts",
    "predicted",
]


@runtime_checkable
class ScoresBoxes(Protocol):
    """A detector whose boxes can be scored and decoded in one graph: all of one stage but CornerNet."""

    def scored(self, images: Tensor) -> Scored:
        """What its `predict` selects from."""
        ...


class _Detects(ExportGraph):
    """What both graphs of detectors have in common.

    Args:
        model: it is set to evaluation mode.
        selection: what is kept.

    Raises:
        ConfigError: the selection is soft, which no ONNX operator does.
    """

    task = "detection"
    outputs = Detections._fields

    def __init__(self, model: nn.Module, selection: Selection) -> None:
        super().__init__()
        check_selection(selection)
        self.model = model.eval()
        self.selection = selection

    def check(self, given: Sequence[Tensor], answers: Sequence[Tensor]) -> None:
        """Every box has its counterpart; see `pair_boxes`."""
        pair_boxes(answers, predicted(self.model, given[0], self.selection))


class DetectorGraph(_Detects):
    """A detector of one stage with its post-processing in tensors of fixed shapes, so that both are one graph.

    Gives what `predict` does for whole images, but for the order of equal scores.

    Args:
        model: has `scored`; it is set to evaluation mode.
        selection: what is kept.
        example: `(n, c, h, w)` images of the one size that the graph is for.

    Shape: images `(n, c, h, w)` → `Detections`.

    Raises:
        ConfigError: the selection is soft, which no ONNX operator does.
    """

    def __init__(self, model: nn.Module, selection: Selection, example: Tensor) -> None:
        super().__init__(model, selection)
        with torch.no_grad():  # grids of points are remembered as plain tensors before anything is traced
            self.counts = level_counts(self.model.scored(example[:1]))  # pyright: ignore[reportCallIssue]

    def forward(self, images: Tensor) -> Detections:
        """Score, decode, suppress and keep the best."""
        scored = self.model.scored(images)  # pyright: ignore[reportCallIssue]
        return best_of_scored(scored, self.counts, size=size_of(images), selection=self.selection)


class RegionGraph(_Detects):
    """A detector of two stages or more, or on sliding regions: proposals and both suppressions in one graph.

    Gives what `predict` does for whole images, but for the order of equal scores.

    Args:
        model: a Faster, Cascade or Fast R-CNN; it is set to evaluation mode.
        selection: what is kept.
        example: `(n, c, h, w)` images of the one size that the graph is for.

    Shape: images `(n, c, h, w)` → `Detections`.

    Raises:
        ConfigError: the selection is soft, which no ONNX operator does.
    """

    def __init__(self, model: FasterRcnn | CascadeRcnn | GivenRegions, selection: Selection, example: Tensor) -> None:
        super().__init__(model, selection)
        # Regions that slide are the same for every image.
        self.given = model.proposer(example[:1], None) if isinstance(model, GivenRegions) else None

    def forward(self, images: Tensor) -> Detections:
        """Propose, read the regions, suppress and keep the best."""
        if self.given is None:
            found = self.model(images)
        else:
            count, head = images.shape[0], self.model.box_head
            regions = Proposals(*(each.expand(count, *each.shape[1:]) for each in self.given))
            found = score_regions(head, self.model.reader(images), regions, size_of(images))  # pyright: ignore
        return best_of_regions(found, size=size_of(images), selection=self.selection)


def predicted(model: nn.Module, images: Tensor, selection: Selection) -> list[Instances]:
    """What the model finds in whole images."""
    sizes = torch.tensor([size_of(images)] * len(images))
    return cast("Detects", model).predict(images, sizes, selection)


def level_counts(scored: Scored) -> list[int]:
    """How many points each level has."""
    return torch.bincount(scored.level).tolist()


def best_of_scored(scored: Scored, counts: Sequence[int], *, size: tuple[int, int], selection: Selection) -> Detections:
    """What `dense.postprocess` gives.

    Args:
        scored: of n images.
        counts: points of each level.
        size: `(height, width)` of the images.
        selection: what is kept.
    """
    scores = probability(scored).nan_to_num(0.0)
    classes = scores.shape[-1]
    best, places, start = [], [], 0
    for count in counts:
        flat = scores[:, start : start + count].flatten(1)
        score, place = flat.topk(min(selection.candidates, count * classes), dim=1)
        best.append(score)
        places.append(place + start * classes)
        start += count
    score, place = torch.cat(best, dim=1), torch.cat(places, dim=1)
    score = torch.where(score > selection.score_threshold, score, 0.0)
    point, label = torch.div(place, classes, rounding_mode="floor"), place % classes
    image = torch.arange(scores.shape[0], device=scores.device)[:, None].expand_as(point)
    boxes = scored.decode(image.flatten(), point.flatten()).unflatten(0, point.shape)
    return best_boxes(boxes, score, label, size=size, selection=selection)


def best_of_regions(found: RegionDetections, *, size: tuple[int, int], selection: Selection) -> Detections:
    """What `box_head.detections` gives.

    Args:
        found: p regions of each of n images.
        size: `(height, width)` of the images.
        selection: what is kept.
    """
    scores = found.scores.float()  # n p k
    boxes = clip_boxes(found.boxes.float(), size).expand(*scores.shape, 4)
    sound = ((boxes[..., 2:] - boxes[..., :2]) >= LEAST_SIDE).all(dim=-1)
    score = torch.where(sound & (scores > selection.score_threshold), scores, 0.0)
    label = torch.arange(scores.shape[2], device=scores.device).expand(scores.shape)
    flat = (boxes.flatten(1, 2), score.flatten(1), label.flatten(1))
    return best_boxes(*flat, size=size, selection=selection)
