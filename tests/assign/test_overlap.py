"""Pairs of objects and anchors against the full matrix of overlaps, bit by bit."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from clearsight.assign.assignment import Points
from clearsight.assign.overlap import overlapping_pairs
from clearsight.models.detect.dense import make_points
from clearsight.ops.boxes import box_iou
from clearsight.types import Targets

Make = Callable[[int], tuple[Points, Targets, int]]


@pytest.mark.parametrize("best", [False, True])
@pytest.mark.parametrize("least", [1e-30, 0.01, 0.4, 1.0])
def test_is_the_matrix(make_awkward: Make, least: float, *, best: bool) -> None:
    seen = 0
    for seed in range(40):
        points, targets, _ = make_awkward(seed)
        row, point, overlap = overlapping_pairs(points, targets.boxes, least, best=best)
        matrix = box_iou(targets.boxes, points.boxes)
        wanted = matrix >= least
        if best and len(matrix):
            wanted |= (matrix == matrix.amax(dim=1, keepdim=True)) & (matrix > 0)
        order = (row * len(points.xy) + point).argsort()
        assert torch.stack((row, point), dim=1)[order].tolist() == wanted.nonzero().tolist(), seed
        assert torch.equal(overlap, matrix[row, point]), seed
        by_point = point.argsort(stable=True)
        same = point[by_point].diff() == 0
        assert (row[by_point].diff()[same] > 0).all()
        seen += len(row)
    assert seen > 10 or (least == 1.0 and not best)


def test_of_nothing(points: Points) -> None:
    for few, boxes in ((points, torch.zeros(0, 4)), (Points(*(tensor[:0] for tensor in points)), torch.ones(2, 4))):
        row, point, overlap = overlapping_pairs(few, boxes, 0.5, best=True)
        assert row.shape == point.shape == overlap.shape == (0,)
        assert row.dtype == point.dtype == torch.int64


def test_needs_no_matrix_of_all() -> None:
    points = make_points([(200, 200)], (8,))
    boxes = torch.rand(500, 2).mul(1500).repeat(1, 2) + torch.tensor([0.0, 0, 60, 60])
    with torch.profiler.profile(profile_memory=True) as measured:
        overlapping_pairs(points, boxes, 0.4, best=True)
    largest = max(event.cpu_memory_usage for event in measured.events() or ())
    assert largest < 4 * len(points.xy) * len(boxes) / 4  # a quarter of one float32 matrix
