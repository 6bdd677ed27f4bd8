"""AutoAssign: by hand, against a loop over objects, its learned prior, and its edges."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from assigner_loops_bags import auto_assign_loop, background_of
from clearsight.assign.assignment import Assignment, Points, Predictions
from clearsight.assign.auto_assign import AutoAssign
from clearsight.errors import ConfigError
from clearsight.models.detect.bag_terms import bag_terms
from clearsight.models.detect.dense import level_shapes, make_points
from clearsight.types import Targets

MakeTargets = Callable[..., Targets]
MakePredictions = Callable[..., Predictions]


def weights(found: Assignment) -> dict[tuple[int, int], float]:
    return dict(
        zip(
            zip(found.object.tolist(), found.point.tolist(), strict=True),
            found.weight.tolist(),
            strict=True,
        )
    )


def learned(classes: int = 3) -> AutoAssign:
    """One that has learned something."""
    assigner = AutoAssign(classes)
    torch.nn.init.normal_(assigner.mean, std=0.5)
    torch.nn.init.normal_(assigner.log_sigma, std=0.5)
    return assigner


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
    assigner = learned()
    found = assigner(points, targets, predictions, images=len(counts))
    prior, weight = auto_assign_loop(points, targets, predictions, mean=assigner.mean, sigma=assigner.log_sigma.exp())
    assert weights(found) == pytest.approx(prior, rel=1e-4, abs=1e-12)
    torch.testing.assert_close(background_of(found, targets, 3), weight, rtol=1e-4, atol=1e-4)
    place = found.object * len(points.xy) + found.point
    assert (place.diff() > 0).all()  # by object and point, each once
    assert found.combine == "confidence"
    if sum(counts) and not ignored:
        assert 0 < (weight < 1).sum() < weight.numel()


def line(count: int) -> Points:
    """Points on a row at 4, 12, 20, … of stride 8."""
    xy = torch.stack((torch.arange(count) * 8.0 + 4, torch.full((count,), 4.0)), dim=1)
    return Points(xy, torch.full((count,), 8.0), torch.zeros(count, dtype=torch.int64), torch.cat((xy - 4, xy + 4), 1))


def some(*boxes: tuple[float, float, float, float], labels: tuple[int, ...] | None = None) -> Targets:
    zero = torch.zeros(len(boxes), dtype=torch.int64)
    return Targets(boxes=torch.tensor(boxes), labels=zero if labels is None else torch.tensor(labels), image=zero)


def of_overlaps(targets: Targets, values: list[float]) -> Predictions:
    """Boxes that overlap the first object, 8 high and 40 wide, by so much; one class."""
    boxes = targets.boxes[:1].repeat(len(values), 1)
    boxes[:, 2] = torch.tensor(values) * 40
    return Predictions(torch.zeros(1, len(values), 1), boxes[None])


def test_the_prior_by_hand() -> None:
    """The centre is at 20, so the points are -2, -1, 0, 1 and 2 strides away."""
    targets, assigner = some((0.0, 0.0, 40.0, 8.0)), AutoAssign(1)
    found = assigner(line(5), targets, of_overlaps(targets, [0.5] * 5), images=1)
    expected = [math.exp(-2.0), math.exp(-0.5), 1.0, math.exp(-0.5), math.exp(-2.0)]
    assert found.weight.tolist() == pytest.approx(expected)
    with torch.no_grad():
        assigner.mean[0] = torch.tensor([1.0, 0.0])
        assigner.log_sigma[0] = torch.tensor([math.log(2.0), 0.0])
    found = assigner(line(5), targets, of_overlaps(targets, [0.5] * 5), images=1)
    assert found.weight.tolist() == pytest.approx([math.exp(-(d**2) / 8) for d in (-3, -2, -1, 0, 1)])


def test_the_background_by_hand() -> None:
    """Overlaps 0, 0.5, 0.75, 0.9: 1 / (1 - IoU) is 1, 2, 4, 10, brought to 0, 1/9, 3/9, 1."""
    targets = some((0.0, 0.0, 40.0, 8.0))
    found = AutoAssign(1)(line(4), targets, of_overlaps(targets, [0.0, 0.5, 0.75, 0.9]), images=1)
    assert found.class_background is not None
    assert found.class_background.tolist() == pytest.approx([1, 8 / 9, 6 / 9, 0], abs=1e-5)
    alike = AutoAssign(1)(line(4), targets, of_overlaps(targets, [0.5] * 4), images=1)
    assert alike.class_background is not None
    assert alike.class_background.tolist() == [0.0] * 4
    alone = AutoAssign(1)(line(1), targets, of_overlaps(targets, [0.1]), images=1)
    assert alone.class_background is not None
    assert alone.class_background.tolist() == [0.0]


def test_the_loss_by_hand() -> None:
    """p = 1/2 everywhere and no box loss: each confidence is alike and the bag's likelihood is 1/2."""
    targets = some((0.0, 0.0, 40.0, 8.0))
    logits = torch.zeros(1, 2, 1)
    found = AutoAssign(1)(line(2), targets, of_overlaps(targets, [0.0, 0.9]), images=1)
    terms = bag_terms(found, targets, logits, torch.zeros(2))
    assert terms["bag"].item() == pytest.approx(0.25 * math.log(2))
    assert terms["background"].item() == pytest.approx(0.75 * 0.25 * math.log(2), rel=1e-5)  # the first point's
    dear = bag_terms(found, targets, logits, torch.full((2,), 0.2))
    assert dear["bag"].item() == pytest.approx(0.25 * (math.log(2) + 1))  # λ = 5


def test_points_move_towards_where_the_object_is_explained() -> None:
    """The right end is sure: the mean goes right, step by step, and the loss falls."""
    targets, assigner = some((0.0, 0.0, 40.0, 8.0)), AutoAssign(2)
    predictions = of_overlaps(targets, [0.5] * 5)
    logits = torch.tensor([-3.0, -3.0, -2.0, 1.0, 2.0]).view(1, 5, 1).repeat(1, 1, 2)
    optimiser, losses = torch.optim.SGD(assigner.parameters(), lr=2.0), []
    for _ in range(20):
        found = assigner(line(5), targets, predictions, images=1)
        loss = bag_terms(found, targets, logits, torch.zeros(5))["bag"]
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < 0.7 * losses[0]
    assert assigner.mean[0, 0] > 0.5
    assert assigner.mean[1].tolist() == [0.0, 0.0]  # the other class has learned nothing
    assert assigner.log_sigma[1].tolist() == [0.0, 0.0]


def test_gradients_of_the_prior_are_those_of_differences(points: Points, make_targets: MakeTargets) -> None:
    assigner = learned().double()
    targets = make_targets(3, 2)
    points = Points(points.xy.double(), points.stride.double(), points.level, points.boxes)
    targets.boxes = targets.boxes.double()
    predictions = Predictions(torch.zeros(2, len(points.xy), 3), points.boxes.repeat(2, 1, 1))

    def total(mean: Tensor, log_sigma: Tensor) -> Tensor:
        parameters = {"mean": mean, "log_sigma": log_sigma}
        found = torch.func.functional_call(assigner, parameters, (points, targets, predictions), {"images": 2})
        return found.weight

    given = (assigner.mean.detach().requires_grad_(), assigner.log_sigma.detach().requires_grad_())
    assert torch.autograd.gradcheck(total, given)


def test_predictions_are_not_differentiated(
    points: Points, make_targets: MakeTargets, make_predictions: MakePredictions
) -> None:
    predictions = Predictions(*(part.requires_grad_() for part in make_predictions(points, 1)))
    found = AutoAssign(3)(points, make_targets(3), predictions, images=1)
    assert found.class_background is not None
    assert not found.class_background.requires_grad
    gradients = torch.autograd.grad(found.weight.sum(), predictions, allow_unused=True)
    assert gradients == (None, None)


def test_images_do_not_meet(points: Points, make_targets: MakeTargets, make_predictions: MakePredictions) -> None:
    targets, predictions, assigner = make_targets(5, 6), make_predictions(points, 2), learned()
    both = assigner(points, targets, predictions, images=2)
    for image, first in ((0, 0), (1, 5)):
        mine = targets.image == image
        alone = Targets(boxes=targets.boxes[mine], labels=targets.labels[mine], image=targets.image[mine] * 0)
        one = assigner(points, alone, Predictions(*(part[image : image + 1] for part in predictions)), images=1)
        here = targets.image[both.object] == image
        assert (both.object[here] - first).tolist() == one.object.tolist()
        torch.testing.assert_close(both.weight[here], one.weight, rtol=0, atol=0)
        torch.testing.assert_close(both.class_background[here], one.class_background, rtol=0, atol=0)


def test_odd_objects(points: Points, make_predictions: MakePredictions) -> None:
    """Under a pixel, with its centre far off the grid, off the grid, without a width, twice the same, a thousand."""
    targets = some(
        (50.2, 50.2, 50.6, 50.6),
        (-9000.0, -9000.0, 700.0, 700.0),
        (2900.0, 900.0, 2950.0, 950.0),
        (7.0, 7.0, 7.0, 7.0),
        *[(10.0, 10.0, 60.0, 50.0)] * 1000,
    )
    predictions, assigner = make_predictions(points, 1), AutoAssign(3)
    found = assigner(points, targets, predictions, images=1)
    assert set(found.object.tolist()) == set(range(1004)) - {2}
    assert found.weight.min() >= math.exp(-60) * 0.99
    assert (found.weight[found.object == 1]).max() < 1e-20  # all far from the centre, and still weights
    logits = predictions.logits.requires_grad_()
    terms = bag_terms(found, targets, logits, torch.rand(len(found.object)))
    sum(terms.values(), torch.zeros(())).backward()
    for tensor in (logits, assigner.mean, assigner.log_sigma):
        assert tensor.grad is not None
        assert torch.isfinite(tensor.grad).all()


def test_without_objects_the_prior_stays_in_the_graph(points: Points, make_predictions: MakePredictions) -> None:
    none, assigner = torch.zeros(0, dtype=torch.int64), AutoAssign(3)
    targets, predictions = Targets(boxes=torch.zeros(0, 4), labels=none, image=none), make_predictions(points, 1)
    found = assigner(points, targets, predictions, images=1)
    bag_terms(found, targets, predictions.logits, torch.zeros(0))["bag"].backward()
    assert assigner.mean.grad is not None
    assert assigner.log_sigma.grad is not None
    assert not assigner.mean.grad.any()


@pytest.mark.parametrize("wrong", [math.nan, math.inf, -math.inf])
def test_predictions_that_are_no_numbers(
    points: Points, make_targets: MakeTargets, make_predictions: MakePredictions, wrong: float
) -> None:
    targets, predictions = make_targets(3, 4), make_predictions(points, 2)
    before = background_of(AutoAssign(3)(points, targets, predictions, images=2), targets, 3)
    predictions.boxes[0, ::3] = wrong
    predictions.logits[0, ::2] = wrong
    found = AutoAssign(3)(points, targets, predictions, images=2)
    after = background_of(found, targets, 3)
    assert torch.isfinite(after).all()
    assert torch.isfinite(found.weight).all()
    torch.testing.assert_close(after[1], before[1], rtol=0, atol=0)


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
    assigner = learned()
    found = assigner(points, targets, predictions, images=2)
    order = torch.cat((torch.randperm(count), torch.arange(count, count + 2)))
    moved = Targets(boxes=boxes[order], labels=targets.labels[order], image=image)
    other = assigner(points, moved, predictions, images=2)
    assert {(int(order[row]), point): w for (row, point), w in weights(other).items()} == weights(found)
    torch.testing.assert_close(background_of(other, moved, 3), background_of(found, targets, 3), rtol=0, atol=0)
    doubled = Points(points.xy * 2, points.stride * 2, points.level, points.boxes * 2)
    large = Targets(boxes=boxes * 2, labels=targets.labels, image=image)
    twice = assigner(doubled, large, Predictions(predictions.logits, predictions.boxes * 2), images=2)
    assert weights(twice) == pytest.approx(weights(found), rel=1e-5)
    expected = background_of(found, targets, 3)
    torch.testing.assert_close(background_of(twice, large, 3), expected, rtol=1e-4, atol=1e-5)


def test_wrong_options(points: Points, make_targets: MakeTargets) -> None:
    with pytest.raises(ConfigError, match="predictions must be given, not None"):
        AutoAssign(3)(points, make_targets(1), images=1)
    with pytest.raises(ConfigError, match=r"num_classes, .* must be above 0, got 0"):
        AutoAssign(0)
    for name, value in {"box_weight": 0, "temperature": 0, "alpha": 1.1, "gamma": -1}.items():
        with pytest.raises(ConfigError, match=f"auto_assign: .*{name}.*got.*{value}"):
            AutoAssign(3, **{name: value})
