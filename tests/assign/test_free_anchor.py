"""FreeAnchor: by hand, against a loop over objects, and its edges."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from assigner_loops_bags import background_of, free_anchor_loop
from clearsight.assign.assignment import Assignment, Points, Predictions
from clearsight.assign.free_anchor import FreeAnchor
from clearsight.errors import ConfigError
from clearsight.models.detect.bag_terms import bag_terms
from clearsight.models.detect.dense import level_shapes, make_points
from clearsight.types import Targets

MakeTargets = Callable[..., Targets]
MakePredictions = Callable[..., Predictions]


def bags(found: Assignment) -> set[tuple[int, int]]:
    held = found.weight > 0
    return set(zip(found.object[held].tolist(), found.point[held].tolist(), strict=True))


def near(points: Points, targets: Targets, images: int, *, classes: int = 3) -> Predictions:
    """Predictions of which many find an object."""
    predictions = Predictions(torch.randn(images, len(points.xy), classes), points.boxes.repeat(images, 1, 1))
    for row, box in enumerate(targets.boxes):
        some = torch.randperm(len(points.xy))[:40]
        wobble = torch.randn(40, 4) * (box[2:] - box[:2]).min() * 0.06
        predictions.boxes[int(targets.image[row]), some] = box + wobble
    return predictions


@pytest.mark.parametrize("counts", [(4, 0, 7), (1,), (0, 0), (0, 15), (2, 2, 2)])
@pytest.mark.parametrize("ignored", [False, True])
@pytest.mark.parametrize(("bag", "threshold"), [(5, 0.6), (50, 0.6), (1000, 0.3)])
def test_equals_the_loop(
    anchors: Points, make_targets: MakeTargets, counts: tuple[int, ...], *, ignored: bool, bag: int, threshold: float
) -> None:
    targets = make_targets(*counts, ignored=ignored)
    predictions = near(anchors, targets, len(counts))
    found = FreeAnchor(bag=bag, threshold=threshold)(anchors, targets, predictions, images=len(counts))
    expected, weight = free_anchor_loop(anchors, targets, predictions, bag=bag, threshold=threshold)
    assert bags(found) == expected
    torch.testing.assert_close(background_of(found, targets, 3), weight, rtol=1e-4, atol=1e-5)
    place = found.object * len(anchors.xy) + found.point
    assert (place.diff() > 0).all()  # by object and point, each once
    assert found.combine == "mean_max"
    if sum(counts) and not ignored:
        assert 0 < (weight < 1).sum() < weight.numel()
        assert bag > 5 or (found.weight == 0).any()  # some that found it stand outside the bags


def line(count: int) -> Points:
    """Anchors of 8×8 side by side, and points in their middles."""
    xy = torch.stack((torch.arange(count) * 8.0 + 4, torch.full((count,), 4.0)), dim=1)
    return Points(xy, torch.full((count,), 8.0), torch.zeros(count, dtype=torch.int64), torch.cat((xy - 4, xy + 4), 1))


def some(*boxes: tuple[float, float, float, float], labels: tuple[int, ...] | None = None) -> Targets:
    zero = torch.zeros(len(boxes), dtype=torch.int64)
    return Targets(boxes=torch.tensor(boxes), labels=zero if labels is None else torch.tensor(labels), image=zero)


def test_saturated_linear_by_hand() -> None:
    """Overlaps 0.9, 0.8, 0.6, 0.5 from a threshold of 0.6: 1, 2/3, 0, 0."""
    targets = some((0.0, 0.0, 40.0, 8.0))
    boxes = targets.boxes.repeat(4, 1)
    boxes[:, 2] = torch.tensor([36.0, 32.0, 24.0, 20.0])
    found = FreeAnchor()(line(4), targets, Predictions(torch.zeros(1, 4, 2), boxes[None]), images=1)
    left = background_of(found, targets, 2)[0]
    torch.testing.assert_close(left[:, 0], torch.tensor([0.0, 1 / 3, 1.0, 1.0]), rtol=0, atol=1e-5)
    assert left[:, 1].tolist() == [1.0] * 4  # the other class is background
    assert found.weight.tolist() == [1.0] * 4


def test_the_best_of_several_objects_of_a_class_counts() -> None:
    targets = some((0.0, 0.0, 40.0, 8.0), (0.0, 0.0, 30.0, 8.0), (0.0, 0.0, 32.0, 8.0), labels=(0, 0, 1))
    boxes = torch.tensor([[0.0, 0.0, 32.0, 8.0], [0.0, 0.0, 40.0, 8.0], [0.0, 0.0, 30.0, 8.0]])
    found = FreeAnchor()(line(3), targets, Predictions(torch.zeros(1, 3, 2), boxes[None]), images=1)
    left = background_of(found, targets, 2)[0]
    # the first is worth (0.8 - 0.6) / 0.4 = 0.5 to object 0 and (0.9375 - 0.6) / 0.4 = 0.84375 to object 1
    torch.testing.assert_close(left[:, 0], torch.tensor([0.15625, 0.0, 0.0]), rtol=0, atol=1e-5)
    torch.testing.assert_close(left[:, 1], torch.tensor([0.0, 0.5, 0.15625]), rtol=0, atol=1e-5)


def test_the_bag_by_hand() -> None:
    targets = some((4.0, 0.0, 28.0, 8.0))  # half of anchor 0, anchors 1 and 2, half of anchor 3
    predictions = Predictions(torch.zeros(1, 5, 1), torch.zeros(1, 5, 4))
    for size, expected in ((1, [1]), (2, [1, 2]), (3, [0, 1, 2]), (50, [0, 1, 2, 3])):
        assert FreeAnchor(bag=size)(line(5), targets, predictions, images=1).point.tolist() == expected


def test_the_loss_by_hand() -> None:
    """Two anchors in the bag, p = 1/2 each, no box loss: mean-max 1/2; the first is found, the rest is background."""
    targets = some((0.0, 0.0, 16.0, 8.0))
    boxes = torch.tensor([[[0.0, 0.0, 16.0, 8.0], [0.0, 0.0, 0.1, 0.1]]])
    logits = torch.zeros(1, 2, 1)
    found = FreeAnchor()(line(2), targets, Predictions(logits, boxes), images=1)
    terms = bag_terms(found, targets, logits, torch.zeros(2))
    assert terms["bag"].item() == pytest.approx(0.5 * math.log(2))
    assert terms["background"].item() == pytest.approx(0.5 * 0.25 * math.log(2) / 2)  # one place, two pairs


def test_images_do_not_meet(anchors: Points, make_targets: MakeTargets) -> None:
    targets = make_targets(5, 6)
    predictions = near(anchors, targets, 2)
    both = background_of(FreeAnchor()(anchors, targets, predictions, images=2), targets, 3)
    for image in (0, 1):
        mine = targets.image == image
        alone = Targets(boxes=targets.boxes[mine], labels=targets.labels[mine], image=targets.image[mine] * 0)
        one = Predictions(*(part[image : image + 1] for part in predictions))
        found = background_of(FreeAnchor()(anchors, alone, one, images=1), alone, 3)
        torch.testing.assert_close(found[0], both[image], rtol=0, atol=0)


def test_odd_objects(points: Points, make_predictions: MakePredictions) -> None:
    """Under a pixel, larger than the image, off the grid, without a width, and twice the same."""
    targets = some(
        (50.2, 50.2, 50.6, 50.6),
        (-500.0, -500.0, 700.0, 700.0),
        (2900.0, 900.0, 2950.0, 950.0),
        (7.0, 7.0, 7.0, 7.0),
        (10.0, 10.0, 60.0, 50.0),
        (10.0, 10.0, 60.0, 50.0),
    )
    predictions = make_predictions(points, 1)
    found = FreeAnchor()(points, targets, predictions, images=1)
    assert {pair[0] for pair in bags(found)} == {0, 1, 4, 5}
    assert (
        found.point[(found.object == 4) & (found.weight > 0)].tolist()
        == found.point[(found.object == 5) & (found.weight > 0)].tolist()
    )
    logits = predictions.logits.requires_grad_()
    terms = bag_terms(found, targets, logits, torch.rand(len(found.object)))
    sum(terms.values(), torch.zeros(())).backward()
    assert torch.isfinite(logits.grad).all()


def test_a_thousand_alike(points: Points, make_predictions: MakePredictions) -> None:
    targets = some(*[(30.0, 30.0, 60.0, 60.0)] * 1000)
    found = FreeAnchor()(points, targets, make_predictions(points, 1), images=1)
    assert found.weight.sum() == 1000 * min(50, len(found.object[(found.object == 0) & (found.weight > 0)]))


@pytest.mark.parametrize("wrong", [math.nan, math.inf, -math.inf])
def test_predictions_that_are_no_numbers(anchors: Points, make_targets: MakeTargets, wrong: float) -> None:
    targets = make_targets(3, 4)
    predictions = near(anchors, targets, 2)
    before = background_of(FreeAnchor()(anchors, targets, predictions, images=2), targets, 3)
    predictions.boxes[0, ::3] = wrong
    found = FreeAnchor()(anchors, targets, predictions, images=2)
    after = background_of(found, targets, 3)
    torch.testing.assert_close(after[1], before[1], rtol=0, atol=0)
    assert torch.isfinite(after).all()
    assert (after[0, ::3] == 1).all()


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**31), st.integers(1, 9), st.sampled_from([0.3, 0.6]))
def test_order_and_scale_do_not_matter(seed: int, count: int, threshold: float) -> None:
    torch.manual_seed(seed)
    points = make_points(level_shapes((96, 128), (8, 16, 32)), (8, 16, 32))
    corner = torch.rand(count + 2, 2) * torch.tensor([90.0, 60.0])
    boxes = torch.cat((corner, corner + torch.rand(count + 2, 2) * 50 + 3), dim=1)
    image = torch.tensor([0] * count + [1] * 2)
    targets = Targets(boxes=boxes, labels=torch.randint(3, (count + 2,)), image=image)
    predictions = near(points, targets, 2)
    assigner = FreeAnchor(bag=9, threshold=threshold)
    found = assigner(points, targets, predictions, images=2)
    order = torch.cat((torch.randperm(count), torch.arange(count, count + 2)))
    moved = Targets(boxes=boxes[order], labels=targets.labels[order], image=image)
    other = assigner(points, moved, predictions, images=2)
    assert {(int(order[row]), point) for row, point in bags(other)} == bags(found)
    weight = background_of(found, targets, 3)
    torch.testing.assert_close(background_of(other, moved, 3), weight, rtol=0, atol=0)
    doubled = Points(points.xy * 2, points.stride * 2, points.level, points.boxes * 2)
    large = Targets(boxes=boxes * 2, labels=targets.labels, image=image)
    twice = assigner(doubled, large, Predictions(predictions.logits, predictions.boxes * 2), images=2)
    assert bags(twice) == bags(found)
    torch.testing.assert_close(background_of(twice, large, 3), weight, rtol=1e-5, atol=1e-5)


def test_wrong_options(points: Points, make_targets: MakeTargets) -> None:
    with pytest.raises(ConfigError, match="predictions must be given, not None"):
        FreeAnchor()(points, make_targets(1), images=1)
    for name, value in {"bag": 0, "box_weight": 0, "threshold": 1.0, "alpha": 1.1, "gamma": -1}.items():
        with pytest.raises(ConfigError, match=f"free_anchor: .*{name}.*got.*{value}"):
            FreeAnchor(**{name: value})
