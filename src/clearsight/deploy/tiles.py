"""Windows that cover an image too large for one pass: which pixels each reads, which it writes, with what weight.

Windows lie on a grid, so everything is said axis by axis: the window of row i and column j reads, writes and weighs by
the spans i and j. Along each axis the weights of all spans add up to one at every pixel.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from clearsight.errors import ConfigError, ShapeError
from clearsight.models.segment.unet_sizes import valid_input_size, valid_margin, valid_step

__all__ = ["Span", "Tiles", "plan_tiles"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Span:
    """What a window reads and writes along one axis.

    Args:
        start: first pixel that is read; below 0 in the mirror image before the image.
        stop: end of what is read; likewise behind the image.
        origin: the pixel that the first one of the net's output is of.
        first: first pixel that is written.
        last: end of what is written.
        weight: `(last - first,)` float32, > 0.
    """

    start: int
    stop: int
    origin: int
    first: int
    last: int
    weight: np.ndarray

    @property
    def kept(self) -> slice:
        """What is written, of the net's output."""
        return slice(self.first - self.origin, self.last - self.origin)

    def pixels(self, length: int) -> np.ndarray:
        """Which pixels of an axis of this length are read, `(stop - start,)`: to and fro, as between two mirrors."""
        places = np.arange(self.start, self.stop)
        turn = max(length - 1, 1)
        return np.zeros_like(places) if length == 1 else turn - np.abs(places % (2 * turn) - turn)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Tiles:
    """Every row of windows crossed with every column.

    Args:
        size: `(height, width)` of the image.
        rows: from top to bottom; neither `first` nor `last` ever falls.
        columns: from left to right.
    """

    size: tuple[int, int]
    rows: tuple[Span, ...]
    columns: tuple[Span, ...]

    def __len__(self) -> int:
        """Number of windows."""
        return len(self.rows) * len(self.columns)


def plan_tiles(
    size: tuple[int, int], tile: tuple[int, int], overlap: int = 64, *, valid_depth: int | None = None
) -> Tiles:
    """Cover an image with windows of at most `tile` pixels.

    For any net: neighbours share at least `overlap` pixels, and where they do, each one's weight falls to zero as half
    a wave of the cosine, so that no seam shows.

    For a U-Net without padding (`valid_depth`): every window reads the margin that the net cuts off, at the image's
    border from its mirror image, and writes what is left. Pooling must meet the same pairs of pixels as in one pass
    over the whole image, so every window writes from a multiple of `2 ** depth` on; what it writes is then the same.

    Method: Ronneberger et al. 2015, arXiv:1505.04597, section 2 and figure 2 (overlap-tile strategy).

    Args:
        size: `(height, width)` of the image.
        tile: largest `(height, width)` that a window reads; for any net, an image that fits is one window.
        overlap: pixels that neighbours share at least; nothing with `valid_depth`.
        valid_depth: poolings of the U-Net without padding; None for any net.

    Raises:
        ConfigError: a window has no room between its overlaps or margins.
        ShapeError: the image has no pixels.
    """
    if min(size) < 1:
        raise ShapeError(f"image: found {size[0]} × {size[1]} pixels, expected at least one")
    if min(tile) < 1:
        raise ConfigError(f"tile: found {tile[0]} × {tile[1]} pixels, expected at least one")
    axes = zip(size, tile, strict=True)
    if valid_depth is None:
        if not 0 <= overlap < min(tile):
            raise ConfigError(
                f"overlap: found {overlap}, expected 0 or more and less than the tile's {min(tile)} pixels"
            )
        rows, columns = (_blend(*axis, overlap) for axis in axes)
    else:
        rows, columns = (_exact(*axis, valid_depth) for axis in axes)
    return Tiles(size=(size[0], size[1]), rows=rows, columns=columns)


def _exact(length: int, tile: int, depth: int) -> tuple[Span, ...]:
    """Spans of one length, the last one as short as the net allows."""
    margin, step = valid_margin(depth), valid_step(depth)
    least = valid_input_size(step, depth)
    if tile < least:
        raise ConfigError(
            f"tile: {tile} pixels leave nothing to write between two margins of {margin}; give at least {least}"
        )
    written = (tile - least) // step * step + step
    spans = []
    for first in range(0, length, written):
        last = min(first + written, length)
        start = first - margin
        stop = start + valid_input_size(last - first, depth)
        weight = np.ones(last - first, np.float32)
        spans.append(Span(start=start, stop=stop, origin=first, first=first, last=last, weight=weight))
    return tuple(spans)


def _blend(length: int, tile: int, overlap: int) -> tuple[Span, ...]:
    """As few spans as share `overlap` pixels, evenly spread, with weights that are divided by their sum."""
    if length <= tile:
        return (Span(start=0, stop=length, origin=0, first=0, last=length, weight=np.ones(length, np.float32)),)
    gaps = math.ceil((length - tile) / (tile - overlap))
    starts = [index * (length - tile) // gaps for index in range(gaps + 1)]
    shared = [0, *(before + tile - start for before, start in pairwise(starts)), 0]
    weights = [_ramps(tile, *ends) for ends in pairwise(shared)]
    total = np.zeros(length)
    for start, weight in zip(starts, weights, strict=True):
        total[start : start + tile] += weight
    return tuple(
        Span(
            start=start,
            stop=start + tile,
            origin=start,
            first=start,
            last=start + tile,
            weight=(weight / total[start : start + tile]).astype(np.float32),
        )
        for start, weight in zip(starts, weights, strict=True)
    )


def _ramps(length: int, rise: int, fall: int) -> np.ndarray:
    """One, but for half a wave of the cosine over the first `rise` and the last `fall` pixels; never zero."""
    weight = np.ones(length)
    if rise > 0:
        weight[:rise] *= np.sin(np.pi / 2 * (np.arange(rise) + 0.5) / rise) ** 2
    if fall > 0:
        weight[length - fall :] *= np.sin(np.pi / 2 * (np.arange(fall)[::-1] + 0.5) / fall) ** 2
    return weight
