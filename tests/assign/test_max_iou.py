"""Overlap thresholds: by hand, against torchvision's matcher image by image."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torchvision.models.detection._utils import Matcher
from torchvision.ops import box_iou

from clearsight.assign.assignment import Points
from clearsight.assign.max_iou import MaxIou
from clearsight.errors import ConfigError
from clearsight.types import Targets


def boxes_as_points(boxes: list[list[float]]) -> Points:
    tensor = torch.tensor(boxes, dtype=torch.float32)
    count = len(tensor)
    xy = (tensor[:, :2] + tensor[:, 2:]) / 2
    return Points(xy, torch.full((count,), 8.0), torch.zeros(count, dtype=torch.int64), tensor)


def objects(boxes: list[list[float]], image: list[int], ignore: list[bool] | None = None) -> Targets:
    return Targets(
        boxes=torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
        labels=torch.zeros(len(boxes), dtype=torch.int64),
        image=torch.tensor(image, dtype=torch.int64),
        ignore=None if ignore is None else torch.tensor(ignore),
    )


def test_by_hand() -> None:
    # overlaps with the object: 0.6 (positive), 0.45 (neither), 0.2 (background), 0 (background)
    anchors = boxes_as_points([[0, 0, 6, 10], [0, 0, 4.5, 10], [0, 0, 2, 10], [20, 20, 30, 30]])
    found = MaxIou()(anchors, objects([[0, 0, 10, 10]], [0]), images=2)
    assert found.object.tolist() == [0]
    assert found.point.tolist() == [0]
    assert found.background.tolist() == [[0, 0, 1, 1], [1, 1, 1, 1]]
    assert found.quality is None


def test_the_best_anchor_is_forced() -> None:
    anchors = boxes_as_points([[0, 0, 2, 10], [0, 0, 3, 10], [7, 0, 10, 10]])  # 0.2, and 0.3 twice
    targets = objects([[0, 0, 10, 10]], [0])
    assert MaxIou()(anchors, targets, images=1).point.tolist() == [1, 2]
    assert MaxIou(force_best=False)(anchors, targets, images=1).point.tolist() == []


def test_an_object_that_no_anchor_touches_forces_none() -> None:
    found = MaxIou()(boxes_as_points([[0, 0, 5, 5]]), objects([[50, 50, 60, 60]], [0]), images=1)
    assert found.object.tolist() == []
    assert found.background.tolist() == [[1]]


def test_a_contested_anchor_goes_to_the_larger_overlap() -> None:
    found = MaxIou()(boxes_as_points([[0, 0, 10, 10]]), objects([[0, 0, 8, 10], [0, 0, 9, 10]], [0, 0]), images=1)
    assert found.object.tolist() == [1]


@pytest.mark.parametrize("force_best", [True, False])
@pytest.mark.parametrize("counts", [(3, 0, 5), (0, 0), (1,), (0, 9, 1, 0)])
def test_is_torchvisions_matcher(
    anchors: Points, make_targets: Callable[..., Targets], counts: tuple[int, ...], *, force_best: bool
) -> None:
    targets = make_targets(*counts)
    found = MaxIou(positive=0.45, negative=0.3, force_best=force_best)(anchors, targets, images=len(counts))
    matcher = Matcher(0.45, 0.3, allow_low_quality_matches=force_best)
    pairs = set(zip(found.object.tolist(), found.point.tolist(), strict=True))
    assert len(pairs) == len(found.object)
    expected = set()
    for image, count in enumerate(counts):
        first = sum(counts[:image])
        if not count:
            assert found.background[image].min() == 1
            continue
        matched = matcher(box_iou(targets.boxes[first : first + count], anchors.boxes))
        expected |= {(first + int(m), p) for p, m in enumerate(matched.tolist()) if m >= 0}
        torch.testing.assert_close(found.background[image], (matched == Matcher.BELOW_LOW_THRESHOLD).float())
    assert pairs == expected
    assert sum(counts) == 0 or not force_best or expected


def test_ignored_objects(anchors: Points, make_targets: Callable[..., Targets]) -> None:
    targets = make_targets(6, 4, ignored=True)
    assert targets.ignore is not None
    assert targets.ignore.any()
    found = MaxIou(positive=0.4, negative=0.3)(anchors, targets, images=2)
    assert not targets.ignore[found.object].any()
    kept = ~targets.ignore
    without = Targets(boxes=targets.boxes[kept], labels=targets.labels[kept], image=targets.image[kept])
    reference = MaxIou(positive=0.4, negative=0.3)(anchors, without, images=2)
    assert kept.nonzero().squeeze(1)[reference.object].tolist() == found.object.tolist()
    assert reference.point.tolist() == found.point.tolist()
    for row in targets.ignore.nonzero().squeeze(1).tolist():
        left, top, right, bottom = targets.boxes[row].tolist()
        x, y = anchors.xy.unbind(1)
        within = (x > left) & (x < right) & (y > top) & (y < bottom)
        assert found.background[targets.image[row], within].sum() == 0


def test_thresholds_out_of_order() -> None:
    with pytest.raises(ConfigError, match=r"negative \(0.6\) must not exceed positive \(0.5\)"):
        MaxIou(positive=0.5, negative=0.6)


@pytest.mark.parametrize("force_best", [True, False])
@pytest.mark.parametrize(("positive", "negative"), [(0.5, 0.4), (0.1, 0.1), (1.0, 0.001), (0.3, 0.0), (0.0, 0.0)])
def test_is_the_matrix_of_all_pairs(
    make_awkward: Callable[[int], tuple[Points, Targets, int]], positive: float, negative: float, *, force_best: bool
) -> None:
    for seed in range(30):
        points, targets, images = make_awkward(seed)
        found = MaxIou(positive=positive, negative=negative, force_best=force_best)(points, targets, images=images)
        expected = []
        for image in range(images):
            usable = targets.image == image
            if targets.ignore is not None:
                usable &= ~targets.ignore
            rows = usable.nonzero().squeeze(1)
            if not len(rows):
                continue
            overlap = box_iou(targets.boxes[rows], points.boxes).nan_to_num(0.0)  # 0 / 0 of two empty ones
            best = overlap.amax(dim=0)
            chosen = best >= positive
            if force_best:
                most = overlap.amax(dim=1, keepdim=True)
                chosen |= ((overlap == most) & (most > 0)).any(dim=0)
            first = (overlap == best).int().argmax(dim=0)
            expected += [(int(rows[first[p]]), p) for p in chosen.nonzero().squeeze(1).tolist()]
            assert found.background[image][(best >= negative) | chosen].sum() == 0
            if targets.ignore is None:
                assert found.background[image].sum() == ((best < negative) & ~chosen).sum()
        assert list(zip(found.object.tolist(), found.point.tolist(), strict=True)) == expected, seed
