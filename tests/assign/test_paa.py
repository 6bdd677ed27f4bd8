"""PAA: by hand, against a loop over objects with scikit-learn's mixture, and its edges."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from assigner_loops import paa_loop
from clearsight.assign.assignment import Assignment, Points, Predictions
from clearsight.assign.paa import Paa
from clearsight.errors import ConfigError
from clearsight.models.detect.dense import level_shapes, make_points
from clearsight.types import Targets

MakeTargets = Callable[..., Targets]
MakePredictions = Callable[[Points, int], Predictions]


def pairs(found: Assignment) -> set[tuple[int, int]]:
    return set(zip(found.object.tolist(), found.point.tolist(), strict=True))


def close_predictions(points: Points, images: int) -> Predictions:
    """Boxes near the anchors, so that losses differ."""
    boxes = points.boxes + torch.randn(images, len(points.xy), 4) * points.stride[:, None] / 2
    return Predictions(torch.randn(images, len(points.xy), 3) - 1, boxes)


@pytest.mark.parametrize("counts", [(4, 0, 7), (1,), (0, 0), (0, 15)])
@pytest.mark.parametrize("grid", ["points", "anchors"])
@pytest.mark.parametrize("ignored", [False, True])
def test_equals_the_loop(
    request: pytest.FixtureRequest, make_targets: MakeTargets, counts: tuple[int, ...], grid: str, *, ignored: bool
) -> None:
    points: Points = request.getfixturevalue(grid)
    targets, predictions = make_targets(*counts, ignored=ignored), close_predictions(points, len(counts))
    found = Paa(candidates=5)(points, targets, predictions, images=len(counts))
    expected = paa_loop(points, targets, predictions, len(counts), candidates=5)
    assert pairs(found) == {(int(row), int(point)) for row, point in expected}
    assert len(found.object) == len(expected)
    place = targets.image[found.object] * len(points.xy) + found.point
    assert place.tolist() == sorted(set(place.tolist()))
    assert found.quality is None
    assert found.background[targets.image[found.object], found.point].sum() == 0
    if not ignored:
        assert found.background.sum() == found.background.numel() - len(expected)
        assert len(expected) >= sum(counts) * 0.7


def one_object(offs: list[float], *, level: list[int] | None = None) -> tuple[Points, Targets, Predictions]:
    """Anchors that all are the object, a box of 10 × 10; predictions that are too short by some pixels."""
    count = len(offs)
    box = torch.tensor([[0.0, 0.0, 10.0, 10.0]])
    points = Points(
        torch.full((count, 2), 5.0),
        torch.full((count,), 8.0),
        torch.tensor(level or [0] * count),
        box.repeat(count, 1),
    )
    zero = torch.zeros(1, dtype=torch.int64)
    boxes = box.repeat(count, 1)
    boxes[:, 2] -= torch.tensor(offs)
    return points, Targets(boxes=box, labels=zero, image=zero), Predictions(torch.zeros(1, count, 1), boxes[None])


def test_two_heaps_by_hand() -> None:
    """GIoU losses 0.1 to 0.3 and 0.8, 0.9: the density of the good heap is largest in its middle, at 0.2."""
    given = one_object([9.0, 2.0, 1.0, 8.0, 3.0])
    assert Paa(box_weight=40.0)(*given, images=1).point.tolist() == [1, 2]
    assert Paa(box_weight=40.0)(*given, images=1).background.tolist() == [[1, 0, 0, 1, 1]]


def test_candidates_are_counted_by_level() -> None:
    given = one_object([1.0, 1.1, 1.2, 5.0, 5.1, 5.2], level=[0, 0, 0, 1, 1, 1])
    found = Paa(candidates=1, box_weight=40.0)(*given, images=1)
    assert found.point.tolist() == [0]  # 0 and 3 are candidates, of which 0 is the good one
    assert Paa(candidates=1)(*one_object([3.0, 2.0]), images=1).point.tolist() == [1]  # one candidate is positive


def test_the_class_counts() -> None:
    points, targets, predictions = one_object([2.0, 2.0, 2.0, 2.0])
    predictions.logits[0, :, 0] = torch.tensor([-4.0, 3.0, -4.0, -4.0])
    assert Paa()(points, targets, predictions, images=1).point.tolist() == [1]


def test_odd_objects(points: Points) -> None:
    """Under a pixel, larger than the image, off the grid, and a thousand alike, each in an image of its own."""
    boxes = [[50.2, 50.2, 50.6, 50.6], [-500.0, -500.0, 700.0, 700.0], [900.0, 900.0, 950.0, 950.0]]
    same = [[30.0, 30.0, 80.0, 80.0]] * 1000
    targets = Targets(
        boxes=torch.tensor(boxes + same),
        labels=torch.zeros(1003, dtype=torch.int64),
        image=torch.tensor([0, 1, 2] + [3] * 1000),
    )
    found = Paa()(points, targets, close_predictions(points, 4), images=4)
    assert set(found.object.tolist()) == {0, 1, 3}  # off the grid: none; of equals: the first


@pytest.mark.parametrize("wrong", [math.nan, math.inf, -math.inf])
def test_predictions_that_are_no_numbers(points: Points, make_targets: MakeTargets, wrong: float) -> None:
    targets, predictions = make_targets(3, 4), close_predictions(points, 2)
    before = pairs(Paa()(points, targets, predictions, images=2))
    predictions.logits[0, ::2] = wrong
    predictions.boxes[0, ::3] = wrong
    found = pairs(Paa()(points, targets, predictions, images=2))
    assert {pair for pair in found if pair[0] >= 3} == {pair for pair in before if pair[0] >= 3}
    assert {row for row, _ in found} == {row for row, _ in before}


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**31), st.integers(1, 9))
def test_order_and_scale_do_not_matter(seed: int, count: int) -> None:
    torch.manual_seed(seed)
    points = make_points(level_shapes((96, 128), (8, 16, 32)), (8, 16, 32))
    corner = torch.rand(count + 2, 2) * torch.tensor([90.0, 60.0])
    boxes = torch.cat((corner, corner + torch.rand(count + 2, 2) * 50 + 8), dim=1)
    image = torch.tensor([0] * count + [1] * 2)
    targets = Targets(boxes=boxes, labels=torch.randint(3, (count + 2,)), image=image)
    predictions = close_predictions(points, 2)
    found = Paa()(points, targets, predictions, images=2)
    order = torch.cat((torch.randperm(count), torch.arange(count, count + 2)))
    moved = Targets(boxes=boxes[order], labels=targets.labels[order], image=image)
    other = Paa()(points, moved, predictions, images=2)
    assert order[other.object].tolist() == found.object.tolist()
    assert other.point.tolist() == found.point.tolist()
    doubled = Points(points.xy * 2, points.stride * 2, points.level, points.boxes * 2)
    large = Targets(boxes=boxes * 2, labels=targets.labels, image=image)
    twice = Predictions(predictions.logits, predictions.boxes * 2)
    assert pairs(Paa()(doubled, large, twice, images=2)) == pairs(found)


def test_wrong_options(points: Points, make_targets: MakeTargets) -> None:
    with pytest.raises(ConfigError, match="predictions must be given, not None"):
        Paa()(points, make_targets(1), images=1)
    for wrong in ({"iou": 0.0}, {"iou": 1.1}, {"candidates": 0}, {"box_weight": -1.0}):
        with pytest.raises(ConfigError, match=r"paa: iou must be in \(0, 1\], candidates at least 1"):
            Paa(**wrong)
