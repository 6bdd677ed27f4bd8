"""Assignment by distributions of quality: by hand, against a loop over objects, and its edges."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from assigner_loops_bags import iqdet_loop
from clearsight.assign.assignment import Assignment, Points, Predictions
from clearsight.assign.iqdet import Iqdet
from clearsight.errors import ConfigError
from clearsight.models.detect.dense import level_shapes, make_points
from clearsight.types import Targets

MakeTargets = Callable[..., Targets]
MakePredictions = Callable[..., Predictions]


def values(found: Assignment) -> dict[tuple[int, int], float]:
    assert found.quality is not None
    pairs = zip(found.object.tolist(), found.point.tolist(), strict=True)
    return dict(zip(pairs, found.quality.tolist(), strict=True))


@pytest.mark.parametrize("counts", [(4, 0, 7), (1,), (0, 0), (0, 15), (2, 2, 2)])
@pytest.mark.parametrize("ignored", [False, True])
@pytest.mark.parametrize("alpha", [1.0, 0.6])
def test_equals_the_loop(
    points: Points,
    make_targets: MakeTargets,
    make_predictions: MakePredictions,
    counts: tuple[int, ...],
    *,
    ignored: bool,
    alpha: float,
) -> None:
    targets, predictions = make_targets(*counts, ignored=ignored), make_predictions(points, len(counts))
    found = Iqdet(samples=5, alpha=alpha, steps=6)(points, targets, predictions, images=len(counts))
    expected = iqdet_loop(points, targets, predictions, samples=5, components=2, alpha=alpha, steps=6)
    assert values(found) == pytest.approx(expected, rel=1e-4)
    place = targets.image[found.object] * len(points.xy) + found.point
    assert (place.diff() > 0).all()
    assert found.combine == "each"
    assert found.weight.tolist() == [1.0] * len(place)
    assert found.background[targets.image[found.object], found.point].sum() == 0
    if not ignored:
        assert found.background.sum() == found.background.numel() - len(place)
        assert len(set(found.object.tolist())) >= 0.8 * sum(counts)


def line(count: int) -> Points:
    """Points on a row at 4, 12, 20, … of stride 8."""
    xy = torch.stack((torch.arange(count) * 8.0 + 4, torch.full((count,), 4.0)), dim=1)
    return Points(xy, torch.full((count,), 8.0), torch.zeros(count, dtype=torch.int64), torch.cat((xy - 4, xy + 4), 1))


def some(*boxes: tuple[float, float, float, float], labels: tuple[int, ...] | None = None) -> Targets:
    zero = torch.zeros(len(boxes), dtype=torch.int64)
    return Targets(boxes=torch.tensor(boxes), labels=zero if labels is None else torch.tensor(labels), image=zero)


def of_overlaps(targets: Targets, overlaps: list[float], *, classes: int = 1) -> Predictions:
    """Boxes that overlap the first object, 8 high and 40 wide, by so much."""
    boxes = targets.boxes[:1].repeat(len(overlaps), 1)
    boxes[:, 2] = torch.tensor(overlaps) * 40
    return Predictions(torch.zeros(1, len(overlaps), classes), boxes[None])


def test_by_hand() -> None:
    """Positions -0.8, -0.4, 0, 0.4, 0.8, of equal quality 1/2: one Gaussian of variance 0.32 at 0."""
    targets = some((0.0, 0.0, 40.0, 8.0))
    found = Iqdet(components=1)(line(5), targets, of_overlaps(targets, [0.5] * 5), images=1)
    expected = [0.5 * math.exp(-(u**2) / 0.64) for u in (-0.8, -0.4, 0.0, 0.4, 0.8)]
    assert found.quality is not None
    assert found.quality.tolist() == pytest.approx(expected, rel=1e-5)
    three = Iqdet(components=1, samples=3)(line(5), targets, of_overlaps(targets, [0.5] * 5), images=1)
    assert three.point.tolist() == [1, 2, 3]


def test_the_distribution_follows_the_quality() -> None:
    """An object whose predictions are good at its right end is learned there, and a lone good one counts less."""
    targets = some((0.0, 0.0, 40.0, 8.0))
    right = Iqdet(samples=2)(line(5), targets, of_overlaps(targets, [0.1, 0.1, 0.2, 0.7, 0.8]), images=1)
    assert right.point.tolist() == [3, 4]
    lone = Iqdet(samples=1, components=1)(line(5), targets, of_overlaps(targets, [0.72, 0.0, 0.7, 0.7, 0.7]), images=1)
    assert lone.point.tolist() == [2]  # the first is best by itself


def test_alpha_weighs_score_against_overlap() -> None:
    targets = some((0.0, 0.0, 40.0, 8.0))
    predictions = of_overlaps(targets, [0.9, 0.8, 0.5, 0.3, 0.2])
    predictions.logits[0, :, 0] = torch.tensor([-6.0, -5.0, 0.0, 3.0, 4.0])
    assert Iqdet(samples=2)(line(5), targets, predictions, images=1).point.tolist() == [0, 1]
    assert Iqdet(samples=2, alpha=0.0)(line(5), targets, predictions, images=1).point.tolist() == [3, 4]


def test_a_contested_point_goes_where_its_value_is_highest() -> None:
    targets = some((0.0, 0.0, 8.0, 8.0), (0.0, 0.0, 8.0, 7.0), labels=(0, 1))
    for box, expected in (((0.0, 0.0, 8.0, 7.8), 0), ((0.0, 0.0, 8.0, 7.1), 1)):
        boxes = torch.tensor([[box]])
        found = Iqdet()(line(1), targets, Predictions(torch.zeros(1, 1, 2), boxes), images=1)
        assert found.object.tolist() == [expected]


def test_nothing_predicted_yet() -> None:
    """All overlaps are 0: the middle comes first, every object still has points, the target is next to 0."""
    targets = some((0.0, 0.0, 40.0, 8.0))
    found = Iqdet(samples=3)(line(5), targets, Predictions(torch.zeros(1, 5, 1), torch.zeros(1, 5, 4)), images=1)
    assert found.point.tolist() == [1, 2, 3]
    assert found.quality is not None
    assert found.quality.max() <= 1e-6


def test_images_do_not_meet(points: Points, make_targets: MakeTargets, make_predictions: MakePredictions) -> None:
    targets, predictions = make_targets(5, 6), make_predictions(points, 2)
    both = Iqdet()(points, targets, predictions, images=2)
    for image, first in ((0, 0), (1, 5)):
        mine = targets.image == image
        alone = Targets(boxes=targets.boxes[mine], labels=targets.labels[mine], image=targets.image[mine] * 0)
        one = Iqdet()(points, alone, Predictions(*(part[image : image + 1] for part in predictions)), images=1)
        here = targets.image[both.object] == image
        assert (both.object[here] - first).tolist() == one.object.tolist()
        assert both.point[here].tolist() == one.point.tolist()
        torch.testing.assert_close(both.quality[here], one.quality, rtol=0, atol=0)


def test_odd_objects(points: Points, make_predictions: MakePredictions) -> None:
    """Under a pixel, larger than the image, off the grid, without a width, and a thousand alike."""
    targets = some(
        (50.2, 50.2, 50.6, 50.6),
        (-500.0, -500.0, 700.0, 700.0),
        (2900.0, 900.0, 2950.0, 950.0),
        (7.0, 7.0, 7.0, 7.0),
        *[(70.0, 60.0, 110.0, 90.0)] * 1000,
    )
    found = Iqdet()(points, targets, make_predictions(points, 1), images=1)
    assert set(found.object.tolist()) >= {0, 3, 4}
    assert set(found.object.tolist()) <= {0, 1, 3, 4}  # of equals the first
    assert found.quality is not None
    assert torch.isfinite(found.quality).all()
    assert found.quality.min() >= 0


@pytest.mark.parametrize("wrong", [math.nan, math.inf, -math.inf])
def test_predictions_that_are_no_numbers(
    points: Points, make_targets: MakeTargets, make_predictions: MakePredictions, wrong: float
) -> None:
    targets, predictions = make_targets(3, 4), make_predictions(points, 2)
    before = values(Iqdet(alpha=0.5)(points, targets, predictions, images=2))
    predictions.boxes[0, ::3] = wrong
    predictions.logits[0, ::2] = wrong
    found = values(Iqdet(alpha=0.5)(points, targets, predictions, images=2))
    assert all(math.isfinite(value) for value in found.values())
    later = {pair: value for pair, value in before.items() if pair[0] >= 3}
    assert {pair: value for pair, value in found.items() if pair[0] >= 3} == later


def test_nothing_is_differentiated(
    points: Points, make_targets: MakeTargets, make_predictions: MakePredictions
) -> None:
    predictions = Predictions(*(part.requires_grad_() for part in make_predictions(points, 1)))
    found = Iqdet(alpha=0.5)(points, make_targets(3), predictions, images=1)
    assert found.quality is not None
    assert not found.quality.requires_grad


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
    found = values(Iqdet()(points, targets, predictions, images=2))
    order = torch.cat((torch.randperm(count), torch.arange(count, count + 2)))
    moved = Targets(boxes=boxes[order], labels=targets.labels[order], image=image)
    other = values(Iqdet()(points, moved, predictions, images=2))
    assert {(int(order[row]), point): value for (row, point), value in other.items()} == found
    doubled = Points(points.xy * 2, points.stride * 2, points.level, points.boxes * 2)
    large = Targets(boxes=boxes * 2, labels=targets.labels, image=image)
    twice = values(Iqdet()(doubled, large, Predictions(predictions.logits, predictions.boxes * 2), images=2))
    assert twice == pytest.approx(found, rel=1e-4)


def test_wrong_options(points: Points, make_targets: MakeTargets) -> None:
    with pytest.raises(ConfigError, match="predictions must be given, not None"):
        Iqdet()(points, make_targets(1), images=1)
    for name, value in {"samples": 0, "components": 0, "steps": 0, "alpha": 1.5}.items():
        with pytest.raises(ConfigError, match=f"iqdet: {name} must be .* got {value}"):
            Iqdet(**{name: value})
