"""The loops that the benchmark times give what the assigners give, at a size near the benchmark's."""

from __future__ import annotations

import pytest
import torch

from assigners import Case, Pair, make_case, pairs


@pytest.fixture(scope="module")
def case() -> Case:
    """Two images of 192 pixels with 15 objects each."""
    torch.manual_seed(3)
    return make_case(images=2, objects=15, size=192, classes=5)


@pytest.mark.parametrize("pair", pairs(), ids=lambda pair: pair.name)
def test_both_sides_agree(case: Case, pair: Pair) -> None:
    grid = case.cells if pair.grid == "cells" else case.points
    found = pair.ours()(grid, case.targets, case.predictions, images=case.images)
    kept = found.weight > 0  # a pair of weight 0 only says what is no background
    ours = set(zip(found.object[kept].tolist(), found.point[kept].tolist(), strict=True))
    theirs = {(int(row), int(point)) for row, point in pair.loop(case)}
    assert ours == theirs
    assert len(ours) >= 15
