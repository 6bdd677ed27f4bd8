"""A grid of points and random batches for all assigners."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from clearsight.models.detect.dense import level_shapes, make_points
from clearsight.types import Points, Predictions, Targets

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
