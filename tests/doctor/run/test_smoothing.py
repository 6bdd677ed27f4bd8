"""Trends and their intervals: exact on lines, calm about outliers, honest about noise that remembers."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import theilslopes

from clearsight.doctor.run.record import EMPTY, Curve
from clearsight.doctor.run.smoothing import calm, level, noise, running_median, slope, thin


def curve(values: np.ndarray, every: int = 1) -> Curve:
    return Curve.of(np.arange(1, len(values) + 1) * every, values)


def test_the_slope_is_that_of_scipy_and_exact_on_a_line() -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(size=31)
    expected = theilslopes(values, np.arange(1, 32) * 5).slope
    assert slope(curve(values, 5)).per_step == pytest.approx(expected)
    line = slope(curve(3 - 0.5 * np.arange(20.0), 10))
    assert (line.per_step, line.low, line.high) == pytest.approx((-0.05, -0.05, -0.05))
    assert line.change == pytest.approx(-0.05 * 190)
    assert line.falls
    assert not line.rises


def test_outliers_and_gaps_do_not_turn_a_trend() -> None:
    values = np.linspace(2, 1, 400) + np.random.default_rng(1).normal(0, 0.02, 400)
    values[::9] = 50
    values[5::11] = np.nan
    found = slope(curve(values))
    assert found.falls
    assert found.change == pytest.approx(-1, abs=0.1)


def alarms(r: float, n: int = 40) -> float:
    """How often a trend is seen in noise without one; each value keeps the share `r` of the one before."""
    rng, found = np.random.default_rng(2), 0
    for _ in range(300):
        values = np.zeros(n)
        for at, shock in enumerate(rng.normal(size=n)):
            values[at] = (r * values[at - 1] if at else 0) + shock
        trend = slope(curve(values))
        found += trend.falls or trend.rises
    return found / 300


def test_noise_has_no_trend_even_where_it_remembers() -> None:
    assert alarms(0.0) <= 0.08
    # 26 % without the correction for autocorrelation.
    assert alarms(0.6) <= 0.16


@pytest.mark.parametrize("values", [[], [1.0], [1.0, 2.0], [math.nan] * 9])
def test_too_few_points_have_no_trend(values: list[float]) -> None:
    found = slope(curve(np.array(values)))
    assert math.isnan(found.per_step)
    assert not found.falls
    assert not found.rises


def test_thin_takes_medians_of_blocks_from_the_end() -> None:
    values = np.arange(1.0, 12.0)
    values[4] = 1000
    found = thin(curve(values), 5)
    assert found.steps.tolist() == [5, 8, 11]
    assert found.values.tolist() == [4, 7, 10]
    assert thin(curve(values), 11).values.tolist() == values.tolist()
    assert len(thin(EMPTY)) == 0


def test_a_running_median_drops_single_peaks_and_keeps_steps() -> None:
    values = np.array([5, 1, 2, 90, 3, 4, 4.0])
    assert running_median(curve(values), 3).values.tolist() == [5, 3, 2, 2, 3, 4, 4]
    assert running_median(EMPTY).values.tolist() == []
    long = np.ones(5000)
    long[[70, 71, 2000]] = 100
    assert calm(curve(long)).values.max() == 1
    assert len(calm(curve(long))) <= 1000
    assert calm(curve(long[:80])).values.max() == 1


def test_noise_and_level_on_a_falling_curve() -> None:
    rng = np.random.default_rng(3)
    values = np.linspace(5, 0, 4000) + rng.normal(0, 0.1, 4000)
    assert noise(curve(values)) == pytest.approx(0.1, rel=0.05)
    assert noise(curve(values[:2])) == 0
    assert level(curve(np.array([1, 2, np.nan, 9, 3.0])), 3) == 3
    assert math.isnan(level(EMPTY))
