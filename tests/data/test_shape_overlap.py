"""Pairs of objects with common pixels, against masks of the whole image."""

from __future__ import annotations

import numpy as np
import pytest

from clearsight.data import shape_overlap as module
from clearsight.data.object_strips import draw_strips
from clearsight.data.shape_overlap import find_overlaps
from clearsight.ops.masks import mask_to_rle
from clearsight.types import Object

SIZE = (40, 50)


@pytest.mark.parametrize(("pixels", "pairs"), [(16_000_000, 4_000_000), (1500, 7)])
def test_against_whole_masks(pixels: int, pairs: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_ROWS_OF_PAIRS", pairs)
    rng = np.random.default_rng(1)
    rows, columns = np.mgrid[: SIZE[0], : SIZE[1]] + 0.5
    centres, radii = rng.uniform((0, 0), SIZE, (20, 2)), rng.uniform(2, 9, 20)
    masks = [(rows - y) ** 2 + (columns - x) ** 2 < r * r for (y, x), r in zip(centres, radii, strict=True)]
    objects = [Object(label=0, box=(0, 0, 1, 1), rle=mask_to_rle(mask)) for mask in masks]
    got = find_overlaps(draw_strips(objects, SIZE, pixels=pixels))
    wanted = [
        (one, other, (masks[one] & masks[other]).sum() / (masks[one] | masks[other]).sum())
        for one in range(20)
        for other in range(one + 1, 20)
        if (masks[one] & masks[other]).any()
    ]
    assert len(wanted) > 5
    assert [pair[:2] for pair in sorted(got)] == [pair[:2] for pair in wanted]
    assert [pair[2] for pair in sorted(got)] == pytest.approx([pair[2] for pair in wanted])


def test_windows_that_overlap_where_masks_do_not() -> None:
    upper = np.triu(np.ones(SIZE, dtype=bool), 1)
    objects = [Object(label=0, box=(0, 0, 1, 1), rle=mask_to_rle(mask)) for mask in (upper, ~upper)]
    assert find_overlaps(draw_strips(objects, SIZE)) == []
    assert find_overlaps([]) == []
