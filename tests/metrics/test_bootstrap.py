import math

import numpy as np
import pytest

from clearsight.errors import RangeError
from clearsight.metrics.bootstrap import percentile_interval, resample_counts


def test_each_resample_draws_as_many_images_as_there_are():
    counts = resample_counts(72, 500, seed=3)
    assert counts.shape == (500, 72)
    assert (counts.sum(axis=1) == 72).all()
    assert np.array_equal(counts, resample_counts(72, 500, seed=3))
    assert not np.array_equal(counts, resample_counts(72, 500, seed=4))
    # An image is left out of a resample with probability (1 - 1/n)^n.
    assert (counts == 0).mean() == pytest.approx((1 - 1 / 72) ** 72, abs=0.01)


def test_the_interval_of_a_mean_agrees_with_its_standard_error():
    values = np.random.default_rng(0).normal(size=400)
    means = resample_counts(400, 4000, seed=0) @ values / 400
    low, high = percentile_interval(means)
    half = 1.96 * values.std() / 20
    assert low == pytest.approx(values.mean() - half, abs=0.01)
    assert high == pytest.approx(values.mean() + half, abs=0.01)


def test_percentiles_and_missing_values():
    assert percentile_interval(np.arange(101.0)) == pytest.approx((2.5, 97.5))
    assert percentile_interval(np.array([np.nan, *np.arange(101.0)])) == pytest.approx((2.5, 97.5))
    assert percentile_interval(np.arange(101.0), level=0.5) == pytest.approx((25.0, 75.0))
    assert all(math.isnan(v) for v in percentile_interval(np.array([0.5, np.nan])))


def test_edges():
    assert resample_counts(0, 3, seed=0).shape == (3, 0)
    assert resample_counts(5, 0, seed=0).shape == (0, 5)
    with pytest.raises(RangeError, match="0 or more resamples, got -1"):
        resample_counts(5, -1, seed=0)
