"""Bootstrap intervals over images.

Method: the percentile bootstrap (Efron 1979; Efron & Tibshirani 1993, chapter 13). Images are drawn with replacement,
not objects: objects of one image share its light, its focus and its faults, so they are no independent evidence.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from clearsight.errors import RangeError

__all__ = ["percentile_interval", "resample_counts"]


def resample_counts(images: int, resamples: int, *, seed: int) -> NDArray[np.int64]:
    """How often each image is drawn in each resample.

    Args:
        images: number of images.
        resamples: number of resamples, b.
        seed: the same seed gives the same resamples on every machine.

    Returns:
        `(b, n)` counts, each row adds up to n.

    Raises:
        RangeError: `resamples` is negative.
    """
    if resamples < 0:
        raise RangeError(f"bootstrap: expected 0 or more resamples, got {resamples}")
    if not images:
        return np.zeros((resamples, 0), np.int64)
    drawn = np.random.default_rng(seed).integers(0, images, (resamples, images))
    drawn += np.arange(resamples)[:, None] * images
    return np.bincount(drawn.ravel(), minlength=resamples * images).reshape(resamples, images)


def percentile_interval(values: NDArray[np.float64], *, level: float = 0.95) -> tuple[float, float]:
    """The middle `level` of the resampled figures.

    Args:
        values: `(b,)`; NaN (a resample without any object of a class) is left out.
        level: share of the resamples inside.

    Returns:
        `(low, high)`; NaN where fewer than two resamples have a value.
    """
    kept = values[np.isfinite(values)]
    if len(kept) < 2:
        return float("nan"), float("nan")
    low, high = np.quantile(kept, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
