"""Pairs of boxes and points against the full matrix."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from clearsight.assign.assignment import Points
from clearsight.assign.base import inside
from clearsight.assign.pairs import pairs_inside, pairs_near
from clearsight.types import Targets


@pytest.mark.parametrize("grid", ["points", "anchors"])
def test_inside_is_the_matrix(request: pytest.FixtureRequest, make_targets: Callable[..., Targets], grid: str) -> None:
    points: Points = request.getfixturevalue(grid)
    boxes = make_targets(40).boxes
    boxes[:20] = boxes[:20].div(4).round() * 4  # sides that meet points exactly
    boxes[0, 2:] = boxes[0, :2] - 5  # inverted
    row, point = pairs_inside(points.xy, boxes)
    expected = inside(points.xy, boxes).nonzero()
    assert torch.stack((row, point), dim=1).tolist() == expected.tolist()
    assert len(expected) > 200


def test_points_in_any_order(points: Points, make_targets: Callable[..., Targets]) -> None:
    boxes, order = make_targets(9).boxes, torch.randperm(len(points.xy))
    expected = inside(points.xy[order], boxes).nonzero()
    assert torch.stack(pairs_inside(points.xy[order], boxes), dim=1).tolist() == expected.tolist()


@pytest.mark.parametrize("radius", [0.5, 1.0, 2.5])
@pytest.mark.parametrize("grid", ["points", "anchors"])
def test_near_is_the_matrix(
    request: pytest.FixtureRequest, make_targets: Callable[..., Targets], grid: str, radius: float
) -> None:
    points: Points = request.getfixturevalue(grid)
    boxes = make_targets(40).boxes
    boxes[:20] = boxes[:20].div(8).round() * 8  # centres exactly a radius away
    centre = (boxes[:, :2] + boxes[:, 2:]) / 2
    distance = (points.xy - centre[:, None]).abs().amax(-1)
    expected = (distance < radius * points.stride).nonzero()
    assert torch.stack(pairs_near(points, boxes, radius), dim=1).tolist() == expected.tolist()
    assert len(expected) > 40


def test_of_nothing(points: Points) -> None:
    for row, point in (pairs_inside(points.xy, torch.zeros(0, 4)), pairs_near(points, torch.zeros(0, 4), 1.5)):
        assert row.shape == point.shape == (0,)
        assert row.dtype == point.dtype == torch.int64
