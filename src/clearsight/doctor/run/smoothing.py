"""Trends of noisy curves, with the interval that tells a trend from noise."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from clearsight.doctor.run.record import Curve

__all__ = ["Slope", "calm", "level", "noise", "running_median", "slope", "thin"]


@dataclass(frozen=True, slots=True)
class Slope:
    """How fast a curve rises.

    Args:
        per_step: the slope; NaN where there are fewer than three points.
        low: lower end of its interval.
        high: upper end.
        span: steps between the first point and the last.
    """

    per_step: float
    low: float
    high: float
    span: float

    @property
    def change(self) -> float:
        """What the trend adds up to over the span."""
        return self.per_step * self.span

    @property
    def falls(self) -> bool:
        """The curve falls, beyond doubt."""
        return self.high < 0

    @property
    def rises(self) -> bool:
        """The curve rises, beyond doubt."""
        return self.low > 0


def thin(curve: Curve, points: int = 40) -> Curve:
    """At most `points` points: the medians of blocks of equal length, each at the last step of its block.

    Values that are not finite are left out, and the oldest few where the blocks do not come out even.
    """
    curve = curve.finite()
    size = math.ceil(len(curve) / points)
    if size <= 1:
        return curve
    blocks = len(curve) // size
    values = curve.values[len(curve) - blocks * size :].reshape(blocks, size)
    return Curve(curve.steps[len(curve) - blocks * size :][size - 1 :: size], np.median(values, axis=1))


def slope(curve: Curve, *, points: int = 40, z: float = 1.96) -> Slope:
    """The median slope between all pairs of points, with its interval.

    Method: Sen 1968, Estimates of the regression coefficient based on Kendall's tau, section 6. Differs from it: the
    variance of Kendall's S is multiplied by (1 + r) / (1 - r), with r the lag-1 autocorrelation of what the trend
    leaves over (after Hamed and Rao 1998), as successive losses are not independent.

    Args:
        curve: any; values that are not finite are left out.
        points: the curve is thinned to so many first.
        z: half the width of the interval in standard errors; 1.96 covers 95 %.
    """
    curve = thin(curve, points)
    n = len(curve)
    if n < 3:
        return Slope(math.nan, -math.inf, math.inf, float(curve.steps[-1] - curve.steps[0]) if n else 0.0)
    first, second = np.triu_indices(n, 1)
    steps = curve.steps.astype(np.float64)
    slopes = np.sort((curve.values[second] - curve.values[first]) / (steps[second] - steps[first]))
    middle = float(slopes[len(slopes) // 2] + slopes[(len(slopes) - 1) // 2]) / 2
    left = curve.values - middle * steps
    left = left - np.median(left)
    power = float(left @ left)
    r = float(left[1:] @ left[:-1]) / power if power > 0 else 0.0
    r = min(max(r, 0.0), 0.9)
    spread = z * math.sqrt(n * (n - 1) * (2 * n + 5) / 18 * (1 + r) / (1 - r))
    low, high = math.floor((len(slopes) - spread) / 2), math.ceil((len(slopes) + spread) / 2)
    return Slope(
        per_step=middle,
        low=float(slopes[low]) if low >= 0 else -math.inf,
        high=float(slopes[high]) if high < len(slopes) else math.inf,
        span=float(steps[-1] - steps[0]),
    )


def calm(curve: Curve, most: int = 1000) -> Curve:
    """A curve without outliers: the running median of five values, or medians of blocks where there are very many."""
    curve = curve.finite()
    return running_median(curve, 5) if len(curve) <= most else running_median(thin(curve, most), 3)


def level(curve: Curve, last: int | None = None) -> float:
    """The median of the finite values, of the `last` of them only where a number is given; NaN where there is none."""
    values = curve.finite().values
    values = values if last is None else values[-last:]
    return float(np.median(values)) if len(values) else math.nan


def noise(curve: Curve) -> float:
    """The standard deviation of a curve about its own course, told from successive differences; outliers count little.

    0 where there are fewer than three values.
    """
    values = curve.finite().values
    if len(values) < 3:
        return 0.0
    return 1.4826 * float(np.median(np.abs(np.diff(values)))) / math.sqrt(2)


def running_median(curve: Curve, width: int = 3) -> Curve:
    """Each finite value replaced by the median of it and those before it, `width` in all; shorter at the start."""
    curve = curve.finite()
    if width <= 1 or len(curve) < 2:
        return curve
    padded = np.concatenate([np.full(width - 1, np.nan), curve.values])
    windows = np.lib.stride_tricks.sliding_window_view(padded, width)
    values = np.empty(len(curve))
    values[width - 1 :] = np.median(windows[width - 1 :], axis=1)
    for at in range(min(width - 1, len(curve))):
        values[at] = np.median(curve.values[: at + 1])
    return Curve(curve.steps, values)
