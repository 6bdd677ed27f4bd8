"""How levels stand, read back from their points."""

from __future__ import annotations

import torch

from clearsight.assign.assignment import Points
from clearsight.assign.level_grid import LevelGrid, level_grids
from clearsight.models.detect.dense import make_points

SQUARES = [torch.tensor([[-4.0, -4, 4, 4], [-6.0, -3, 6, 3]])] * 2


def grid() -> Points:
    return make_points([(3, 5), (1, 2)], (8, 16), anchors=SQUARES)


def test_rows_columns_and_anchors() -> None:
    first, second = level_grids(grid())
    assert first == LevelGrid(start=0, size=30, anchors=2, columns=5)
    assert second == LevelGrid(start=30, size=4, anchors=2, columns=2)
    assert (first.rows, second.rows) == (3, 1)


def test_of_one_point_and_of_none() -> None:
    assert level_grids(make_points([(1, 1)], (8,))) == [LevelGrid(0, 1, 1, 1)]
    assert level_grids(Points(*(tensor[:0] for tensor in grid()))) == []


def test_any_point_out_of_its_row_or_column_is_seen() -> None:
    for name in ("xy", "boxes"):
        whole = getattr(grid(), name)
        for axis in range(whole.shape[1]):
            for index in range(2, 30):
                moved = whole.clone()
                moved[index, axis] += 0.25
                found = level_grids(grid()._replace(**{name: moved}))
                assert found[0].columns == found[0].rows == 0, (name, axis, index)
                assert found[1].columns == 2
