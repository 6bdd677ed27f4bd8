"""SimOTA: by hand, against a loop over objects, and its bookkeeping."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from clearsight.assign.assignment import Points, Predictions
from clearsight.assign.simota import SimOta
from clearsight.errors import ConfigError
from clearsight.types import Targets

MakeTargets = Callable[..., Targets]
MakePredictions = Callable[..., Predictions]


def overlap(a: Tensor, b: Tensor) -> float:
    width = float(min(a[2], b[2]) - max(a[0], b[0]))
    height = float(min(a[3], b[3]) - max(a[1], b[1]))
    both = max(width, 0) * max(height, 0)
    area = [float((box[2] - box[0]) * (box[3] - box[1])) for box in (a, b)]
    return both / (sum(area) - both)


def one_by_one(
    points: Points, targets: Targets, predictions: Predictions, config: SimOta
) -> dict[tuple[int, int], float]:
    """Quality by pair (object, point), object by object."""
    claims: dict[tuple[int, int], tuple[float, int, float]] = {}
    for row in range(len(targets.boxes)):
        if targets.ignore is not None and targets.ignore[row]:
            continue
        box, image, label = targets.boxes[row], int(targets.image[row]), int(targets.labels[row])
        centre = (box[:2] + box[2:]) / 2
        options: list[tuple[float, int, float]] = []
        for p in range(len(points.xy)):
            x, y = points.xy[p].tolist()
            within = bool(box[0] < x < box[2] and box[1] < y < box[3])
            reach = config.centre_radius * float(points.stride[p])
            central = abs(x - float(centre[0])) < reach and abs(y - float(centre[1])) < reach
            if not (within or central):
                continue
            value = overlap(predictions.boxes[image, p], box)
            entropy = 0.0
            for k, z in enumerate(predictions.logits[image, p].tolist()):
                probability = 1 / (1 + math.exp(-z))
                entropy -= math.log(probability if k == label else 1 - probability)
            cost = config.class_weight * entropy - config.iou_weight * math.log(value + 1e-8)
            options.append((cost + (0 if within and central else 1e4), p, value))
        wanted = max(int(sum(sorted((value for _, _, value in options), reverse=True)[: config.candidates])), 1)
        for cost, p, value in sorted(options)[:wanted]:
            if (image, p) not in claims or cost < claims[image, p][0]:
                claims[image, p] = (cost, row, value)
    return {(row, p): value for (_, p), (_, row, value) in claims.items()}


@pytest.mark.parametrize("counts", [(4, 0, 7), (1,), (0, 0), (0, 15), (2, 2, 2)])
@pytest.mark.parametrize("ignored", [False, True])
def test_equals_the_loop(
    points: Points,
    make_targets: MakeTargets,
    make_predictions: MakePredictions,
    counts: tuple[int, ...],
    *,
    ignored: bool,
) -> None:
    targets, predictions = make_targets(*counts, ignored=ignored), make_predictions(points, len(counts))
    config = SimOta(candidates=6, centre_radius=1.5, iou_weight=2.0, class_weight=0.7)
    found = config(points, targets, predictions, images=len(counts))
    expected = one_by_one(points, targets, predictions, config)
    pairs = list(zip(found.object.tolist(), found.point.tolist(), strict=True))
    assert set(pairs) == set(expected)
    assert len(set(pairs)) == len(pairs)
    assert found.quality is not None
    torch.testing.assert_close(found.quality, torch.tensor([expected[pair] for pair in pairs]), rtol=1e-4, atol=1e-5)
    assert found.background[targets.image[found.object], found.point].sum() == 0
    if not ignored:
        assert found.background.sum() == found.background.numel() - len(pairs)
    assert ignored or len(pairs) >= sum(counts) * 0.8


def line(count: int) -> Points:
    """Points on a row at 4, 12, 20, … of stride 8."""
    xy = torch.stack((torch.arange(count) * 8.0 + 4, torch.full((count,), 4.0)), dim=1)
    return Points(xy, torch.full((count,), 8.0), torch.zeros(count, dtype=torch.int64), torch.cat((xy - 4, xy + 4), 1))


def test_the_number_of_points_is_the_sum_of_overlaps() -> None:
    points = line(5)
    targets = Targets(boxes=torch.tensor([[0.0, 0.0, 40.0, 8.0]]), labels=torch.tensor([0]), image=torch.tensor([0]))
    boxes = targets.boxes.repeat(5, 1)
    boxes[:, 2] = torch.tensor([36.0, 32.0, 28.0, 8.0, 4.0])  # overlaps 0.9, 0.8, 0.7, 0.2, 0.1
    predictions = Predictions(torch.zeros(1, 5, 1), boxes[None])
    found = SimOta()(points, targets, predictions, images=1)
    assert found.point.tolist() == [0, 1]  # the sum is 2.7
    assert SimOta(candidates=1)(points, targets, predictions, images=1).point.tolist() == [0]  # at least one


def test_a_contested_point_goes_to_the_lower_cost() -> None:
    points = line(1)
    targets = Targets(
        boxes=torch.tensor([[0.0, 0.0, 8.0, 8.0], [0.0, 0.0, 8.0, 7.0]]),
        labels=torch.tensor([0, 1]),
        image=torch.tensor([0, 0]),
    )
    boxes = torch.tensor([[[0.0, 0.0, 8.0, 7.5]]])
    for strong in (0, 1):  # the same overlap but for a little; the class decides
        logits = torch.full((1, 1, 2), -3.0)
        logits[..., strong] = 3.0
        assert SimOta()(points, targets, Predictions(logits, boxes), images=1).object.tolist() == [strong]


def test_points_outside_come_last() -> None:
    points = line(4)
    targets = Targets(boxes=torch.tensor([[10.0, 0.0, 14.0, 8.0]]), labels=torch.tensor([0]), image=torch.tensor([0]))
    boxes = torch.tensor([[10.0, 0.0, 14.0, 8.0]]).repeat(4, 1)
    boxes[1] = torch.tensor([0.0, 0.0, 200.0, 8.0])  # the only point inside predicts the worst box
    found = SimOta(candidates=1)(points, targets, Predictions(torch.zeros(1, 4, 1), boxes[None]), images=1)
    assert found.point.tolist() == [1]


def test_images_do_not_meet(points: Points, make_targets: MakeTargets, make_predictions: MakePredictions) -> None:
    targets, predictions = make_targets(5, 6), make_predictions(points, 2)
    both = SimOta()(points, targets, predictions, images=2)
    for image in (0, 1):
        mine = targets.image == image
        alone = Targets(
            boxes=targets.boxes[mine],
            labels=targets.labels[mine],
            image=torch.zeros(int(mine.sum()), dtype=torch.int64),
        )
        one = SimOta()(points, alone, Predictions(*(part[image : image + 1] for part in predictions)), images=1)
        here = targets.image[both.object] == image
        assert both.point[here].tolist() == one.point.tolist()
        torch.testing.assert_close(both.background[image], one.background[0], rtol=0, atol=0)


def test_nothing_is_differentiated(
    points: Points, make_targets: MakeTargets, make_predictions: MakePredictions
) -> None:
    predictions = Predictions(*(part.requires_grad_() for part in make_predictions(points, 1)))
    found = SimOta()(points, make_targets(3), predictions, images=1)
    assert found.quality is not None
    assert not found.quality.requires_grad


def test_without_predictions(points: Points, make_targets: MakeTargets) -> None:
    with pytest.raises(ConfigError, match="predictions must be given, not None"):
        SimOta()(points, make_targets(1), images=1)
