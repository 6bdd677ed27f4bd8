"""Overlap of polygons by hand, against counted pixels under any affine map, and against fine rasters."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from clearsight.errors import DataError, ShapeError
from clearsight.ops.contours import join_rings, polygon_area
from clearsight.ops.outlines import masks_to_polygons, polygons_to_masks
from clearsight.ops.polygon_overlap import polygon_intersection, polygon_iou, polygon_iou_matrix

SQUARE = np.array([[0.0, 0.0], [4.0, 0.0], [4.0, 4.0], [0.0, 4.0]])
MASKS = arrays.arrays(bool, st.tuples(st.integers(1, 5), st.integers(1, 7), st.integers(1, 7)))
QUARTER_TURN_AND_SHEAR = np.array([[0.37, -1.21], [0.84, 0.53]])


def pixels(masks: np.ndarray, others: np.ndarray) -> np.ndarray:
    """IoU of every pair by counting."""
    a, b = masks.reshape(len(masks), -1).astype(int), others.reshape(len(others), -1).astype(int)
    both = a @ b.T
    union = a.sum(1)[:, None] + b.sum(1) - both
    return np.where(union > 0, both / np.maximum(union, 1), 0.0)


def test_squares_by_hand():
    assert polygon_iou(SQUARE, SQUARE) == 1
    assert polygon_iou(SQUARE, SQUARE + np.array([2, 0])) == pytest.approx(1 / 3, abs=1e-15)
    assert polygon_iou(SQUARE, SQUARE[::-1] / 2) == pytest.approx(1 / 4, abs=1e-15)
    assert polygon_iou(SQUARE, SQUARE + np.array([4, 0])) == 0  # a shared edge has no area
    assert polygon_iou(SQUARE, SQUARE + np.array([9, 9])) == 0
    diamond = np.array([[2.0, -2.0], [6.0, 2.0], [2.0, 6.0], [-2.0, 2.0]])
    assert polygon_intersection(SQUARE, diamond) == pytest.approx(16, abs=1e-12)
    assert polygon_intersection(SQUARE + np.array([2, 2]), diamond) == pytest.approx(8, abs=1e-12)


def test_concave_polygons_by_hand():
    comb = np.array([[0, 0], [5, 0], [5, 4], [4, 4], [4, 1], [3, 1], [3, 4], [2, 4], [2, 1], [1, 1], [1, 4], [0, 4]])
    bar = np.array([[-1, 2], [6, 2], [6, 3], [-1, 3]])
    assert polygon_intersection(comb, bar) == 3
    assert polygon_iou(comb, bar) == pytest.approx(3 / (14 + 7 - 3), abs=1e-15)


def test_a_ring_that_crosses_itself_has_both_its_loops():
    bow = np.array([[0.0, 0.0], [4.0, 4.0], [4.0, 0.0], [0.0, 4.0]])
    assert polygon_area(bow) == 0  # the shoelace formula takes one loop from the other
    assert polygon_intersection(bow, bow) == pytest.approx(8, abs=1e-12)
    assert polygon_iou(bow, SQUARE) == pytest.approx(0.5, abs=1e-12)


def test_a_ring_within_a_ring_is_a_hole():
    hole = SQUARE / 2 + 1
    framed = [SQUARE, hole]
    assert polygon_intersection(framed, framed) == 12
    assert polygon_intersection(framed, hole) == 0
    assert polygon_iou(framed, SQUARE) == 0.75
    assert polygon_iou(join_rings(framed), framed) == pytest.approx(1, abs=1e-12)


@settings(max_examples=150, deadline=None)
@given(MASKS, st.integers(0, 2**31))
def test_outlines_overlap_as_their_pixels_do_under_any_affine_map(masks: np.ndarray, seed: int):
    rng = np.random.default_rng(seed)
    others = rng.random((3, *masks.shape[1:])) < 0.5
    turn, shift = QUARTER_TURN_AND_SHEAR, np.array([17.3, -4.1])
    for matrix, to in ((np.eye(2), np.zeros(2)), (turn, shift)):
        a, b = (
            [[ring @ matrix + to for ring in rings] for rings in masks_to_polygons(part)] for part in (masks, others)
        )
        np.testing.assert_allclose(polygon_iou_matrix(a, b), pixels(masks, others), atol=1e-9)


def test_any_rings_overlap_as_fine_rasters_do():
    rng, fine = np.random.default_rng(1), 64
    rings = [rng.uniform(1, 15, (size, 2)) for size in (3, 4, 5, 8, 13, 20)]
    masks = polygons_to_masks([[ring * fine] for ring in rings], (16 * fine, 16 * fine))
    np.testing.assert_allclose(polygon_iou_matrix(rings, rings), pixels(masks, masks), atol=2e-3)


def test_the_matrix_is_that_of_the_pairs():
    rng = np.random.default_rng(2)
    a, b = [rng.uniform(0, 9, (6, 2)) for _ in range(5)], [rng.uniform(3, 12, (4, 2)) for _ in range(4)]
    matrix = polygon_iou_matrix(a, b)
    np.testing.assert_allclose(matrix, [[polygon_iou(one, other) for other in b] for one in a], atol=1e-12)
    np.testing.assert_allclose(matrix, polygon_iou_matrix(b, a).T, atol=1e-12)


def test_many_pairs_at_a_time_are_the_same(monkeypatch: pytest.MonkeyPatch):
    rng = np.random.default_rng(3)
    rings = [rng.uniform(0, 9, (6, 2)) for _ in range(8)]
    whole = polygon_iou_matrix(rings, rings)
    monkeypatch.setattr("clearsight.ops.polygon_overlap._EDGES_AT_ONCE", 30)
    np.testing.assert_allclose(polygon_iou_matrix(rings, rings), whole, atol=1e-12)


def test_digits_are_kept_far_from_the_origin():
    assert polygon_iou(SQUARE + 1e8, SQUARE + 1e8 + [2, 0]) == pytest.approx(1 / 3, abs=1e-12)


def test_nothing_overlaps_nothing():
    empty = np.empty((0, 2))
    for nothing in (empty, SQUARE[:1], SQUARE[:2], [], [empty], SQUARE * [1, 0], SQUARE * [0, 1]):
        assert polygon_iou(nothing, SQUARE) == 0
        assert polygon_iou(nothing, nothing) == 0
    assert polygon_iou_matrix([], [SQUARE]).shape == (0, 1)
    assert polygon_iou_matrix([SQUARE], []).shape == (1, 0)


def test_wrong_rings_are_refused():
    with pytest.raises(ShapeError, match=r"expected \(p, 2\)"):
        polygon_iou(SQUARE, np.zeros((3, 3)))
    with pytest.raises(DataError, match="NaN or infinite"):
        polygon_iou_matrix([SQUARE], [SQUARE, SQUARE * np.nan])


@pytest.mark.real
def test_real_nuclei_overlap_as_their_pixels_do(shared_data: Path):
    from PIL import Image

    path = sorted((shared_data / "nuclei/instances").glob("*.png"))[0]
    with Image.open(path) as file:
        instances = np.array(file)
    masks = instances == np.unique(instances)[1:, None, None]
    moved = np.roll(masks, (3, -2), axis=(1, 2))
    overlap = polygon_iou_matrix(masks_to_polygons(masks), masks_to_polygons(moved))
    np.testing.assert_allclose(overlap, pixels(masks, moved), atol=1e-9)
