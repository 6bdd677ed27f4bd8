"""A class for every pixel of an image of any size, window by window; memory does not grow with the image's height."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import chain, takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from clearsight.data.progress_bar import late_progress
from clearsight.deploy.sources import Source
from clearsight.deploy.tiled_image import ImageRows, match_depth, open_rows
from clearsight.deploy.tiled_output import check_output, write_bands
from clearsight.deploy.tiled_seam import Seam
from clearsight.deploy.tiles import Span, Tiles, plan_tiles
from clearsight.errors import ConfigError, nearest
from clearsight.models.segment.unet import UNet
from clearsight.nn.instance_norm import InstanceNorm

if TYPE_CHECKING:
    from clearsight.models.segment.segmenter import Segmenter

__all__ = ["TiledPrediction", "Tiling", "predict_tiled"]

_MODES = ("auto", "blend", "exact")
_MAX_CLASSES = 256  # what a map of uint8 can hold


@dataclass(frozen=True, slots=True, kw_only=True)
class Tiling:
    """How an image is cut into windows.

    Args:
        tile: largest `(height, width)` that a window reads.
        overlap: pixels that neighbours share at least in mode `blend`.
        mode: `exact` gives what one pass over the whole image would, for a U-Net of `padding: valid` whose norm has
            fixed statistics. `blend` mixes overlapping windows, for any net. `auto` is `exact` where the net allows it.
        batch_size: windows of one forward pass; more than one takes memory, and time is won on a GPU only.

    Raises:
        ConfigError: a value cannot be.
    """

    tile: tuple[int, int] = (512, 512)
    overlap: int = 64
    mode: Literal["auto", "blend", "exact"] = "auto"
    batch_size: int = 1

    def __post_init__(self) -> None:
        if self.mode not in _MODES:
            raise ConfigError(f"mode: there is none named {self.mode!r}{nearest(self.mode, _MODES)}")
        if self.batch_size < 1:
            raise ConfigError(f"batch_size: found {self.batch_size}, expected at least 1")
        if len(self.tile) != 2 or min(self.tile) < 1:
            raise ConfigError(f"tile: found {self.tile}, expected (height, width), each at least 1")
        if self.overlap < 0:
            raise ConfigError(f"overlap: found {self.overlap}, expected 0 or more")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TiledPrediction:
    """What was found on one image, in memory or in a file.

    Args:
        size: `(height, width)` of the image.
        mode: `blend` or `exact`.
        windows: how many there were.
        labels: `(h, w)` uint8, the most probable class of each pixel; None if it is in a file, or not wanted.
        probs: `(k, h, w)` float32, sums to one over the classes; None likewise.
        path: the file, or None.
    """

    size: tuple[int, int]
    mode: Literal["blend", "exact"]
    windows: int
    labels: np.ndarray | None = None
    probs: np.ndarray | None = None
    path: Path | None = None


def predict_tiled(
    segmenter: Segmenter,
    image: Source,
    *,
    tiling: Tiling | None = None,
    out: str | Path | None = None,
    probabilities: bool = False,
    progress: Callable[[int, int], None] | None = None,
    quiet: bool = False,
) -> TiledPrediction:
    """Segment one image of any size at its own resolution.

    A TIFF is read, and a result with `out` written, row of windows by row of windows: what is held is one row of
    windows of pixels, and of probabilities the overlap of two rows. The segmenter works where its parameters are, in
    eval mode; `torch.autocast` around the call is respected.

    Args:
        segmenter: uint8 or uint16 images in, logits of at most 256 classes out.
        image: an image file, an array `(h, w)` or `(h, w, c)`, a tensor `(c, h, w)` or a PIL image. Pixels of 16 bits
            are brought to 8 where the segmenter was trained on those, and the other way round. Images that were
            stretched by their own percentiles in training must be so before.
        tiling: see `Tiling`; None takes its defaults.
        out: a TIFF to write, in tiles, compressed without loss; None gives an array. An interrupted run leaves none.
        probabilities: give the probability of every class in place of the most probable class. In a file they are
            `(h, w, k)` uint8 with 255 for certainty.
        progress: called with the number of windows done and of all, after each batch.
        quiet: show no progress bar; it appears, with an estimate of the time left, in terminals after two seconds.

    Raises:
        NotFound: there is no such file.
        DataError: the file is no image, is damaged (the tile is named), or has other channels than the segmenter.
        ShapeError: an array is no image, or has other channels.
        RangeError: a float tensor is outside [0, 1].
        ConfigError: the tiling does not fit the net, the net has too many classes or one only, several images were
            given, or `out` cannot be written.
    """
    tiling = tiling or Tiling()
    path = None if out is None else Path(out).expanduser()
    if path is not None:
        check_output(path, image)
    depth = _valid_depth(segmenter.net, tiling.mode)
    with open_rows(image, len(segmenter.input_norm.mean)) as rows, _evaluating(segmenter):
        tiles = plan_tiles(rows.size, tiling.tile, tiling.overlap, valid_depth=depth)
        mode = "blend" if depth is None else "exact"
        made = TiledPrediction(size=rows.size, mode=mode, windows=len(tiles), path=path)
        with late_progress("predicting", len(tiles), quiet=quiet or progress is not None) as advance:
            done = _Count(len(tiles), advance, progress)
            bands = _bands(
                _Windows(segmenter, exact=depth is not None, batch_size=tiling.batch_size), rows, tiles, done
            )
            return _with_probs(made, bands) if probabilities else _with_labels(made, bands)


def _valid_depth(net: Any, mode: str) -> int | None:  # noqa: ANN401 - any net, asked what it is
    """Poolings of a U-Net without padding whose tiles are to be exact; None for blending.

    Raises:
        ConfigError: `exact` for another net, or for one with norms that look at a whole window.
    """
    valid = isinstance(net, UNet) and net.padding == "valid"
    looking = any(isinstance(one, nn.GroupNorm | InstanceNorm) for one in net.modules())  # GroupNorm is layer norm too
    if valid and not looking and mode != "blend":
        return net.depth
    if mode == "exact":
        why = "its norm is over the whole window" if valid else "it is no U-Net of padding: valid"
        raise ConfigError(f"mode: tiles of this {type(net).__name__} cannot be exact, {why}; use mode='blend'")
    return None


@contextmanager
def _evaluating(segmenter: nn.Module) -> Iterator[None]:
    """Eval mode inside; after it every module is as it was before."""
    training = [module for module in segmenter.modules() if module.training]
    segmenter.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True


class _Count:
    """Windows done so far, for the bar and the caller."""

    def __init__(self, total: int, advance: Callable[[], None], told: Callable[[int, int], None] | None) -> None:
        self._done, self._total, self._advance, self._told = 0, total, advance, told

    def add(self, number: int) -> None:
        self._done += number
        for _ in range(number):
            self._advance()
        if self._told is not None:
            self._told(self._done, self._total)


# ------------------------------------------------------------------------------------------------ the work
def _bands(net: _Windows, image: ImageRows, tiles: Tiles, done: _Count) -> Iterator[Iterator[Tensor]]:
    """For each row of windows the finished probabilities `(k, rows, columns)`, from left to right."""
    above = None
    height, width = tiles.size
    for row, after in zip(tiles.rows, (*tiles.rows[1:], None), strict=True):
        wanted = row.pixels(height)
        top = int(wanted.min())
        pixels = image.read(top, int(wanted.max()) + 1)[wanted - top]
        seam = Seam(above, finished=(height if after is None else after.first) - row.first, width=width)
        yield seam.pieces(net.probs(pixels, tiles.columns, done), row, tiles.columns)
        above = seam.below


class _Windows:
    """A segmenter applied to windows, batch by batch."""

    def __init__(self, segmenter: Segmenter, *, exact: bool, batch_size: int) -> None:
        self._segmenter = segmenter
        self._net: Any = segmenter.net  # a U-Net, where it is asked for more than logits
        self._exact = exact
        self._batch_size = batch_size

    def probs(self, pixels: np.ndarray, columns: Sequence[Span], done: _Count) -> Iterator[Tensor]:
        """Class probabilities `(k, h, w)` of each window of a row of pixels; a batch has windows of one size."""
        width, start = pixels.shape[1], 0
        while start < len(columns):
            side = columns[start].stop - columns[start].start
            batch = columns[start : start + self._batch_size]
            batch = list(takewhile(lambda one, side=side: one.stop - one.start == side, batch))
            yield from self._forward(np.stack([pixels[:, one.pixels(width)] for one in batch]))
            start += len(batch)
            done.add(len(batch))

    @torch.inference_mode()
    def _forward(self, stack: np.ndarray) -> Tensor:
        """`(n, h, w, c)` → `(n, k, h, w)` on the CPU."""
        norm = self._segmenter.input_norm
        images = torch.from_numpy(match_depth(stack, norm.scale)).permute(0, 3, 1, 2).to(norm.mean.device)
        logits = self._net.cropped(norm(images)) if self._exact else self._segmenter(images)
        if not 2 <= logits.shape[1] <= _MAX_CLASSES:
            raise ConfigError(f"segmenter: found {logits.shape[1]} classes, tiled prediction takes 2 to {_MAX_CLASSES}")
        return logits.float().softmax(dim=1).cpu()


# ------------------------------------------------------------------------------------------------ the result
def _with_labels(made: TiledPrediction, bands: Iterator[Iterator[Tensor]]) -> TiledPrediction:
    rows = (np.concatenate([part.argmax(0).byte().numpy() for part in band], axis=1) for band in bands)
    if made.path is not None:
        write_bands(made.path, rows, made.size, np.dtype(np.uint8))
        return made
    labels, top = np.empty(made.size, np.uint8), 0
    for band in rows:
        labels[top : top + len(band)] = band
        top += len(band)
    return replace(made, labels=labels)


def _with_probs(made: TiledPrediction, bands: Iterator[Iterator[Tensor]]) -> TiledPrediction:
    if made.path is not None:
        rows = (np.concatenate([_quantised(part) for part in band], axis=1) for band in bands)
        first = next(rows)
        write_bands(made.path, chain([first], rows), (*made.size, first.shape[2]), np.dtype(np.uint8))
        return made
    probs, top = np.empty((0, *made.size), np.float32), 0
    for band in bands:
        parts = [part.numpy() for part in band]
        classes, height, _ = parts[0].shape
        if not top:
            probs = np.empty((classes, *made.size), np.float32)
        np.concatenate(parts, axis=2, out=probs[:, top : top + height])
        top += height
    return replace(made, probs=probs)


def _quantised(part: Tensor) -> np.ndarray:
    """`(k, h, w)` in [0, 1] → `(h, w, k)` uint8."""
    return (part * 255).round().clamp(0, 255).byte().permute(1, 2, 0).numpy()
