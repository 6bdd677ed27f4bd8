"""A grid of points and random batches for all assigners."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from clearsight.assign.assignment import Points, Predictions
from clearsight.models.detect.dense import level_shapes, make_points
from clearsight.types import Targets

SIZE = (96, 128)


@pytest.fixture
def points() -> Points:
    """Three levels of one square a location."""
    return make_points(level_shapes(SIZE, (8, 16, 32)), (8, 16, 32))


@pytest.fixture
def anchors() -> Points:
    """Two levels of three anchors a location."""
    cells = [
        torch.tensor([[-1.0, -1, 1, 1], [-0.7, -1.4, 0.7, 1.4], [-1.4, -0.7, 1.4, 0.7]]) * side for side in (12, 24)
    ]
    return make_points(level_shapes(SIZE, (8, 16)), (8, 16), anchors=cells, offset=0.0)


@pytest.fixture
def make_targets() -> Callable[..., Targets]:
    """Random objects: a count for each image; some ignored on request."""

    def make(*counts: int, ignored: bool = False, classes: int = 3) -> Targets:
        count = sum(counts)
        corner = torch.rand(count, 2) * torch.tensor([90.0, 60.0])
        boxes = torch.cat((corner, corner + torch.rand(count, 2) * 50 + 3), dim=1)
        return Targets(
            boxes=boxes,
            labels=torch.randint(classes, (count,)),
            image=torch.arange(len(counts)).repeat_interleave(torch.tensor(counts)),
            ignore=torch.rand(count) < 0.3 if ignored else None,
        )

    return make


@pytest.fixture
def make_predictions() -> Callable[[Points, int], Predictions]:
    """Random predictions near the points' boxes."""

    def make(points: Points, images: int, *, classes: int = 3) -> Predictions:
        count = len(points.xy)
        centre: Tensor = points.xy + torch.randn(images, count, 2) * points.stride[:, None] / 2
        half = points.stride[:, None] * (torch.rand(images, count, 2) * 2 + 0.3)
        return Predictions(torch.randn(images, count, classes), torch.cat((centre - half, centre + half), dim=-1))

    return make


@pytest.fixture
def make_awkward() -> Callable[[int], tuple[Points, Targets, int]]:
    """From a seed a grid of any size, with one or several anchors a location, at times shaken, and objects of a batch.

    Objects reach far outside, are under a pixel, empty or equal, meet points exactly, and some are ignored.
    """

    def make(seed: int) -> tuple[Points, Targets, int]:
        torch.manual_seed(seed)
        size = (int(torch.randint(1, 150, ())), int(torch.randint(1, 150, ())))
        strides = ((8, 16, 32), (8,), (16, 64))[seed % 3]
        anchors = None
        if seed % 2:
            half = torch.rand(len(strides), seed % 4, 2) * 3 + 0.2
            anchors = [torch.cat((-h, h), dim=1) * stride for h, stride in zip(half, strides, strict=True)]
        points = make_points(level_shapes(size, strides), strides, anchors=anchors, offset=(0.5, 0.0)[seed // 3 % 2])
        if seed % 7 == 6:  # no grid any more
            shaken = [tensor + torch.rand(tensor.shape) * 3 for tensor in (points.xy, points.boxes)]
            points = points._replace(xy=shaken[0], boxes=shaken[1])
        counts = torch.randint(0, 10, (3,))
        count = int(counts.sum())
        centre, half = torch.rand(count, 2) * 200 - 25, torch.exp2(torch.rand(count, 2) * 9 - 2)
        kind = seed % 5
        if kind == 1:  # whole cells: many equals
            centre, half = (centre / 8).round() * 8, (half / 8).ceil() * 8
        elif kind == 2:
            centre = centre * 10.0 ** (seed % 9)
        elif kind == 3:
            half = half * (torch.rand(count, 1) > 0.3)
        boxes = torch.cat((centre - half, centre + half), dim=1)
        boxes[1:4:2] = boxes[0:3:2][: len(boxes[1:4:2])]
        return (
            points,
            Targets(
                boxes=boxes,
                labels=torch.zeros(count, dtype=torch.int64),
                image=torch.arange(3).repeat_interleave(counts),
                ignore=torch.rand(count) < 0.3 if seed % 4 > 1 else None,
            ),
            3,
        )

    return make
