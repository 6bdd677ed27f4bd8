"""Overlap thresholds of predicted boxes: by hand, against a loop over images, objects and points."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torchvision.ops import box_iou

from clearsight.assign.assignment import Assignment, Points, Predictions
from clearsight.assign.max_iou import MaxIou
from clearsight.assign.predicted_iou import PredictedIou
from clearsight.errors import ConfigError
from clearsight.types import Targets


def some_points(count: int) -> Points:
    xy = torch.arange(count).float().view(-1, 1).repeat(1, 2) * 8 + 100
    return Points(xy, torch.full((count,), 8.0), torch.zeros(count).long(), torch.cat((xy - 4, xy + 4), 1))


def objects(boxes: list[list[float]], image: list[int]) -> Targets:
    tensor = torch.tensor(boxes, dtype=torch.float32).view(-1, 4)
    return Targets(boxes=tensor, labels=torch.zeros(len(boxes)).long(), image=torch.tensor(image).long())


def of_boxes(boxes: Tensor) -> Predictions:
    return Predictions(torch.zeros(*boxes.shape[:2], 1), boxes)


def pairs(found: Assignment) -> list[tuple[int, int]]:
    return list(zip(found.object.tolist(), found.point.tolist(), strict=True))


def overlap_of(a: list[float], b: list[float]) -> float:
    width = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
    height = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - width * height
    return width * height / union if width * height > 0 else 0.0


def one_by_one(
    points: Points, targets: Targets, predictions: Predictions, positive: float, negative: float, *, force: bool
) -> tuple[list[tuple[int, int]], list[list[float]]]:
    """Image by image: pairs, and the weights of the background."""
    chosen, backgrounds = [], []
    for image, boxes in enumerate(predictions.boxes.tolist()):
        rows = [row for row in range(len(targets.boxes)) if int(targets.image[row]) == image]
        ignored = [row for row in rows if targets.ignore is not None and bool(targets.ignore[row])]
        rows = [row for row in rows if row not in ignored]
        table = [[overlap_of(targets.boxes[row].tolist(), box) for box in boxes] for row in rows]
        weights = []
        for p in range(len(boxes)):
            mine = [line[p] for line in table]
            best = max(mine, default=0.0)
            forced = force and any(line[p] > 0 and line[p] >= max(line) - 1e-7 for line in table)
            if rows and (best >= positive or forced):
                chosen.append((rows[mine.index(best)], p))
            x, y = points.xy[p].tolist()
            hidden = any(
                left < x < right and top < y < bottom
                for left, top, right, bottom in (targets.boxes[row].tolist() for row in ignored)
            )
            weights.append(float(not (best >= negative or forced or hidden)))
        backgrounds.append(weights)
    return chosen, backgrounds


def test_by_hand() -> None:
    """The object of each image is 10 × 10; overlaps 0.6, 0.45, 0.2 and 0 in the first, in the second at most 0.3."""
    boxes = torch.tensor(
        [
            [[0.0, 0, 6, 10], [0, 0, 4.5, 10], [0, 0, 2, 10], [20, 20, 30, 30]],
            [[0.0, 0, 2, 10], [0, 0, 3, 10], [7, 0, 10, 10], [math.nan, 0, 10, 10]],
            [[0.0, 0, 10, 10], [0, 0, 10, 10], [0, 0, 10, 10], [0, 0, 10, 10]],
        ]
    )
    targets = objects([[0, 0, 10, 10], [0, 0, 10, 10]], [0, 1])
    found = PredictedIou()(some_points(4), targets, of_boxes(boxes), images=3)
    assert pairs(found) == [(0, 0), (1, 1), (1, 2)]
    assert found.background.tolist() == [[0, 0, 1, 1], [1, 0, 0, 1], [1, 1, 1, 1]]
    assert found.quality is None
    found = PredictedIou(force_best=False)(some_points(4), targets, of_boxes(boxes), images=3)
    assert pairs(found) == [(0, 0)]


def test_a_contested_point_goes_to_the_larger_overlap_then_to_the_first() -> None:
    boxes = torch.tensor([[[0.0, 0, 10, 10]]])
    targets = objects([[0, 0, 8, 10], [0, 0, 9, 10], [0, 0, 9, 10]], [0, 0, 0])
    assert pairs(PredictedIou()(some_points(1), targets, of_boxes(boxes), images=1)) == [(1, 0)]


@pytest.mark.parametrize("ignored", [False, True])
@pytest.mark.parametrize("force", [False, True])
@pytest.mark.parametrize("counts", [(9, 0, 14), (0, 0, 0), (1, 0, 0), (0, 60, 3)])
def test_equals_the_loop(
    points: Points,
    make_targets: Callable[..., Targets],
    make_predictions: Callable[..., Predictions],
    counts: tuple[int, ...],
    *,
    force: bool,
    ignored: bool,
) -> None:
    targets, predictions = make_targets(*counts, ignored=ignored), make_predictions(points, 3)
    found = PredictedIou(positive=0.4, negative=0.25, force_best=force)(points, targets, predictions, images=3)
    expected, background = one_by_one(points, targets, predictions, 0.4, 0.25, force=force)
    assert pairs(found) == expected
    assert found.background.tolist() == background


@pytest.mark.parametrize("force", [False, True])
def test_of_the_same_boxes_in_every_image_it_is_max_iou(
    anchors: Points, make_targets: Callable[..., Targets], *, force: bool
) -> None:
    targets = make_targets(12, 0, 5, ignored=True)
    predictions = of_boxes(anchors.boxes.expand(3, -1, -1))
    for positive, negative in ((0.5, 0.4), (0.3, 0.3), (0.45, 0.0)):
        options = {"positive": positive, "negative": negative, "force_best": force}
        found = PredictedIou(**options)(anchors, targets, predictions, images=3)
        expected = MaxIou(**options)(anchors, targets, images=3)
        assert pairs(found) == pairs(expected)
        assert torch.equal(found.background, expected.background)


def test_odd_boxes_and_objects() -> None:
    odd = [math.inf, math.nan, -math.inf, 0.0]
    boxes = torch.tensor([[odd, [5.0, 5, 5, 5], [9.0, 9, 3, 3], [-1e30, -1e30, 1e30, 1e30], [0.0, 0, 0.2, 0.2]]])
    same = [[0.0, 0.0, 0.25, 0.25]] * 1000
    found = PredictedIou()(some_points(5), objects([*same, [5, 5, 5, 5]], [0] * 1001), of_boxes(boxes), images=1)
    assert pairs(found) == [(0, 4)]
    assert bool(found.background.isfinite().all())
    assert box_iou(torch.tensor(same[:1]), boxes[0, 4:]).item() == pytest.approx(0.64)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**31), st.integers(1, 20))
def test_order_and_scale_do_not_matter(seed: int, count: int) -> None:
    draw = torch.Generator().manual_seed(seed)
    points = some_points(30)
    corner = torch.rand(2, 30, 2, generator=draw) * 40
    predictions = of_boxes(torch.cat((corner, corner + torch.rand(2, 30, 2, generator=draw) * 20 + 2), 2))
    start = torch.rand(count + 3, 2, generator=draw) * 40
    boxes = torch.cat((start, start + torch.rand(count + 3, 2, generator=draw) * 20 + 2), 1)
    image = torch.tensor([0] * count + [1] * 3)
    targets = Targets(boxes=boxes, labels=torch.zeros_like(image), image=image)
    method = PredictedIou(positive=0.3, negative=0.2)
    found = method(points, targets, predictions, images=2)
    order = torch.cat((torch.randperm(count, generator=draw), torch.arange(count, count + 3)))
    moved = Targets(boxes=boxes[order], labels=targets.labels, image=image)
    other = method(points, moved, predictions, images=2)
    assert order[other.object].tolist() == found.object.tolist()
    assert other.point.tolist() == found.point.tolist()
    large = Targets(boxes=boxes * 2, labels=targets.labels, image=image)
    assert pairs(method(points, large, of_boxes(predictions.boxes * 2), images=2)) == pairs(found)


def test_wrong_arguments() -> None:
    for positive, negative in ((0.5, 0.6), (1.1, 0.4), (0.5, -0.1), (math.nan, 0.1)):
        with pytest.raises(ConfigError, match="thresholds in"):
            PredictedIou(positive=positive, negative=negative)
    with pytest.raises(ConfigError, match="predictions must be given, not None"):
        PredictedIou()(some_points(1), objects([], []), images=1)
