"""OTA: by hand, against one dense transport an image, and its edges."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from assigner_loops import ota_loop
from clearsight.assign.assignment import Assignment, Points, Predictions
from clearsight.assign.ota import Convergence, Ota
from clearsight.errors import ConfigError
from clearsight.models.detect.dense import level_shapes, make_points
from clearsight.types import Targets

MakeTargets = Callable[..., Targets]
MakePredictions = Callable[..., Predictions]


def pairs(found: Assignment) -> set[tuple[int, int]]:
    return set(zip(found.object.tolist(), found.point.tolist(), strict=True))


def as_set(found: torch.Tensor) -> set[tuple[int, int]]:
    return {(int(row), int(point)) for row, point in found}


@pytest.mark.parametrize("counts", [(4, 0, 7), (1,), (0, 0), (0, 25), (2, 2, 2)])
@pytest.mark.parametrize("ignored", [False, True])
def test_equals_dense_transport(
    points: Points,
    make_targets: MakeTargets,
    make_predictions: MakePredictions,
    counts: tuple[int, ...],
    *,
    ignored: bool,
) -> None:
    targets, predictions = make_targets(*counts, ignored=ignored), make_predictions(points, len(counts))
    found = Ota(candidates=8, steps=20)(points, targets, predictions, images=len(counts))
    expected = ota_loop(points, targets, predictions, len(counts), candidates=8, steps=20)
    assert pairs(found) == as_set(expected)
    assert len(found.object) == len(expected)
    place = targets.image[found.object] * len(points.xy) + found.point
    assert place.tolist() == sorted(set(place.tolist()))
    assert found.quality is None
    assert found.background[targets.image[found.object], found.point].sum() == 0
    if not ignored:
        assert found.background.sum() == found.background.numel() - len(expected)
        assert len(expected) >= sum(counts) * 0.7


def line(count: int) -> Points:
    """Points on a row at 4, 12, 20, … of stride 8."""
    xy = torch.stack((torch.arange(count) * 8.0 + 4, torch.full((count,), 4.0)), dim=1)
    return Points(xy, torch.full((count,), 8.0), torch.zeros(count, dtype=torch.int64), torch.cat((xy - 4, xy + 4), 1))


def one(*box: float) -> Targets:
    zero = torch.zeros(1, dtype=torch.int64)
    return Targets(boxes=torch.tensor([box]), labels=zero, image=zero)


def test_the_number_of_labels_is_the_sum_of_overlaps() -> None:
    points = line(5)
    targets = one(0.0, 0.0, 40.0, 8.0)
    boxes = targets.boxes.repeat(5, 1)
    boxes[:, 2] = torch.tensor([36.0, 32.0, 28.0, 8.0, 4.0])  # overlaps 0.9, 0.8, 0.7, 0.2, 0.1: together 2.7
    predictions = Predictions(torch.zeros(1, 5, 1), boxes[None])
    assert Ota(steps=200)(points, targets, predictions, images=1).point.tolist() == [0, 1]
    assert Ota(candidates=1, steps=200)(points, targets, predictions, images=1).point.tolist() == [0]  # at least one


def test_a_contested_point_goes_where_the_whole_costs_least() -> None:
    """Both objects fit point 1 best, but the first could also have point 0, and the second nothing else."""
    points = line(2)
    targets = Targets(
        boxes=torch.tensor([[0.0, 0.0, 16.0, 8.0], [8.5, 0.0, 16.0, 8.0]]),
        labels=torch.tensor([0, 0]),
        image=torch.tensor([0, 0]),
    )
    boxes = torch.tensor([[[0.0, 0.0, 9.0, 8.0], [4.0, 0.0, 16.0, 8.0]]])
    found = Ota(steps=100)(points, targets, Predictions(torch.zeros(1, 2, 1), boxes), images=1)
    assert pairs(found) == {(0, 0), (1, 1)}


def test_background_is_a_supplier() -> None:
    """One label for two points that fit alike: the one whose background would cost more takes it."""
    points = line(2)
    targets = one(0.0, 0.0, 16.0, 8.0)
    boxes = torch.tensor([[[0.0, 0.0, 8.0, 8.0], [8.0, 0.0, 16.0, 8.0]]])
    for sure in (0, 1):
        logits = torch.full((1, 2, 1), -2.0)
        logits[0, sure] = 2.0
        found = Ota(candidates=1)(points, targets, Predictions(logits, boxes), images=1)
        assert found.point.tolist() == [sure]


def test_convergence(points: Points, make_targets: MakeTargets, make_predictions: MakePredictions) -> None:
    targets, predictions = make_targets(6, 0), make_predictions(points, 2)
    errors = []
    for steps in (2, 20, 400):
        found, convergence = Ota(steps=steps).solve(points, targets, predictions, images=2)
        assert isinstance(convergence, Convergence)
        assert convergence.steps == steps
        assert convergence.error.shape == (2,)
        assert convergence.error[1] == 0  # no objects, nothing to scale
        errors.append(float(convergence.error[0]))
        assert pairs(found) == pairs(Ota(steps=steps)(points, targets, predictions, images=2))
    assert errors == sorted(errors, reverse=True)
    assert errors[2] < 1e-2 < errors[0]


def test_odd_objects(points: Points, make_predictions: MakePredictions) -> None:
    """Under a pixel: the points around it. Larger than the image: central points. Off the grid: none."""
    boxes = [
        [50.2, 50.2, 50.6, 50.6],
        [-500.0, -500.0, 700.0, 700.0],
        [900.0, 900.0, 950.0, 950.0],
        [7.0, 7.0, 7.0, 7.0],
    ]
    zero = torch.zeros(4, dtype=torch.int64)
    targets = Targets(boxes=torch.tensor(boxes), labels=zero, image=zero)
    found = Ota()(points, targets, make_predictions(points, 1), images=1)
    assert set(found.object.tolist()) == {0, 1, 3}
    near = (points.xy[found.point] - 50.4).abs().amax(1) < 2.5 * points.stride[found.point]
    assert near[found.object == 0].all()


def test_a_thousand_alike(points: Points, make_predictions: MakePredictions) -> None:
    zero = torch.zeros(1000, dtype=torch.int64)
    targets = Targets(boxes=torch.tensor([[30.0, 30.0, 60.0, 60.0]]).repeat(1000, 1), labels=zero, image=zero)
    found, convergence = Ota().solve(points, targets, make_predictions(points, 1), images=1)
    assert set(found.object.tolist()) == {0}  # of equals the first
    assert len(found.point) > 3
    assert float(convergence.error) > 1  # more labels than points within reach


@pytest.mark.parametrize("wrong", [math.nan, math.inf, -math.inf])
def test_predictions_that_are_no_numbers(
    points: Points, make_targets: MakeTargets, make_predictions: MakePredictions, wrong: float
) -> None:
    """The loss will say so; the assignment is defined, and the same as ever in the other images."""
    targets, predictions = make_targets(3, 4), make_predictions(points, 2)
    before = pairs(Ota()(points, targets, predictions, images=2))
    predictions.logits[0, ::2] = wrong
    predictions.boxes[0, ::3] = wrong
    found, convergence = Ota().solve(points, targets, predictions, images=2)
    assert torch.isfinite(convergence.error).all()
    assert {pair for pair in pairs(found) if pair[0] >= 3} == {pair for pair in before if pair[0] >= 3}


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**31), st.integers(1, 9))
def test_order_and_scale_do_not_matter(seed: int, count: int) -> None:
    torch.manual_seed(seed)
    points = make_points(level_shapes((96, 128), (8, 16, 32)), (8, 16, 32))
    corner = torch.rand(count + 2, 2) * torch.tensor([90.0, 60.0])
    boxes = torch.cat((corner, corner + torch.rand(count + 2, 2) * 50 + 3), dim=1)
    image = torch.tensor([0] * count + [1] * 2)
    targets = Targets(boxes=boxes, labels=torch.randint(3, (count + 2,)), image=image)
    half = points.stride[:, None] * (torch.rand(2, len(points.xy), 2) * 2 + 0.3)
    predictions = Predictions(torch.randn(2, len(points.xy), 3), torch.cat((points.xy - half, points.xy + half), -1))
    found = Ota(steps=10)(points, targets, predictions, images=2)
    order = torch.cat((torch.randperm(count), torch.arange(count, count + 2)))
    moved = Targets(boxes=boxes[order], labels=targets.labels[order], image=image)
    other = Ota(steps=10)(points, moved, predictions, images=2)
    assert order[other.object].tolist() == found.object.tolist()
    assert other.point.tolist() == found.point.tolist()
    doubled = Points(points.xy * 2, points.stride * 2, points.level, points.boxes * 2)
    large = Targets(boxes=boxes * 2, labels=targets.labels, image=image)
    twice = Predictions(predictions.logits, predictions.boxes * 2)
    assert pairs(Ota(steps=10)(doubled, large, twice, images=2)) == pairs(found)


def test_wrong_options(points: Points, make_targets: MakeTargets) -> None:
    with pytest.raises(ConfigError, match="predictions must be given, not None"):
        Ota()(points, make_targets(1), images=1)
    for name in ("candidates", "centre_radius", "iou_weight", "epsilon", "steps"):
        with pytest.raises(ConfigError, match=f"ota: {name} must be above 0, got 0"):
            Ota(**{name: 0})
