"""What assigners share: conflicts, ranks, insides, background."""

from __future__ import annotations

import torch

from clearsight.assign.assignment import Points
from clearsight.assign.base import (
    assigned_objects,
    background_weight,
    inside,
    rank_in_group,
    resolve_conflicts,
)
from clearsight.types import Targets


def test_conflicts_by_hand() -> None:
    place = torch.tensor([7, 3, 7, 3, 9, 7])
    cost = torch.tensor([2.0, 5.0, 1.0, 5.0, 0.0, 1.0])
    assert resolve_conflicts(place, cost).tolist() == [1, 2, 4]  # equals: the first given


def test_conflicts_against_a_loop() -> None:
    place, cost = torch.randint(20, (200,)), torch.randint(5, (200,)).float()
    best: dict[int, int] = {}
    for i, (p, c) in enumerate(zip(place.tolist(), cost.tolist(), strict=True)):
        if p not in best or c < cost[best[p]]:
            best[p] = i
    assert resolve_conflicts(place, cost).tolist() == [best[p] for p in sorted(best)]


def test_ranks_against_a_loop() -> None:
    group, cost = torch.randint(6, (80,)), torch.randint(9, (80,)).float()
    expected = [sum(1 for j in range(80) if group[j] == group[i] and (cost[j], j) < (cost[i], i)) for i in range(80)]
    assert rank_in_group(group, cost).tolist() == expected


def test_of_nothing() -> None:
    nothing, none = torch.zeros(0, dtype=torch.int64), torch.zeros(0)
    assert resolve_conflicts(nothing, none).shape == (0,)
    assert rank_in_group(nothing, none).shape == (0,)


def test_inside_is_strict() -> None:
    xy = torch.tensor([[5.0, 5.0], [0.0, 5.0], [10.0, 5.0], [9.9, 0.1]])
    assert inside(xy, torch.tensor([[0.0, 0.0, 10.0, 10.0]])).tolist() == [[True, False, False, True]]


def test_background_is_off_at_positives_and_in_ignored_objects(points: Points) -> None:
    targets = Targets(
        boxes=torch.tensor([[0.0, 0.0, 20.0, 20.0], [0.0, 0.0, 10.0, 10.0]]),
        labels=torch.zeros(2, dtype=torch.int64),
        image=torch.tensor([0, 1]),
        ignore=torch.tensor([False, True]),
    )
    count = len(points.xy)
    weight = background_weight(points, targets, torch.tensor([5, 6]), images=3)
    assert assigned_objects(targets).tolist() == [0]
    assert (weight[0] == 0).nonzero().squeeze(1).tolist() == [5, 6]
    within = inside(points.xy, targets.boxes[1:])[0]
    assert within.sum() > 0
    torch.testing.assert_close(weight[1], (~within).float())
    torch.testing.assert_close(weight[2], torch.ones(count))
