"""Outlines of objects in every form that files have."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clearsight.data.object_rings import is_union, object_rings
from clearsight.ops.masks import mask_to_rle
from clearsight.ops.outlines import polygons_to_mask
from clearsight.types import Object

SIZE = (30, 40)
WHOLE = (0.0, 0.0, 40.0, 30.0)


def square(left: float, top: float, side: float) -> np.ndarray:
    return np.array([(left, top), (left + side, top), (left + side, top + side), (left, top + side)])


def test_polygons_are_given_as_they_are() -> None:
    rings = [square(1, 2, 10), square(3, 4, 2)]
    item = Object(label=0, box=WHOLE, polygons=rings)
    assert [ring.tolist() for ring in object_rings(item, SIZE)] == [ring.tolist() for ring in rings]
    assert not is_union(item)
    assert object_rings(Object(label=0, box=WHOLE), SIZE) == []


def test_run_lengths_win_over_polygons() -> None:
    mask = np.zeros(SIZE, dtype=bool)
    mask[3:20, 5:9], mask[6:8, 6:8] = True, False
    item = Object(label=0, box=WHOLE, polygons=[square(0, 0, 3)], rle=mask_to_rle(mask))
    assert np.array_equal(polygons_to_mask(object_rings(item, SIZE), SIZE), mask)


@given(st.lists(st.tuples(st.integers(-20, 45), st.integers(-20, 35), st.integers(1, 30)), min_size=2, max_size=4))
@pytest.mark.parametrize("size", [SIZE, None])
def test_united_parts_cover_what_any_covers(size, squares) -> None:
    rings = [square(*one) + 0.25 for one in squares]
    item = Object(label=0, box=WHOLE, polygons=rings, attributes={"fill": "union"})
    assert is_union(item)
    got = polygons_to_mask(object_rings(item, size), SIZE)
    assert np.array_equal(got, polygons_to_mask(rings, SIZE, fill="union"))


@pytest.mark.parametrize(("fill", "area"), [("even_odd", 96), ("union", 100)])
def test_a_ring_within_a_ring_is_a_hole_unless_they_unite(fill: str, area: int) -> None:
    item = Object(label=0, box=WHOLE, polygons=[square(1, 2, 10), square(3, 4, 2)], attributes={"fill": fill})
    assert polygons_to_mask(object_rings(item, SIZE), SIZE).sum() == area
