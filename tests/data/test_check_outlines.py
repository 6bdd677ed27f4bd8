"""Rings that cross themselves, against the slow way."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clearsight.data import check_outlines as module
from clearsight.data.check_outlines import crossings, find_crossing
from clearsight.ops.contours import join_rings
from clearsight.ops.outlines import mask_to_polygons
from clearsight.ops.polygons import self_intersections

SQUARE = np.array([(2.0, 2.0), (8.0, 2.0), (8.0, 8.0), (2.0, 8.0)])
BOW = SQUARE[[0, 1, 3, 2]]


def test_a_bow_crosses_itself_in_its_middle() -> None:
    assert crossings(BOW).tolist() == [[5, 5]]
    assert crossings(SQUARE).shape == (0, 2)
    assert find_crossing([SQUARE, BOW, SQUARE + 3, BOW * 7 - 100]) == [1, 3]
    assert find_crossing([]) == find_crossing([np.empty((0, 2)), SQUARE[:2]]) == []


def test_rings_of_one_image_do_not_cross_each_other() -> None:
    assert find_crossing([SQUARE, SQUARE + 3, SQUARE * (1, 5) - (0, 9)]) == []


@pytest.mark.parametrize(
    "ring",
    [
        np.concatenate((SQUARE, SQUARE[:1])),  # closed by its first vertex
        np.repeat(SQUARE, 3, axis=0),
        np.array([(0, 0), (4, 0), (2, 2), (4, 4), (0, 4), (2, 2.0)]),  # touches itself at a vertex
        np.array([(0, 0), (6, 0), (6, 2), (3, 2), (3, 0), (2, 0), (2, 4), (0, 4.0)]),  # runs along itself
    ],
)
def test_what_only_touches_does_not_cross(ring: np.ndarray) -> None:
    assert find_crossing([ring]) == []


def test_bridges_to_holes_and_parts_are_no_crossings() -> None:
    mask = np.zeros((30, 40), dtype=bool)
    mask[2:28, 2:38], mask[10:20, 10:38], mask[14:17, 25:28] = True, False, True  # a C with a speck in its mouth
    ring = join_rings(mask_to_polygons(mask))
    assert len(self_intersections(ring, touching=False))  # the bridge does cross an edge
    assert find_crossing([ring, join_rings([BOW, SQUARE + 20])]) == [1]


@pytest.mark.parametrize("pairs", [3, 1_000_000])
@given(st.lists(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=3, max_size=8), max_size=4))
def test_the_sweep_finds_what_every_pair_of_edges_shows(pairs: int, rings) -> None:
    arrays = [np.array(ring, dtype=np.float64) for ring in rings]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_PAIRS_AT_ONCE", pairs)
        assert find_crossing(arrays) == [number for number, ring in enumerate(arrays) if len(crossings(ring))]


def test_crossings_are_on_both_edges() -> None:
    ring = np.random.default_rng(3).uniform(0, 50, (9, 2))
    found = crossings(ring)
    pairs = self_intersections(ring, touching=False)
    assert len(found) == len(pairs) > 3
    for point, edges in zip(found, pairs, strict=True):
        for edge in edges:
            start, end = ring[edge], ring[(edge + 1) % 9]
            detour = np.linalg.norm(point - start) + np.linalg.norm(end - point) - np.linalg.norm(end - start)
            assert detour == pytest.approx(0, abs=1e-9)
