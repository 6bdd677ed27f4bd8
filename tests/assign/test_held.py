"""Points of small and large objects."""

from __future__ import annotations

import torch

from assigner_loops_bags import held_points
from clearsight.assign.assignment import Points
from clearsight.assign.held import pairs_held


def test_equals_the_loop(points: Points) -> None:
    corner = torch.rand(40, 2) * torch.tensor([120.0, 90.0])
    boxes = torch.cat((corner, corner + torch.rand(40, 2) ** 3 * 60), dim=1)
    boxes[3] = torch.tensor([-500.0, -500.0, 500.0, 500.0])
    boxes[4] = torch.tensor([900.0, 900.0, 950.0, 950.0])
    boxes[5] = torch.tensor([7.0, 7.0, 7.0, 7.0])
    row, point = pairs_held(points, boxes)
    expected = [(r, p) for r, box in enumerate(boxes.tolist()) for p in held_points(points, box)]
    assert list(zip(row.tolist(), point.tolist(), strict=True)) == expected
    counts = torch.bincount(row, minlength=40)
    assert counts[4] == 0  # far off the grid
    assert counts[3] == len(points.xy)
    assert counts[5] >= 3  # of each level one at least


def test_no_objects(points: Points) -> None:
    assert [len(part) for part in pairs_held(points, torch.zeros(0, 4))] == [0, 0]
