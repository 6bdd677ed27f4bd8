"""Contours by hand, against scikit-style references, and their errors."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from clearsight.errors import DataError, RangeError, ShapeError
from clearsight.ops.contours import join_rings, pad_rings, polygon_area, polygon_box, resample_contour
from clearsight.ops.outlines import mask_to_polygons, polygons_to_mask

SQUARE = np.array([[0.0, 0.0], [4.0, 0.0], [4.0, 4.0], [0.0, 4.0]])


def test_area_by_hand():
    assert polygon_area(SQUARE) == 16
    assert polygon_area(SQUARE, signed=True) == 16
    assert polygon_area(SQUARE[::-1], signed=True) == -16
    assert polygon_area(SQUARE[:2]) == 0
    assert polygon_area(np.empty((0, 2))) == 0


def test_area_keeps_its_digits_far_from_the_origin():
    assert polygon_area(SQUARE / 3 + 1e8) == pytest.approx(16 / 9, rel=1e-6)


@settings(max_examples=100, deadline=None)
@given(arrays.arrays(bool, st.tuples(st.integers(1, 9), st.integers(1, 9))))
def test_areas_of_outlines_add_up_to_the_pixels(mask: np.ndarray):
    assert sum(polygon_area(ring, signed=True) for ring in mask_to_polygons(mask)) == mask.sum()


def test_box():
    assert polygon_box(SQUARE + 1) == (1, 1, 5, 5)
    assert polygon_box([SQUARE, SQUARE + 3]) == (0, 0, 7, 7)
    for nothing in ([], np.empty((0, 2))):
        with pytest.raises(DataError, match="no vertex"):
            polygon_box(nothing)


def test_resampling_by_hand():
    assert resample_contour(SQUARE, 8).tolist() == [[0, 0], [2, 0], [4, 0], [4, 2], [4, 4], [2, 4], [0, 4], [0, 2]]
    assert resample_contour(SQUARE, 1).tolist() == [[0, 0]]


def test_resampled_vertices_are_equally_far_apart_along_a_circle():
    angles = np.sort(np.random.default_rng(0).uniform(0, 2 * np.pi, 5000))
    ring = resample_contour(np.stack([np.cos(angles), np.sin(angles)], axis=1), 36)
    sides = np.linalg.norm(ring - np.roll(ring, -1, axis=0), axis=1)
    np.testing.assert_allclose(sides, 2 * np.sin(np.pi / 36), rtol=1e-4)


def test_repeated_vertices_do_no_harm():
    repeated = np.repeat(SQUARE, 3, axis=0)
    np.testing.assert_allclose(resample_contour(repeated, 7), resample_contour(SQUARE, 7))
    assert (resample_contour(np.full((3, 2), 5.0), 4) == 5).all()


def test_resampling_errors():
    with pytest.raises(RangeError, match="at least 1, got 0"):
        resample_contour(SQUARE, 0)
    with pytest.raises(DataError, match="no vertex"):
        resample_contour(np.empty((0, 2)), 4)
    with pytest.raises(ShapeError, match=r"expected \(p, 2\)"):
        resample_contour(np.zeros((3, 4)), 4)


@settings(max_examples=150, deadline=None)
@given(arrays.arrays(bool, st.tuples(st.integers(1, 9), st.integers(1, 9))))
def test_joined_rings_cover_the_same_pixels(mask: np.ndarray):
    rings = mask_to_polygons(mask)
    ring = join_rings(rings)
    assert (polygons_to_mask([ring], mask.shape) == mask).all()
    assert polygon_area(ring, signed=True) == mask.sum()


def test_one_ring_stays_as_it_is():
    assert (join_rings([SQUARE]) == SQUARE).all()
    assert join_rings([]).shape == (0, 2)


def test_padding_repeats_the_last_vertex():
    rings = [SQUARE[:3], SQUARE, SQUARE[:1] + 0.5]
    padded = pad_rings(rings)
    assert (padded.shape, padded.dtype) == ((3, 4, 2), np.float32)
    assert padded[0].tolist() == [[0, 0], [4, 0], [4, 4], [4, 4]]
    assert (padded[1] == SQUARE).all()
    assert (padded[2] == 0.5).all()
    assert pad_rings([]).shape == (0, 0, 2)
    with pytest.raises(DataError, match="ring 1 of 2 has no vertex"):
        pad_rings([SQUARE, SQUARE[:0]])
