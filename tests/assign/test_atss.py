"""ATSS against a loop over objects, levels and anchors."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from clearsight.assign.assignment import Points
from clearsight.assign.atss import Atss
from clearsight.models.detect.dense import make_points
from clearsight.types import Targets


def overlap(a: Tensor, b: Tensor) -> float:
    width = float(min(a[2], b[2]) - max(a[0], b[0]))
    height = float(min(a[3], b[3]) - max(a[1], b[1]))
    both = max(width, 0) * max(height, 0)
    area = [float((box[2] - box[0]) * (box[3] - box[1])) for box in (a, b)]
    return both / (sum(area) - both)


def one_by_one(points: Points, targets: Targets, candidates: int) -> set[tuple[int, int]]:
    """Pairs (object, point), object by object as the paper's algorithm 1 reads."""
    claims: dict[tuple[int, int], tuple[float, int]] = {}
    for row in range(len(targets.boxes)):
        if targets.ignore is not None and targets.ignore[row]:
            continue
        box = targets.boxes[row]
        centre = (box[:2] + box[2:]) / 2
        chosen: list[int] = []
        for level in range(int(points.level.max()) + 1):
            here = (points.level == level).nonzero().squeeze(1).tolist()
            squared = {p: float(((points.xy[p] - centre) ** 2).sum()) for p in here}
            places = list(dict.fromkeys(tuple(points.xy[p].tolist()) for p in here))
            first = {place: next(p for p in here if tuple(points.xy[p].tolist()) == place) for place in places}
            nearest = sorted(places, key=lambda place: squared[first[place]])[:candidates]  # sorted() is stable
            chosen += [p for p in here if tuple(points.xy[p].tolist()) in set(nearest)]
        overlaps = torch.tensor([overlap(points.boxes[p], box) for p in chosen], dtype=torch.float64)
        threshold = float(overlaps.mean() + overlaps.std())
        for p, value in zip(chosen, overlaps.tolist(), strict=True):
            x, y = points.xy[p].tolist()
            if value >= threshold and box[0] < x < box[2] and box[1] < y < box[3]:
                place = (int(targets.image[row]), p)
                if place not in claims or value > claims[place][0]:
                    claims[place] = (value, row)
    return {(row, p) for (_, p), (_, row) in claims.items()}


@pytest.mark.parametrize("counts", [(4, 0, 7), (1,), (0, 0), (0, 12)])
@pytest.mark.parametrize("grid", ["points", "anchors"])
@pytest.mark.parametrize("ignored", [False, True])
def test_equals_the_loop(
    request: pytest.FixtureRequest,
    make_targets: Callable[..., Targets],
    counts: tuple[int, ...],
    grid: str,
    *,
    ignored: bool,
) -> None:
    points: Points = request.getfixturevalue(grid)
    targets = make_targets(*counts, ignored=ignored)
    found = Atss(candidates=5)(points, targets, images=len(counts))
    pairs = set(zip(found.object.tolist(), found.point.tolist(), strict=True))
    assert pairs == one_by_one(points, targets, 5)
    assert len(pairs) == len(found.object)
    assert found.background.shape == (len(counts), len(points.xy))
    assert found.background[targets.image[found.object], found.point].sum() == 0
    if not ignored:
        assert found.background.sum() == found.background.numel() - len(pairs)
    if sum(counts) > 10:
        assert len(pairs) > 3


def test_several_anchors_a_location_multiply_the_candidates(anchors: Points) -> None:
    boxes = torch.tensor([[40.0, 40.0, 60.0, 60.0]])
    candidate = Atss(candidates=4)._nearest(anchors, boxes)
    assert candidate.shape == (1, 2 * 4 * 3)
    assert len(candidate.unique()) == 24
    assert (anchors.xy[candidate[0, :12]] - 50).abs().max() <= 8


def test_more_candidates_than_locations(points: Points, make_targets: Callable[..., Targets]) -> None:
    targets = make_targets(2)
    found = Atss(candidates=10_000)(points, targets, images=1)
    assert set(zip(found.object.tolist(), found.point.tolist(), strict=True)) == one_by_one(points, targets, 10_000)


@pytest.mark.parametrize(("second", "positive"), [(5.0, [0]), (7.2, [])])
def test_the_threshold_by_hand(second: float, positive: list[int]) -> None:
    """Overlaps 0.8, second / 10, 0, 0: the threshold is 0.720 for 0.5 and 0.820 for 0.72 (0.761 if it were biased)."""
    xy = torch.tensor([[5.0, 5.0], [4.0, 5.0], [6.0, 5.0], [5.0, 4.0]])
    far = [50.0, 50.0, 60.0, 60.0]
    boxes = torch.tensor([[0.0, 0.0, 10.0, 8.0], [0.0, 0.0, 10.0, second], far, far])
    points = Points(xy, torch.full((4,), 8.0), torch.zeros(4, dtype=torch.int64), boxes)
    targets = Targets(boxes=torch.tensor([[0.0, 0.0, 10.0, 10.0]]), labels=torch.tensor([0]), image=torch.tensor([0]))
    assert Atss(candidates=4)(points, targets, images=1).point.tolist() == positive


@pytest.mark.parametrize("candidates", [1, 4, 9, 1000])
def test_candidates_are_those_of_all_sorted_distances(
    make_awkward: Callable[[int], tuple[Points, Targets, int]], candidates: int
) -> None:
    for seed in range(60):
        points, targets, _ = make_awkward(seed)
        centre = (targets.boxes[:, :2] + targets.boxes[:, 2:]) / 2
        expected = []
        for level in range(int(points.level.max()) + 1):
            here = (points.level == level).nonzero().squeeze(1)
            anchors = int((points.xy[here] == points.xy[here[0]]).all(dim=1).sum())
            distance = ((points.xy[here[::anchors]] - centre[:, None]) ** 2).sum(dim=-1)
            nearest = distance.argsort(dim=1, stable=True)[:, :candidates]
            expected.append((here[0] + nearest[:, :, None] * anchors + torch.arange(anchors)).flatten(1))
        found = Atss(candidates=candidates)._nearest(points, targets.boxes)
        assert torch.equal(found, torch.cat(expected, dim=1)), seed


def test_equally_near_after_rounding() -> None:
    """So far from the grid that all of it is equally near in float32: the first ones in row order are taken."""
    points = make_points([(3, 40)], (8,))
    found = Atss(candidates=5)._nearest(points, torch.tensor([[158.0, 1e9, 162.0, 1e9 + 64]]))
    assert found.tolist() == [[0, 1, 2, 3, 4]]


def test_equally_near_in_a_row() -> None:
    """Halfway between two columns: the last of three is the first of two equals."""
    points = make_points([(1, 12)], (8,))
    found = Atss(candidates=3)._nearest(points, torch.tensor([[40.0, 0.0, 56.0, 8.0]]))
    assert found.tolist() == [[5, 6, 4]]
