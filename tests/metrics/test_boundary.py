import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from skimage.metrics import hausdorff_distance
from skimage.morphology import disk

from clearsight.errors import RangeError, ShapeError
from clearsight.metrics.boundary import boundary_f, boundary_pixels, compare_boundaries, hausdorff


def square(size=12, at=(2, 2), side=4):
    mask = np.zeros((size, size), bool)
    mask[at[0] : at[0] + side, at[1] : at[1] + side] = True
    return mask


def blobs(seed, size=(60, 80), level=0.5):
    smooth = ndimage.gaussian_filter(np.random.default_rng(seed).random(size), 3)
    return np.asarray(smooth > np.quantile(smooth, level))


def dilated(mask, tolerance):
    return np.asarray(ndimage.binary_dilation(mask, disk(tolerance)), bool)


def eroded_boundary(mask):
    """Another way to the same pixels: what an erosion by a cross takes away, with pixels outside held for inside."""
    return mask & np.logical_not(ndimage.binary_erosion(mask, border_value=1))


# ------------------------------------------------------------------------------------------------ which pixels
def test_the_boundary_is_the_inner_rim():
    mask = square(8, (2, 2), 4)
    rim = mask.copy()
    rim[3:5, 3:5] = False
    np.testing.assert_array_equal(boundary_pixels(mask), rim)
    assert boundary_pixels(mask).sum() == 12
    # A pixel with an outside neighbour at its corner only is no boundary: four neighbours count.
    corner = np.ones((5, 5), bool)
    corner[0, 0] = False
    assert np.argwhere(boundary_pixels(corner)).tolist() == [[0, 1], [1, 0]]


def test_the_frame_of_the_image_is_no_boundary():
    mask = np.zeros((6, 6), bool)
    mask[:, :3] = True
    assert np.argwhere(boundary_pixels(mask)).tolist() == [[row, 2] for row in range(6)]
    assert not boundary_pixels(np.ones((4, 4), bool)).any()
    assert not boundary_pixels(np.ones((1, 1), bool)).any()
    assert boundary_pixels(np.zeros((3, 0, 5), bool)).shape == (3, 0, 5)


def test_the_rim_of_void_is_no_boundary():
    mask = np.zeros((4, 6), bool)
    mask[:, :3] = True
    counted = np.ones((4, 6), bool)
    counted[:2, 3] = False
    assert np.argwhere(boundary_pixels(mask, counted=counted)).tolist() == [[2, 2], [3, 2]]


@pytest.mark.parametrize("seed", range(4))
def test_boundaries_equal_those_of_an_erosion(seed):
    masks = np.stack([blobs(seed), blobs(seed + 10, level=0.8)])
    wanted = np.stack([eroded_boundary(mask) for mask in masks])
    np.testing.assert_array_equal(boundary_pixels(masks), wanted)
    np.testing.assert_array_equal(boundary_pixels(torch.from_numpy(masks)), wanted)
    np.testing.assert_array_equal(boundary_pixels(masks.astype(np.uint8) * 255), wanted)


# ------------------------------------------------------------------------------------------------ boundary F
def test_f_of_a_moved_square_by_hand():
    truth, moved = square(), square(at=(2, 3))
    # Of twelve rim pixels each, the two rows share three pixels, the columns none.
    assert float(boundary_f(moved, truth, tolerance=0)) == pytest.approx(0.5)
    assert float(boundary_f(moved, truth, tolerance=0.99)) == pytest.approx(0.5)
    assert float(boundary_f(moved, truth, tolerance=1)) == 1.0
    assert float(boundary_f(truth, truth, tolerance=0)) == 1.0


def test_f_weighs_precision_and_recall():
    truth = square()
    both = truth | square(at=(8, 8), side=2)  # four more pixels, far away
    assert float(boundary_f(both, truth)) == pytest.approx(2 * (12 / 16) / (12 / 16 + 1))
    assert float(boundary_f(truth, both)) == pytest.approx(2 * (12 / 16) / (12 / 16 + 1))
    assert float(boundary_f(square(at=(8, 8), side=2), square(at=(0, 0), side=3), tolerance=1)) == 0.0


@pytest.mark.parametrize("tolerance", [0, 1, 2, 5])
def test_f_equals_that_of_dilated_boundaries(tolerance):
    for seed in range(3):
        found, there = blobs(seed), np.roll(blobs(seed), (2, 3), (0, 1))
        a, b = eroded_boundary(found), eroded_boundary(there)
        precision = (a & dilated(b, tolerance)).sum() / a.sum()
        recall = (b & dilated(a, tolerance)).sum() / b.sum()
        wanted = 2 * precision * recall / (precision + recall)
        assert float(boundary_f(found, there, tolerance=tolerance)) == pytest.approx(wanted, abs=1e-14)


# ------------------------------------------------------------------------------------------------ Hausdorff
def test_distances_by_hand():
    truth = square()
    assert float(hausdorff(square(at=(2, 5)), truth, percentile=100)) == 3.0
    assert float(hausdorff(square(at=(5, 6)), truth, percentile=100)) == 5.0  # 3 down, 4 right
    far = truth.copy()
    far[3, 10] = True  # five columns from the rim
    assert float(hausdorff(far, truth, percentile=100)) == 5.0
    # Twelve zeros and a five: the 95th percentile lies at 0.4 of the last step. Pooled with the twelve zeros of the
    # other direction it would be 0.
    assert float(hausdorff(far, truth)) == pytest.approx(0.4 * 5)
    assert float(hausdorff(truth, far)) == pytest.approx(0.4 * 5)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.integers(-9, 9), st.integers(-9, 9))
def test_a_mask_moved_by_d_pixels_has_distance_d(seed, down, right):
    mask = np.zeros((48, 48), bool)
    mask[12:36, 12:36] = np.random.default_rng(seed).random((24, 24)) < 0.3
    mask[20, 20] = True
    moved = np.roll(mask, (down, right), (0, 1))
    assert float(hausdorff(moved, mask, percentile=100)) == pytest.approx(math.hypot(down, right), abs=1e-12)
    assert float(hausdorff(moved, mask)) <= math.hypot(down, right) + 1e-12


@pytest.mark.parametrize("seed", range(4))
def test_equals_scikit_image(seed):
    found, there = blobs(seed), blobs(seed + 50, level=0.9)
    wanted = hausdorff_distance(eroded_boundary(found), eroded_boundary(there))
    assert float(hausdorff(found, there, percentile=100)) == pytest.approx(wanted, abs=1e-12)


@pytest.mark.parametrize("offset", [5, 31, 32, 33, 70, 150])
def test_percentiles_equal_those_of_a_distance_transform_near_and_far(offset):
    found, there = np.zeros((64, 260), bool), np.zeros((64, 260), bool)
    found[10:50, 10:60] = blobs(1, (40, 50))
    there[10:50, 10 + offset : 60 + offset] = blobs(2, (40, 50))
    a, b = eroded_boundary(found), eroded_boundary(there)
    ahead, back = ndimage.distance_transform_edt(~b)[a], ndimage.distance_transform_edt(~a)[b]
    for percentile in (50, 95, 100):
        wanted = max(np.percentile(ahead, percentile), np.percentile(back, percentile))
        assert float(hausdorff(found, there, percentile=percentile)) == pytest.approx(wanted, abs=1e-12)


def test_boundaries_too_far_apart_for_a_grid():
    found, there = np.zeros((3, 6_000_000), bool), np.zeros((3, 6_000_000), bool)
    found[1, 1], there[1, -2] = True, True
    assert float(hausdorff(found, there)) == 6_000_000 - 3


# ------------------------------------------------------------------------------------------------ several at once
def test_what_has_no_boundary():
    empty, full, some = np.zeros((9, 9), bool), np.ones((9, 9), bool), square(9)
    for nothing in (empty, full):
        assert math.isnan(float(boundary_f(nothing, empty)))
        assert math.isnan(float(hausdorff(nothing, full)))
        assert float(boundary_f(nothing, some)) == float(boundary_f(some, nothing)) == 0.0
        assert float(hausdorff(nothing, some)) == float(hausdorff(some, nothing)) == math.inf


def test_many_masks_at_once_and_label_maps():
    draw = np.random.default_rng(0)
    truth = draw.integers(0, 4, (7, 8)).repeat(6, 0).repeat(6, 1)
    found = np.roll(truth, (1, 2), (0, 1))
    found[truth == 3] = 1
    at = np.arange(5)[:, None, None]  # nothing is of class 4, and class 3 is not predicted everywhere
    scores = compare_boundaries(found, truth, 5, tolerance=1.5)
    # Boundaries of masks and of maps are the same pixels: class k against all others.
    np.testing.assert_allclose(scores.f, boundary_f(found == at, truth == at, tolerance=1.5), rtol=0, atol=0)
    np.testing.assert_allclose(scores.distance, hausdorff(found == at, truth == at), rtol=0, atol=0)
    assert np.isnan(scores.f[4])
    assert np.isnan(scores.distance[4])
    assert 0 < scores.f[0] < 1
    one = np.stack([found == 0, found == 1])[None]
    assert boundary_f(one, np.stack([truth == 0, truth == 1])[None]).shape == (1, 2)


def test_what_does_not_fit_is_named():
    with pytest.raises(ShapeError, match=r"expected the shape of truth, \(4, 4\), got \(4, 5\)"):
        boundary_f(np.ones((4, 5)), np.ones((4, 4)))
    with pytest.raises(ShapeError, match=r"predicted: expected \(…, h, w\), got \(4,\)"):
        hausdorff(np.ones(4), np.ones(4))
    with pytest.raises(ShapeError, match="expected two of one size"):
        compare_boundaries(np.ones((4, 5), int), np.ones((4, 4), int), 2)
    with pytest.raises(RangeError, match="tolerance: must be at least 0 pixels, got -1"):
        boundary_f(np.ones((4, 4)), np.ones((4, 4)), tolerance=-1)
    for wrong in (0, 101):
        with pytest.raises(RangeError, match="percentile: must be in"):
            hausdorff(np.ones((4, 4)), np.ones((4, 4)), percentile=wrong)
