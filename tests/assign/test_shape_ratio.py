"""Shape matching: by hand, against a loop over objects and cells, and its edges."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from assigner_loops import shape_ratio_loop
from clearsight.assign.assignment import Assignment, Points
from clearsight.assign.shape_ratio import ShapeRatio
from clearsight.errors import ConfigError
from clearsight.models.detect.dense import level_shapes, make_points
from clearsight.types import Targets

SIZE = (96, 128)


def grid(sides: tuple[tuple[tuple[float, float], ...], ...] = (((10, 13), (16, 30)), ((30, 61), (62, 45)))) -> Points:
    """Levels of strides 8, 16, … with anchors of these widths and heights."""
    strides = [8 * 2**level for level in range(len(sides))]
    cells = [torch.tensor([[-w / 2, -h / 2, w / 2, h / 2] for w, h in level]) for level in sides]
    return make_points(level_shapes(SIZE, strides), strides, anchors=cells)


def box(x: float, y: float, width: float, height: float) -> Targets:
    zero = torch.zeros(1, dtype=torch.int64)
    boxes = torch.tensor([[x - width / 2, y - height / 2, x + width / 2, y + height / 2]])
    return Targets(boxes=boxes, labels=zero, image=zero)


def pairs(found: Assignment) -> set[tuple[int, int]]:
    return set(zip(found.object.tolist(), found.point.tolist(), strict=True))


def as_set(found: Tensor) -> set[tuple[int, int]]:
    return {(int(row), int(point)) for row, point in found}


@pytest.mark.parametrize("counts", [(4, 0, 9), (1,), (0, 0), (0, 30)])
@pytest.mark.parametrize("ignored", [False, True])
@pytest.mark.parametrize("ratio", [4.0, 1.8])
def test_equals_the_loop(
    make_targets: Callable[..., Targets], counts: tuple[int, ...], ratio: float, *, ignored: bool
) -> None:
    points, targets = grid(), make_targets(*counts, ignored=ignored)
    found = ShapeRatio(ratio=ratio)(points, targets, images=len(counts))
    expected = shape_ratio_loop(points, targets, len(counts), ratio=ratio)
    assert pairs(found) == as_set(expected)
    assert len(found.object) == len(expected)
    assert found.quality is None
    assert found.background[targets.image[found.object], found.point].sum() == 0
    if not ignored:
        assert found.background.sum() == found.background.numel() - len(expected)
        assert len(expected) >= sum(counts)


@pytest.mark.parametrize(
    ("x", "y", "cells"),
    [
        (21.0, 45.0, [(2, 5), (3, 5), (2, 6)]),  # 2.625, 5.625: right and below
        (17.0, 41.0, [(2, 5), (1, 5), (2, 4)]),  # 2.125, 5.125: left and above
        (20.0, 44.0, [(2, 5)]),  # in the very middle: no neighbour is nearer than the other
        (16.0, 44.0, [(2, 5), (1, 5)]),  # on the edge between two: the right one's, and its left neighbour
        (1.0, 1.0, [(0, 0)]),  # at the corner of the image
        (127.0, 95.0, [(15, 11)]),
        (133.0, 44.0, [(15, 5)]),  # outside: the cell at the edge
    ],
)
def test_cells_by_hand(x: float, y: float, cells: list[tuple[int, int]]) -> None:
    points = grid((((10, 10),),))
    found = ShapeRatio()(points, box(x, y, 10, 10), images=1)
    assert sorted(found.point.tolist()) == sorted(row * 16 + column for column, row in cells)
    alone = ShapeRatio(neighbours=False)(points, box(x, y, 10, 10), images=1)
    assert alone.point.tolist() == [cells[0][1] * 16 + cells[0][0]]


@pytest.mark.parametrize(
    ("width", "height", "taken"), [(39, 10, 1), (40, 10, 0), (41, 10, 0), (2.6, 10, 1), (2.5, 10, 0), (10, 2, 0)]
)
def test_ratios_by_hand(width: float, height: float, taken: int) -> None:
    """Against 10 × 10: below 4, either way round, in both sides."""
    assert len(ShapeRatio()(grid((((10, 10),),)), box(20, 44, width, height), images=1).point) == taken


def test_a_contested_anchor_goes_to_the_shape_most_like_it() -> None:
    points = grid((((10, 10), (20, 20)),))
    targets = Targets(
        boxes=torch.tensor([[5.0, 29.0, 35.0, 59.0], [14.0, 38.0, 26.0, 50.0]]),  # 30 × 30 and 12 × 12 around (20, 44)
        labels=torch.tensor([0, 1]),
        image=torch.tensor([0, 0]),
    )
    cell = (5 * 16 + 2) * 2
    assert pairs(ShapeRatio()(points, targets, images=1)) == {(1, cell), (0, cell + 1)}


def test_anchors_at_corners_of_cells(anchors: Points) -> None:
    """Points of offset 0 are the middle of their own cell, and the last ones also take what lies beyond."""
    for x, place in ((90.0, 11), (93.0, 12), (126.0, 15)):
        found = ShapeRatio(neighbours=False)(anchors, box(x, 44.0, 12, 12), images=1)
        here = found.point[anchors.level[found.point] == 0]
        assert len(here)
        assert (anchors.xy[here, 0] / 8).unique().tolist() == [place]


def test_odd_objects() -> None:
    boxes = [[50.2, 50.2, 50.6, 50.6], [-500.0, -500.0, 700.0, 700.0], [40.0, 40.0, 40.0, 50.0], [60.0, 60.0, 50, 50]]
    same = [[30.0, 30.0, 50.0, 50.0]] * 1000
    zero = torch.zeros(1004, dtype=torch.int64)
    targets = Targets(boxes=torch.tensor(boxes + same), labels=zero, image=zero)
    found = ShapeRatio()(grid(), targets, images=1)
    assert set(found.object.tolist()) == {4}  # too small, too large, no width, inverted; of equals the first


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**31), st.integers(1, 25))
def test_order_and_scale_do_not_matter(seed: int, count: int) -> None:
    draw = torch.Generator().manual_seed(seed)
    points = grid()
    corner = torch.rand(count + 3, 2, generator=draw) * torch.tensor([90.0, 60.0])
    boxes = torch.cat((corner, corner + torch.rand(count + 3, 2, generator=draw) * 50 + 3), dim=1)
    image = torch.tensor([0] * count + [1] * 3)
    targets = Targets(boxes=boxes, labels=torch.zeros_like(image), image=image)
    found = ShapeRatio()(points, targets, images=2)
    order = torch.cat((torch.randperm(count), torch.arange(count, count + 3)))
    other = ShapeRatio()(points, Targets(boxes=boxes[order], labels=targets.labels, image=image), images=2)
    assert order[other.object].tolist() == found.object.tolist()
    assert other.point.tolist() == found.point.tolist()
    doubled = Points(points.xy * 2, points.stride * 2, points.level, points.boxes * 2)
    large = Targets(boxes=boxes * 2, labels=targets.labels, image=image)
    assert pairs(ShapeRatio()(doubled, large, images=2)) == pairs(found)


def test_wrong_options() -> None:
    for ratio in (1.0, 0.25, math.nan):
        with pytest.raises(ConfigError, match="shape_ratio: ratio must be above 1, got"):
            ShapeRatio(ratio=ratio)
