"""One nearest point for each object: by hand, against a loop over images, objects and points."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from clearsight.assign.assignment import Assignment, Points
from clearsight.assign.nearest_points import NearestPoints
from clearsight.errors import ConfigError
from clearsight.models.detect.dense import level_shapes, make_points
from clearsight.types import Targets

STRIDES = (8, 16, 32, 64, 128)
FIVE = make_points(level_shapes((256, 320), STRIDES), STRIDES, offset=0.0)


def objects(boxes: list[list[float]], image: list[int] | None = None) -> Targets:
    return Targets(
        boxes=torch.tensor(boxes, dtype=torch.float32).view(-1, 4),
        labels=torch.zeros(len(boxes), dtype=torch.int64),
        image=torch.tensor(image or [0] * len(boxes), dtype=torch.int64),
    )


def square(x: float, y: float, side: float) -> list[float]:
    return [x - side / 2, y - side / 2, x + side / 2, y + side / 2]


def pairs(found: Assignment) -> list[tuple[int, int]]:
    return list(zip(found.object.tolist(), found.point.tolist(), strict=True))


def one_by_one(points: Points, targets: Targets, images: int, scale: float = 4.0) -> list[tuple[int, int]]:
    """Image by image, an object after the other: the level, its nearest point, and who keeps it."""
    chosen = []
    xy, strides = points.xy.tolist(), points.stride.tolist()
    exponents = [math.floor(math.log2(stride)) for stride in strides]
    for image in range(images):
        taken: dict[int, tuple[float, int]] = {}
        for row, (left, top, right, bottom) in enumerate(targets.boxes.tolist()):
            if int(targets.image[row]) != image or (targets.ignore is not None and bool(targets.ignore[row])):
                continue
            x, y = ((targets.boxes[row, :2] + targets.boxes[row, 2:]) / 2).tolist()
            width, height = max(right - left, 1e-6), max(bottom - top, 1e-6)
            level = math.floor(math.log2(math.sqrt(width * height) / scale))
            level = max((exponent for exponent in exponents if exponent <= level), default=min(exponents))
            nearest, best = -1, math.inf
            for p, exponent in enumerate(exponents):
                away = (xy[p][0] - x) ** 2 + (xy[p][1] - y) ** 2
                if exponent == level and away < best:
                    nearest, best = p, away
            own = ((xy[nearest][0] - x) / width) ** 2 + ((xy[nearest][1] - y) / height) ** 2
            if nearest not in taken or own < taken[nearest][0] * (1 - 1e-6):
                taken[nearest] = (own, row)
        chosen += [(row, p) for p, (_, row) in sorted(taken.items())]
    return chosen


def test_by_hand() -> None:
    """Strides 8 and 16 on 64 × 64, so points 0 to 63 in rows of 8 and 64 to 79 in rows of 4."""
    points = make_points([(8, 8), (4, 4)], [8, 16], offset=0.0)
    targets = objects(
        [
            square(17.0, 30.0, 32.0),  # 32 / 4 = 8: first level, column 2 (16), row 4 (32)
            square(33.0, 33.0, 63.9),  # still below 16: column 4, row 4
            square(33.0, 33.0, 64.0),  # 64 / 4 = 16: second level, column 2, row 2
            [20.0, 0.0, 36.0, 256.0],  # sides of 16 and 256 have the area of 64: column 2 of 28 / 16, lowest row
            square(300.0, -50.0, 2.0),  # far outside and tiny: the corner of the first level
        ]
    )
    found = NearestPoints()(points, targets, images=2)
    assert sorted(pairs(found)) == [(0, 4 * 8 + 2), (1, 4 * 8 + 4), (2, 64 + 2 * 4 + 2), (3, 64 + 3 * 4 + 2), (4, 7)]
    assert found.point.tolist() == sorted(found.point.tolist())
    assert found.weight.tolist() == [1.0] * 5
    assert found.quality is None
    assert found.background[1].min() == 1
    assert found.background[0].nonzero().numel() == 80 - 5


def test_between_two_points_the_first_is_taken() -> None:
    points = make_points([(4, 4)], [8], offset=0.0)
    assert NearestPoints()(points, objects([square(12.0, 4.0, 9.0)]), images=1).point.tolist() == [1]


def test_a_contested_point_goes_to_whose_centre_is_nearest_in_its_own_size() -> None:
    points = make_points([(4, 4)], [8], offset=0.0)
    # 3 of 30 pixels off, 2 of 10: the larger object has it although its centre is farther in pixels
    found = NearestPoints()(points, objects([square(10.0, 8.0, 10.0), square(11.0, 8.0, 30.0)]), images=1)
    assert pairs(found) == [(1, 5)]
    same = objects([square(9.0, 9.0, 20.0)] * 3 + [square(9.0, 9.0, 20.0)], [0, 0, 0, 1])
    assert pairs(NearestPoints()(points, same, images=2)) == [(0, 5), (3, 5)]


@pytest.mark.parametrize("ignored", [False, True])
@pytest.mark.parametrize("counts", [(9, 0, 14), (0, 0, 0), (1, 0, 0), (0, 1000, 3)])
def test_equals_the_loop(
    points: Points, make_targets: Callable[..., Targets], counts: tuple[int, ...], *, ignored: bool
) -> None:
    targets = make_targets(*counts, ignored=ignored)
    found = NearestPoints()(points, targets, images=3)
    assert pairs(found) == one_by_one(points, targets, 3)
    if targets.ignore is not None:
        assert not targets.ignore[found.object].any()
    assert found.background[targets.image[found.object], found.point].sum() == 0
    finer = NearestPoints(scale=1.5)(points, targets, images=3)
    assert pairs(finer) == one_by_one(points, targets, 3, 1.5)


def test_equals_the_loop_on_any_grid(make_awkward: Callable[[int], tuple[Points, Targets, int]]) -> None:
    for seed in range(40):
        points, targets, images = make_awkward(seed)
        if seed % 5 == 2:
            continue  # centres so far away that float32 cannot tell points apart
        assert pairs(NearestPoints()(points, targets, images=images)) == one_by_one(points, targets, images), seed


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**31), st.integers(1, 25))
def test_order_and_scale_do_not_matter(seed: int, count: int) -> None:
    draw = torch.Generator().manual_seed(seed)
    corner = torch.rand(count + 3, 2, generator=draw) * torch.tensor([300.0, 240.0])
    side = torch.exp(torch.rand(count + 3, 2, generator=draw) * 6)
    image = torch.tensor([0] * count + [1] * 3)
    targets = Targets(boxes=torch.cat((corner, corner + side), 1), labels=torch.zeros_like(image), image=image)
    found = NearestPoints()(FIVE, targets, images=2)
    order = torch.cat((torch.randperm(count, generator=draw), torch.arange(count, count + 3)))
    moved = Targets(boxes=targets.boxes[order], labels=targets.labels, image=image)
    other = NearestPoints()(FIVE, moved, images=2)
    assert order[other.object].tolist() == found.object.tolist()
    assert other.point.tolist() == found.point.tolist()
    doubled = Points(FIVE.xy * 2, FIVE.stride * 2, FIVE.level, FIVE.boxes * 2)
    large = Targets(boxes=targets.boxes * 2, labels=targets.labels, image=image)
    assert pairs(NearestPoints()(doubled, large, images=2)) == pairs(found)


def test_wrong_scale() -> None:
    for scale in (0.0, -1.0, math.nan, math.inf):
        with pytest.raises(ConfigError, match="scale must be above 0 strides, got"):
            NearestPoints(scale=scale)
