"""Deep Snake as two graphs: a detector that also gives its map, and the snake that traces boxes on it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from clearsight.deploy.onnx_detector import best_of_scored, level_counts, predicted
from clearsight.deploy.onnx_file import ExportGraph, run_file
from clearsight.deploy.onnx_suppression import check_selection, pair_boxes
from clearsight.errors import NotFound
from clearsight.models.contour.deep_snake import DeepSnake
from clearsight.models.detect.centernet import CenterNetOutputs, score_cells
from clearsight.models.detect.dense import Scored
from clearsight.models.detect.regions import size_of
from clearsight.ops.rings import diamond
from clearsight.ops.selection import Selection
from clearsight.types import Instances

__all__ = ["DETECTOR", "SNAKE", "ContourGraph", "MapDetections", "SnakeDetectorGraph", "run_snake"]

DETECTOR, SNAKE = "detector.onnx", "snake.onnx"


class MapDetections(NamedTuple):
    """What the first file gives, as many places an image as it may keep boxes.

    Args:
        boxes: `(n, d, 4)` xyxy pixels; 0 where there is none.
        labels: `(n, d)` int64; -1 where there is none.
        scores: `(n, d)` falling; 0 where there is none.
        features: `(n, c, h / 4, w / 4)`, which the second file reads.
    """

    boxes: Tensor
    labels: Tensor
    scores: Tensor
    features: Tensor


class SnakeDetectorGraph(ExportGraph):
    """Deep Snake's detector, and the map that it shares with the snake.

    Args:
        model: it is set to evaluation mode.
        selection: what is kept.
        example: `(n, c, h, w)` images of the one size that the graph is for.

    Shape: images `(n, c, h, w)` → `MapDetections`.

    Raises:
        ConfigError: the selection is soft, which no ONNX operator does.
    """

    task = "instance"
    outputs = MapDetections._fields

    def __init__(self, model: DeepSnake, selection: Selection, example: Tensor) -> None:
        super().__init__()
        check_selection(selection)
        self.model = model.eval()
        self.selection = selection
        with torch.no_grad():
            self.counts = level_counts(self._scored(self.model.features(example[:1])))

    def forward(self, images: Tensor) -> MapDetections:
        """Find the peaks, suppress and keep the best."""
        features = self.model.features(images)
        found = best_of_scored(self._scored(features), self.counts, size=size_of(images), selection=self.selection)
        return MapDetections(*found, features)

    def check(self, given: Sequence[Tensor], answers: Sequence[Tensor]) -> None:
        """Every box has its counterpart, and the maps are equal."""
        *found, features = answers
        with torch.no_grad():
            self.require("features", features, self.model.features(given[0]))
        pair_boxes(found, predicted(self.model, given[0], self.selection))

    def _scored(self, features: Tensor) -> Scored:
        return score_cells(CenterNetOutputs(*self.model.head(features)), stride=self.model.stride)


class ContourGraph(ExportGraph):
    """Deep Snake's snake: boxes on a map become contours within the image.

    Args:
        model: it is set to evaluation mode.
        size: `(height, width)` of the images.

    Shape: features `(n, c, h / 4, w / 4)`, boxes `(m, 4)`, image `(m,)` int64 → contours `(m, points, 2)`, xy pixels,
        clockwise from the top; m may be 0.
    """

    task = "instance"
    inputs = ("features", "boxes", "image")
    outputs = ("contours",)

    def __init__(self, model: DeepSnake, size: tuple[int, int]) -> None:
        super().__init__()
        self.model = model.eval()
        self.size = size

    def forward(self, features: Tensor, boxes: Tensor, image: Tensor) -> Tensor:
        """Trace, and cut to the image; an object of which the snake says what is no number gets its octagon."""
        snake = self.model.snake
        traced = snake(features, boxes, image)
        sound = torch.isfinite(traced).flatten(1).all(dim=1)
        start = snake.first_contours(diamond(boxes)[:, [0, 3, 2, 1]])
        traced = torch.where(sound[:, None, None], traced, start)
        return torch.minimum(traced.clamp(min=0), traced.new_tensor(self.size[::-1]))

    def check(self, given: Sequence[Tensor], answers: Sequence[Tensor]) -> None:
        """Contours are equal."""
        with torch.no_grad():
            self.require("contours", answers[0], self(*given))

    def example(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """A map, boxes of several sizes on it, and which image each lies in.

        Args:
            images: `(n, c, h, w)`.
        """
        with torch.no_grad():
            features = self.model.features(images)
        sides = torch.tensor([*self.size[::-1]] * 2)
        shares = torch.tensor([[0.1, 0.1, 0.4, 0.5], [0.3, 0.2, 0.9, 0.8], [0.0, 0.5, 0.2, 1.0], [0.6, 0.0, 1.0, 0.1]])
        boxes = (shares * sides).repeat(len(images), 1)
        return features, boxes, torch.arange(len(images)).repeat_interleave(len(shares))


def run_snake(folder: str | Path, images: np.ndarray | Tensor) -> list[Instances]:
    """What both files find in images: what `predict` of the model gives.

    Args:
        folder: with `detector.onnx` and `snake.onnx`.
        images: `(n, c, h, w)` uint8 of the size that the files are for.

    Returns:
        One `Instances` an image, with `contours` and `ring_object`.

    Raises:
        NotFound: one of the files is not there.
    """
    place = Path(folder).expanduser()
    for name in (DETECTOR, SNAKE):
        if not (place / name).is_file():
            raise NotFound(f"{place}: there is no {name}; write both with: clearsight export RUN --out {place}")
    boxes, labels, scores, features = run_file(place / DETECTOR, [torch.as_tensor(images)])
    there = scores > 0
    image, _ = there.nonzero(as_tuple=True)
    (contours,) = run_file(place / SNAKE, [features, boxes[there], image])
    counts = there.sum(dim=1).tolist()
    columns = (each.split(counts) for each in (boxes[there], labels[there], scores[there], contours))
    return [
        Instances(boxes=box, labels=label, scores=score, contours=ring, ring_object=torch.arange(len(ring)))
        for box, label, score, ring in zip(*columns, strict=True)
    ]
