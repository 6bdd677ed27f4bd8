"""MultiBox matching: by hand, and against torchvision's matcher image by image."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torchvision.models.detection._utils import SSDMatcher
from torchvision.ops import box_iou

from clearsight.assign.assignment import Points
from clearsight.assign.multibox import MultiBox
from clearsight.errors import ConfigError
from clearsight.types import Targets


def boxes_as_points(boxes: list[list[float]]) -> Points:
    tensor = torch.tensor(boxes, dtype=torch.float32)
    count = len(tensor)
    xy = (tensor[:, :2] + tensor[:, 2:]) / 2
    return Points(xy, torch.full((count,), 8.0), torch.zeros(count, dtype=torch.int64), tensor)


def objects(boxes: list[list[float]], image: list[int]) -> Targets:
    return Targets(
        boxes=torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
        labels=torch.zeros(len(boxes), dtype=torch.int64),
        image=torch.tensor(image, dtype=torch.int64),
    )


def test_by_hand() -> None:
    # overlaps with the object: 0.6 (positive), 0.45 (background), 0 (background)
    anchors = boxes_as_points([[0, 0, 6, 10], [0, 0, 4.5, 10], [20, 20, 30, 30]])
    found = MultiBox()(anchors, objects([[0, 0, 10, 10]], [1]), images=2)
    assert (found.object.tolist(), found.point.tolist()) == ([0], [0])
    assert found.background.tolist() == [[1, 1, 1], [0, 1, 1]]
    assert found.quality is None


def test_the_first_of_the_best_anchors_is_forced() -> None:
    anchors = boxes_as_points([[0, 0, 2, 10], [0, 0, 3, 10], [7, 0, 10, 10]])  # 0.2, and 0.3 twice
    assert MultiBox()(anchors, objects([[0, 0, 10, 10]], [0]), images=1).point.tolist() == [1]


def test_a_forced_anchor_leaves_the_object_that_it_overlaps_more() -> None:
    # the second object's best anchor is the first one, which overlaps the first object more; that has another, better
    anchors = boxes_as_points([[0, 0, 9, 10], [0, 0, 10, 10]])
    found = MultiBox()(anchors, objects([[0, 0, 10, 10], [0, 0, 5, 10]], [0, 0]), images=1)
    assert (found.object.tolist(), found.point.tolist()) == ([1, 0], [0, 1])


def test_a_contested_anchor_goes_to_the_larger_overlap() -> None:
    anchors = boxes_as_points([[0, 0, 10, 10]])
    assert MultiBox()(anchors, objects([[0, 0, 4, 10], [0, 0, 3, 10]], [0, 0]), images=1).object.tolist() == [0]
    assert MultiBox()(anchors, objects([[0, 0, 3, 10], [0, 0, 4, 10]], [0, 0]), images=1).object.tolist() == [1]
    assert MultiBox()(anchors, objects([[0, 0, 3, 10]] * 2, [0, 0]), images=1).object.tolist() == [0]


def test_objects_that_no_anchor_touches_force_none() -> None:
    anchors = boxes_as_points([[0, 0, 5, 5]])
    for box in ([50, 50, 60, 60], [2, 2, 2, 2]):
        for positive in (0.5, 0.0):
            found = MultiBox(positive=positive)(anchors, objects([box], [0]), images=1)
            assert found.object.tolist() == []
            assert found.background.tolist() == [[1]]


@pytest.mark.parametrize("counts", [(3, 0, 5), (0, 0), (1,), (0, 9, 1, 0)])
def test_is_torchvisions_matcher(
    anchors: Points, make_targets: Callable[..., Targets], counts: tuple[int, ...]
) -> None:
    targets = make_targets(*counts)
    found = MultiBox(positive=0.45)(anchors, targets, images=len(counts))
    pairs = set(zip(found.object.tolist(), found.point.tolist(), strict=True))
    assert len(pairs) == len(found.object)
    expected = set()
    for image, count in enumerate(counts):
        first = sum(counts[:image])
        if not count:
            assert found.background[image].min() == 1
            continue
        overlap = box_iou(targets.boxes[first : first + count], anchors.boxes)
        assert len(overlap.argmax(dim=1).unique()) == count  # contested anchors go another way there
        matched = SSDMatcher(0.45)(overlap)
        expected |= {(first + int(m), p) for p, m in enumerate(matched.tolist()) if m >= 0}
        torch.testing.assert_close(found.background[image], (matched < 0).float())
    assert pairs == expected
    place = targets.image[found.object] * len(anchors.xy) + found.point
    assert bool((place[1:] > place[:-1]).all())


def test_permuted_objects_permute_the_pairs(anchors: Points, make_targets: Callable[..., Targets]) -> None:
    targets = make_targets(7)
    order = torch.randperm(7)
    moved = Targets(boxes=targets.boxes[order], labels=targets.labels[order], image=targets.image)
    found, other = (MultiBox()(anchors, these, images=1) for these in (targets, moved))
    assert found.point.tolist() == other.point.tolist()
    assert found.object.tolist() == order[other.object].tolist()


def test_ignored_objects(anchors: Points, make_targets: Callable[..., Targets]) -> None:
    targets = make_targets(6, 4, ignored=True)
    assert targets.ignore is not None
    assert targets.ignore.any()
    found = MultiBox()(anchors, targets, images=2)
    kept = ~targets.ignore
    without = Targets(boxes=targets.boxes[kept], labels=targets.labels[kept], image=targets.image[kept])
    reference = MultiBox()(anchors, without, images=2)
    assert kept.nonzero().squeeze(1)[reference.object].tolist() == found.object.tolist()
    assert reference.point.tolist() == found.point.tolist()
    assert found.background.sum() < reference.background.sum()


def test_no_such_overlap() -> None:
    with pytest.raises(ConfigError, match=r"positive must be an overlap in \[0, 1\], got 1.5"):
        MultiBox(positive=1.5)


@pytest.mark.parametrize("positive", [0.0, 0.3, 0.5, 1.0])
def test_is_the_matrix_of_all_pairs(
    make_awkward: Callable[[int], tuple[Points, Targets, int]], positive: float
) -> None:
    for seed in range(30):
        points, targets, images = make_awkward(seed)
        found = MultiBox(positive=positive)(points, targets, images=images)
        expected = []
        for image in range(images):
            usable = targets.image == image
            if targets.ignore is not None:
                usable &= ~targets.ignore
            rows = usable.nonzero().squeeze(1).tolist()
            if not rows:
                continue
            overlap = box_iou(targets.boxes[rows], points.boxes).nan_to_num(0.0)  # 0 / 0 of two empty ones
            best = overlap.amax(dim=0)
            first = (overlap == best).int().argmax(dim=0).tolist()
            owner = {p: rows[first[p]] for p, value in enumerate(best.tolist()) if value >= positive and value > 0}
            forced: dict[int, tuple[float, int]] = {}
            for number, row in enumerate(rows):
                most = float(overlap[number].max())
                p = int((overlap[number] == most).int().argmax())
                if most > 0 and (p not in forced or most > forced[p][0]):
                    forced[p] = (most, row)
            owner |= {p: row for p, (_, row) in forced.items()}
            expected += [(owner[p], p) for p in sorted(owner)]
        assert list(zip(found.object.tolist(), found.point.tolist(), strict=True)) == expected, seed
