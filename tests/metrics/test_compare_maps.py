import math
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from clearsight.errors import RangeError, ShapeError
from clearsight.metrics.boundary import boundary_f, hausdorff
from clearsight.metrics.compare_maps import compare_maps
from clearsight.metrics.rand import foreground_rand


def same(one, other):
    """Whether two results have the same figures, NaN for NaN."""
    figures = [(r.counts, r.boundary_f, r.hd95, np.array(r.rand if r.rand else ())) for r in (one, other)]
    return all(np.array_equal(a, b, equal_nan=a.dtype.kind == "f") for a, b in zip(*figures, strict=True))


def test_is_the_sum_of_its_parts():
    draw = np.random.default_rng(0)
    truth = draw.integers(0, 3, (6, 7)).repeat(5, 0).repeat(5, 1)
    found = np.roll(truth, 2, 1)
    result = compare_maps(torch.from_numpy(found), truth.astype(np.uint8), 3, path="a.png", tolerance=1, cells=2)
    assert result.path == Path("a.png")
    assert result.size == (30, 35)
    assert result.counts.sum() == 30 * 35
    assert result.counts[1, 2] == ((truth == 1) & (found == 2)).sum()
    at = np.arange(3)[:, None, None]
    np.testing.assert_array_equal(result.boundary_f, boundary_f(found == at, truth == at, tolerance=1))
    np.testing.assert_array_equal(result.hd95, hausdorff(found == at, truth == at))
    assert result.rand == foreground_rand(found == 2, truth == 2)
    assert compare_maps(found, truth, 3, path="a.png").rand is None


def test_a_moved_square_by_hand():
    truth = np.zeros((12, 12), np.uint8)
    truth[2:6, 2:6] = 1
    result = compare_maps(np.roll(truth, 3, 1), truth, 2, path="a.png")
    assert result.counts.tolist() == [[116, 12], [12, 4]]
    assert result.hd95.tolist() == [3.0, 3.0]
    # Of the square's twelve rim pixels, the four of the farthest column lie three off, and the others at most two.
    assert result.boundary_f[1] == pytest.approx(8 / 12)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000))
def test_what_is_predicted_under_void_changes_nothing(seed):
    draw = np.random.default_rng(seed)
    truth = draw.integers(0, 3, (5, 6)).repeat(4, 0).repeat(4, 1)
    truth[draw.random(truth.shape) < 0.2] = 255
    truth[4:12, 8:15] = 255
    found = ndimage.median_filter(draw.integers(0, 3, truth.shape), 3)
    other = np.where(truth == 255, draw.integers(0, 3, truth.shape), found)
    assert same(compare_maps(found, truth, 3, path="a", cells=1), compare_maps(other, truth, 3, path="a", cells=1))


def test_a_perfect_prediction_and_classes_that_are_nowhere():
    truth = np.zeros((9, 9), int)
    truth[3:6, 3:6] = 2
    truth[0] = 255
    result = compare_maps(np.where(truth == 255, 1, truth), truth, 4, path="a", cells=2)
    assert result.counts.tolist() == np.diag([63, 0, 9, 0]).tolist()
    assert result.boundary_f.tolist() == pytest.approx([1, math.nan, 1, math.nan], nan_ok=True)
    assert result.hd95.tolist() == pytest.approx([0, math.nan, 0, math.nan], nan_ok=True)
    assert result.rand is not None
    assert result.rand.rand == 1.0


def test_the_smallest_maps():
    pixel = compare_maps(np.array([[1]]), np.array([[0]]), 2, path="a", cells=1)
    assert pixel.counts.tolist() == [[0, 1], [0, 0]]
    assert np.isnan(pixel.boundary_f).all()
    assert pixel.rand is not None
    assert math.isnan(pixel.rand.rand)  # no true cell
    void = compare_maps(np.ones((4, 5), int), np.full((4, 5), 255), 2, path="a")
    assert void.counts.sum() == 0
    assert np.isnan(void.hd95).all()
    assert compare_maps(np.zeros((0, 3), int), np.zeros((0, 3), int), 2, path="a").size == (0, 3)


def test_no_map_is_kept():
    truth = np.random.default_rng(0).integers(0, 2, (256, 256))
    result = compare_maps(truth, truth, 2, path="a.png", cells=1)
    assert len(pickle.dumps(result)) < 2000


def test_what_does_not_fit_is_named():
    good = np.zeros((4, 4), int)
    with pytest.raises(RangeError, match=r"slice\.png: predicted: label 2 at row 0, column 0"):
        compare_maps(good + 2, good, 2, path="slice.png")
    with pytest.raises(ShapeError, match=r"slice\.png: predicted is 4 x 4 pixels, truth 4 x 5"):
        compare_maps(good, np.zeros((4, 5), int), 2, path="slice.png")
    with pytest.raises(RangeError, match="cells: expected a class from 0 to 1, got 2"):
        compare_maps(good, good, 2, path="slice.png", cells=2)
    with pytest.raises(RangeError, match="tolerance"):
        compare_maps(good, good, 2, path="slice.png", tolerance=-1)
