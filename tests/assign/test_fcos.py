"""Centre sampling: by hand, against torchvision's matching, against a loop over objects and points."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from assigner_loops import fcos_loop
from clearsight.assign.assignment import Assignment, Points
from clearsight.assign.fcos import CentreSampling
from clearsight.errors import ConfigError
from clearsight.models.detect.dense import level_shapes, make_points
from clearsight.types import Targets

STRIDES = (8, 16, 32, 64, 128)
FIVE = make_points(level_shapes((256, 320), STRIDES), STRIDES)


def some_objects(*counts: int, seed: int = 0) -> Targets:
    """Boxes of 1 to 300 pixels; corners are multiples of 4, so that no area is rounded in torchvision's comparison."""
    draw = torch.Generator().manual_seed(seed)
    count = sum(counts)
    corner = torch.rand(count, 2, generator=draw) * torch.tensor([300.0, 240.0])
    side = torch.exp(torch.rand(count, 2, generator=draw) * math.log(300))
    boxes = torch.cat((corner, corner + side), dim=1).div(4).round() * 4
    image = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    return Targets(boxes=boxes, labels=torch.zeros(count, dtype=torch.int64), image=image)


def one(*box: float) -> Targets:
    zero = torch.zeros(1, dtype=torch.int64)
    return Targets(boxes=torch.tensor([box]), labels=zero, image=zero)


def pairs(found: Assignment) -> set[tuple[int, int]]:
    return set(zip(found.object.tolist(), found.point.tolist(), strict=True))


def one_by_one(points: Points, targets: Targets, radius: float | None, bounds: tuple[float, ...]) -> set:
    claims: dict[tuple[int, int], tuple[float, int]] = {}
    edges = (0.0, *bounds, math.inf)
    for row, (left, top, right, bottom) in enumerate(targets.boxes.tolist()):
        if targets.ignore is not None and targets.ignore[row]:
            continue
        for p, (x, y) in enumerate(points.xy.tolist()):
            level, stride = int(points.level[p]), float(points.stride[p])
            sides = (x - left, y - top, right - x, bottom - y)
            off = max(abs(x - (left + right) / 2), abs(y - (top + bottom) / 2))
            central = radius is None or off < radius * stride
            if min(sides) > 0 and central and edges[level] < max(sides) < edges[level + 1]:
                place, area = (int(targets.image[row]), p), (right - left) * (bottom - top)
                if place not in claims or area < claims[place][0]:
                    claims[place] = (area, row)
    return {(row, p) for (_, p), (_, row) in claims.items()}


@pytest.mark.parametrize("counts", [(12, 0, 30), (1,), (0, 0), (0, 60, 5), (1000,)])
@pytest.mark.parametrize("radius", [1.5, 0.7, 3.0])
def test_is_torchvisions_matching(counts: tuple[int, ...], radius: float) -> None:
    targets = some_objects(*counts)
    found = CentreSampling(radius=radius)(FIVE, targets, images=len(counts))
    expected = fcos_loop(FIVE, targets, len(counts), radius=radius)
    assert pairs(found) == {(int(row), int(point)) for row, point in expected}
    assert len(found.object) == len(expected)
    assert sum(counts) < 10 or len(expected) > 10
    assert found.quality is None
    assert found.background.sum() == found.background.numel() - len(expected)
    assert found.background[targets.image[found.object], found.point].sum() == 0


@pytest.mark.parametrize("radius", [None, 1.5])
@pytest.mark.parametrize("ignored", [False, True])
def test_equals_the_loop(
    points: Points, make_targets: Callable[..., Targets], radius: float | None, *, ignored: bool
) -> None:
    targets = make_targets(9, 0, 14, ignored=ignored)
    found = CentreSampling(radius=radius, bounds=(20.0, 35.0))(points, targets, images=3)
    expected = one_by_one(points, targets, radius, (20.0, 35.0))
    assert pairs(found) == expected
    assert len({point for _, point in expected}) > 20
    if ignored:
        assert not targets.ignore[found.object].any()


def test_by_hand() -> None:
    """A box of 40 × 40 on one level of stride 8: of the points at 4, 12, 20, 28, 36 the middle three are within 12."""
    points = make_points([(5, 5)], [8])
    found = CentreSampling()(points, one(0.0, 0.0, 40.0, 40.0), images=1)
    assert found.point.tolist() == [6, 7, 8, 11, 12, 13, 16, 17, 18]
    # 12 strides of radius 1.5 off the centre is not less than 12: a centre between points leaves two by two, not four.
    found = CentreSampling()(points, one(0.0, 0.0, 32.0, 32.0), images=1)
    assert found.point.tolist() == [6, 7, 11, 12]


@pytest.mark.parametrize(
    ("side", "levels"), [(111, [0]), (113, [0, 1]), (121, [1]), (223, [1]), (225, [1, 2]), (241, [2])]
)
def test_the_ranges(side: float, levels: list[int]) -> None:
    """The four points around the centre are half a stride off, so the farthest side is (side + stride) / 2 away."""
    points = make_points([(32, 32), (16, 16), (8, 8)], [8, 16, 32])
    low, high = 128 - side / 2, 128 + side / 2
    found = CentreSampling(radius=0.6)(points, one(low, low, high, high), images=1)
    assert points.level[found.point].tolist() == [level for level in levels for _ in range(4)]


def test_a_bound_belongs_to_neither_level() -> None:
    xy = torch.tensor([[100.0, 100.0], [100.0, 100.0]])
    points = Points(xy, torch.tensor([8.0, 16.0]), torch.tensor([0, 1]), torch.cat((xy - 4, xy + 4), 1))
    for half, taken in ((63.0, [0]), (64.0, []), (65.0, [1])):
        box = (100 - half, 100 - half, 100 + half, 100 + half)
        assert CentreSampling()(points, one(*box), images=1).point.tolist() == taken


def test_areas_are_not_rounded() -> None:
    """Areas of 100 and 99: torchvision's float32 cannot tell them apart and takes the first."""
    points = make_points([(2, 2)], [8])
    boxes = torch.tensor([[0.0, 0.0, 10.0, 10.0], [0.0, 0.0, 10.0, 9.9]])
    targets = Targets(boxes=boxes, labels=torch.tensor([0, 1]), image=torch.tensor([0, 0]))
    assert CentreSampling()(points, targets, images=1).object.tolist() == [1]
    assert fcos_loop(points, targets, 1).tolist() == [[0, 0]]


def test_odd_objects() -> None:
    boxes = [[50.2, 50.2, 50.6, 50.6], [-500.0, -500.0, 900.0, 900.0], [9.0, 9.0, 9.0, 30.0], [400.0, 400.0, 420, 420]]
    same = [[40.0, 40.0, 90.0, 90.0]] * 3
    targets = Targets(
        boxes=torch.tensor(boxes + same),
        labels=torch.zeros(7, dtype=torch.int64),
        image=torch.zeros(7, dtype=torch.int64),
    )
    found = CentreSampling()(FIVE, targets, images=1)
    # under a pixel, without a width, outside of the grid: no point; larger than the image: on the last level
    assert set(found.object.tolist()) == {1, 4}
    assert FIVE.level[found.point[found.object == 1]].unique().tolist() == [4]


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**31), st.integers(1, 25))
def test_order_and_scale_do_not_matter(seed: int, count: int) -> None:
    targets = some_objects(count, 3, seed=seed)
    targets.boxes = targets.boxes + torch.rand(len(targets.boxes), 4)  # no two areas alike
    found = CentreSampling()(FIVE, targets, images=2)
    order = torch.cat((torch.randperm(count), torch.arange(count, count + 3)))
    moved = Targets(boxes=targets.boxes[order], labels=targets.labels, image=targets.image)
    other = CentreSampling()(FIVE, moved, images=2)
    assert order[other.object].tolist() == found.object.tolist()
    assert other.point.tolist() == found.point.tolist()
    doubled = Points(FIVE.xy * 2, FIVE.stride * 2, FIVE.level, FIVE.boxes * 2)
    large = Targets(boxes=targets.boxes * 2, labels=targets.labels, image=targets.image)
    assert pairs(CentreSampling()(doubled, large, images=2)) == pairs(found)


def test_wrong_options(points: Points) -> None:
    for radius in (0.0, -1.0, math.nan):
        with pytest.raises(ConfigError, match="radius must be above 0 strides, or None, got"):
            CentreSampling(radius=radius)
    for bounds in ((64.0, 64.0), (0.0, 10.0), (100.0, 50.0)):
        with pytest.raises(ConfigError, match="bounds must rise from above 0 pixels"):
            CentreSampling(bounds=bounds)
    with pytest.raises(ConfigError, match="3 levels meet at 2 bounds, got 1"):
        CentreSampling(bounds=(64.0,))(points, one(0.0, 0.0, 9.0, 9.0), images=1)
