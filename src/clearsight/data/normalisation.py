"""Channel statistics of a data set, and the percentile stretch for 16-bit, medical and remote-sensing images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch

from clearsight.data.seeds import derive
from clearsight.errors import ConfigError, DataError

if TYPE_CHECKING:
    from clearsight.data.samples import SampleSet

__all__ = ["Statistics", "fixed_statistics", "measure_statistics", "percentile_range", "stretch_percentiles"]

Mode = Literal["data", "imagenet", "unit", "percentile"]
_IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


@dataclass(frozen=True, kw_only=True)
class Statistics:
    """How integer pixels become a network's input: `(pixel / scale - mean) / std`, by channel.

    Args:
        mean: of each channel, in units of scaled pixels.
        std: of each channel, likewise, > 0.
        scale: the largest value of the pixel type, 255 or 65535.
        mode: what the numbers came from; `percentile` means that images were stretched by their own percentiles before.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    scale: float = 255.0
    mode: Mode = "data"


def fixed_statistics(mode: Literal["imagenet", "unit"], *, channels: int, scale: float = 255.0) -> Statistics:
    """Statistics that need no data: ImageNet's means and deviations, or none at all (`unit`: pixels to [0, 1]).

    Raises:
        ConfigError: ImageNet's are of three channels.
    """
    if mode == "unit":
        return Statistics(mean=(0.0,) * channels, std=(1.0,) * channels, scale=scale, mode=mode)
    if channels != 3:
        raise ConfigError(
            f"data.normalize: imagenet has statistics of 3 channels, data.channels is {channels}; use normalize: data"
        )
    return Statistics(mean=_IMAGENET[0], std=_IMAGENET[1], scale=scale, mode=mode)


def measure_statistics(samples: SampleSet, *, limit: int = 1000, seed: int = 0) -> Statistics:
    """Mean and deviation of each channel over resized images without augmentation; padding is not in them.

    The sums are of whole numbers and are added up exactly, so the result does not depend on the order of the images.
    Modes `imagenet` and `unit` read no image but the first, for its type.

    Args:
        samples: whose `data.normalize` decides the mode.
        limit: at most so many images, chosen by `seed`.
        seed: the run's seed.

    Returns:
        Statistics; a channel that is constant has the deviation of one grey level, so that it becomes 0 and not NaN.

    Raises:
        ConfigError: `imagenet` for other than three channels.
        DataError: `limit` leaves no image.
    """
    mode = samples.data.normalize
    if mode in ("imagenet", "unit"):
        return fixed_statistics(mode, channels=samples.data.channels, scale=_scale(samples.image(0)[0].dtype))
    generator = torch.Generator().manual_seed(derive(seed, "statistics"))
    chosen = sorted(torch.randperm(len(samples), generator=generator)[:limit].tolist())
    if not chosen:
        raise DataError(f"measure_statistics: limit is {limit}; expected at least one image")
    first, _ = samples.image(chosen[0])
    mean, std = _moments(samples, chosen, channels=first.shape[0])
    scale = _scale(first.dtype)
    deviation = tuple(max(value, 1.0) / scale for value in std)
    return Statistics(mean=tuple(value / scale for value in mean), std=deviation, scale=scale, mode=mode)


def _moments(samples: SampleSet, chosen: Sequence[int], *, channels: int) -> tuple[list[float], list[float]]:
    """Mean and deviation of raw pixels; sums of integers in Python's unbounded ones, so nothing is rounded."""
    count, total, squares = 0, [0] * channels, [0] * channels
    for index in chosen:
        pixels = samples.image(index)[0].numpy().reshape(channels, -1)
        count += pixels.shape[1]
        for channel, values in enumerate(pixels):
            total[channel] += int(values.sum(dtype=np.uint64))
            squares[channel] += int(np.square(values, dtype=np.uint64).sum(dtype=np.uint64))
    mean = [value / count for value in total]
    # n·Σx² - (Σx)² is exact in whole numbers, where the float form cancels.
    variance = [(count * s - t * t) / (count * count) for s, t in zip(squares, total, strict=True)]
    return mean, [value**0.5 for value in variance]


def _scale(dtype: torch.dtype) -> float:
    return 65535.0 if dtype == torch.uint16 else 255.0


def percentile_range(
    array: np.ndarray, *, low: float = 1.0, high: float = 99.0, ignore: float | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Percentiles of each channel, the robust ends of its range.

    Args:
        array: `(h, w, c)` of any numeric type.
        low: lower percentile, in [0, 100).
        high: upper percentile, in (low, 100].
        ignore: value that stands for "no data" and is left out, for example 0 around a satellite scene.

    Returns:
        Two float64 arrays `(c,)`; a channel with nothing but `ignore` gives (0, 0).

    Raises:
        ConfigError: percentiles out of order.
    """
    if not 0 <= low < high <= 100:
        raise ConfigError(f"percentiles: expected 0 <= low < high <= 100, got {low} and {high}")
    ends = np.zeros((2, array.shape[2]), dtype=np.float64)
    for channel in range(array.shape[2]):
        values = array[:, :, channel].ravel()
        values = values if ignore is None else values[values != ignore]
        if values.size:
            ends[:, channel] = np.percentile(values, (low, high))
    return ends[0], ends[1]


def stretch_percentiles(
    array: np.ndarray, *, low: float = 1.0, high: float = 99.0, ignore: float | None = None
) -> np.ndarray:
    """Stretch each channel so that its percentiles reach the ends of the pixel type's range; the rest saturates.

    Args:
        array: `(h, w, c)` uint8 or uint16.
        low: percentile that becomes 0.
        high: percentile that becomes 255 or 65535.
        ignore: as in `percentile_range`; such pixels become 0.

    Returns:
        `(h, w, c)` of the same type; a constant channel becomes 0.

    Raises:
        ConfigError: percentiles out of order.
    """
    lower, upper = percentile_range(array, low=low, high=high, ignore=ignore)
    top = float(np.iinfo(array.dtype).max)
    factor = np.where(upper > lower, top / np.maximum(upper - lower, 1e-12), 0.0)
    stretched = (array - lower) * factor
    result = np.rint(np.clip(stretched, 0.0, top)).astype(array.dtype)
    if ignore is not None:
        result[array == ignore] = 0
    return result
