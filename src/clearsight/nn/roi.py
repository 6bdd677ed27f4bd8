"""Regions of feature maps, brought to one size: RoI align and RoI pool."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clearsight.errors import ConfigError, RangeError, ShapeError
from clearsight.nn.checks import check_positive, check_rank
from clearsight.nn.precision import at_least_float32

__all__ = ["RoIAlign", "fpn_level", "roi_align", "roi_pool"]

Reduce = Literal["average", "max"]


@dataclass(frozen=True, slots=True)
class _Grid:
    """How a region is sampled: bins down and across, samples along each side of a bin (0: by the region's size)."""

    rows: int
    columns: int
    samples: int
    aligned: bool
    reduce: Reduce


class RoIAlign(nn.Module):
    """`roi_align` on a feature pyramid: each box is read from the level that suits its size.

    Method: Lin et al. 2017 (FPN), arXiv:1612.03144, equation 1 (`fpn_level`). With `aligned=False` the same as
    `torchvision.ops.MultiScaleRoIAlign`, whose published weights want that.

    Shape: levels of `(n, c, h_l, w_l)`, boxes `(m, 4)`, image `(m,)` → `(m, c, rows, columns)`.

    Args:
        size: bins, one number or `(rows, columns)`.
        strides: pixels of the image between neighbours, level by level, each twice the one before.
        samples: as in `roi_align`; at 0 the boxes of a level are picked out, which `torch.compile` cannot do in one.
        aligned: as in `roi_align`.
        reduce: as in `roi_align`.
        canonical_size: √area of the boxes from which on `canonical_level` is read.
        canonical_level: log₂ of a stride.

    Raises:
        ConfigError: strides are not powers of two that double, or an argument of `roi_align` does not fit.
    """

    def __init__(
        self,
        size: int | tuple[int, int],
        strides: Sequence[int],
        *,
        samples: int = 2,
        aligned: bool = True,
        reduce: Reduce = "average",
        canonical_size: float = 224.0,
        canonical_level: int = 4,
    ) -> None:
        super().__init__()
        _check_strides(strides)
        self.grid = _grid(size, samples=samples, aligned=aligned, reduce=reduce)
        self.strides = tuple(strides)
        self.canonical_size, self.canonical_level = canonical_size, canonical_level

    def forward(self, levels: Sequence[Tensor], boxes: Tensor, image: Tensor) -> Tensor:
        """Read the boxes.

        Args:
            levels: one `(n, c, h, w)` for each stride.
            boxes: `(m, 4)` xyxy pixels of the image, half-open.
            image: `(m,)` int64, which image each box lies in.

        Raises:
            ShapeError: levels, boxes or image do not fit together.
            RangeError: an image index is out of range (looked at on the CPU only).
        """
        if len(levels) != len(self.strides):
            raise ShapeError(f"RoIAlign: expected {len(self.strides)} levels, one a stride, got {len(levels)}")
        _check_boxes(levels, boxes, image)
        level = fpn_level(boxes, self.strides, canonical_size=self.canonical_size, canonical_level=self.canonical_level)
        return _align(levels, self.strides, level, boxes, image, self.grid)

    def extra_repr(self) -> str:
        """The grid, for `print(model)`."""
        grid = self.grid
        return (
            f"({grid.rows}, {grid.columns}), strides={self.strides}, samples={grid.samples}, aligned={grid.aligned}, "
            f"reduce={grid.reduce!r}"
        )


def roi_align(
    features: Tensor,
    boxes: Tensor,
    image: Tensor,
    size: int | tuple[int, int],
    *,
    stride: float,
    samples: int = 2,
    aligned: bool = True,
    reduce: Reduce = "average",
) -> Tensor:
    """The features inside of boxes, bin by bin: bilinear samples at places that are rounded nowhere.

    Method: He et al. 2017 (Mask R-CNN), arXiv:1703.06870, section 3: the samples of a bin are averaged; their maximum
    is an option there too. Samples further than one pixel outside of the map are 0. Boxes get no gradient.

    Aligned, because a coordinate x of a half-open box is an edge, and the pixel from x to x + 1 has its value at its
    centre, x + 1/2: places lie at `x / stride - 1/2` in the map. Without the half, as in the paper's first code,
    everything is read half a pixel of the map too far to the right and below, and boxes below one pixel of the map are
    widened to one.

    Args:
        features: `(n, c, h, w)`.
        boxes: `(m, 4)` xyxy pixels of the image, half-open.
        image: `(m,)` int64, which image each box lies in.
        size: bins, one number or `(rows, columns)`.
        stride: pixels of the image between neighbours of the map.
        samples: along each side of a bin, so samples² a bin; 0 takes as many as the side has pixels of the map,
            rounded up.
        aligned: as above.
        reduce: what a bin makes of its samples, `average` or `max`.

    Returns:
        `(m, c, rows, columns)` in the dtype of the features; m may be 0.

    Raises:
        ConfigError: size or stride are not positive, `reduce` is unknown, or a maximum over samples by size is asked.
        ShapeError: features, boxes or image do not fit together.
        RangeError: an image index is out of range (looked at on the CPU only).

    Cost: on a CPU a weighted sum of rows of the map, channels last, which is several times as fast as torchvision's
    loop; few boxes on a map with channels first, and other devices, take torchvision's.
    """
    grid = _grid(size, samples=samples, aligned=aligned, reduce=reduce)
    if stride <= 0:
        raise ConfigError(f"stride: must be above 0, got {stride}")
    _check_boxes([features], boxes, image)
    return _align([features], [stride], torch.zeros_like(image, dtype=torch.int64), boxes, image, grid)


def roi_pool(features: Tensor, boxes: Tensor, image: Tensor, size: int | tuple[int, int], *, stride: float) -> Tensor:
    """The largest feature of each bin of a box, whose edges are rounded to whole pixels of the map.

    Method: Girshick 2015 (Fast R-CNN), arXiv:1504.08083, section 2.1. There and in torchvision boxes include their last
    pixel: a box from 0 to 16 at stride 16 covers two pixels of the map. Ours are half-open, and it covers one.

    Args:
        features: `(n, c, h, w)`.
        boxes: `(m, 4)` xyxy pixels of the image, half-open.
        image: `(m,)` int64, which image each box lies in.
        size: bins, one number or `(rows, columns)`.
        stride: pixels of the image between neighbours of the map.

    Returns:
        `(m, c, rows, columns)` in the dtype of the features; a box covers at least one pixel, and a bin outside of the
        map is 0.

    Raises:
        ConfigError: size or stride are not positive.
        ShapeError: features, boxes or image do not fit together.
        RangeError: an image index is out of range (looked at on the CPU only).
    """
    from torchvision.ops import roi_pool as pool

    grid = _grid(size, samples=1, aligned=True, reduce="max")
    if stride <= 0:
        raise ConfigError(f"stride: must be above 0, got {stride}")
    _check_boxes([features], boxes, image)
    wide = at_least_float32(features)
    first, end = (boxes.detach().to(wide.dtype) / stride + 0.5).floor().chunk(2, dim=1)
    last = torch.maximum(end - 1, first)  # it counts as inside there
    if torch.compiler.is_exporting():
        pooled = _pool_by_masks(wide[image], first, last, grid)
    else:
        pooled = pool(wide, torch.cat([image.to(wide.dtype)[:, None], first, last], dim=1), (grid.rows, grid.columns))
    return _laid_out_as(features, pooled.to(features.dtype))


def _pool_by_masks(maps: Tensor, first: Tensor, last: Tensor, grid: _Grid) -> Tensor:
    """The same in plain operations on a map for each box, for ONNX: its translation of torchvision's does not work."""
    for axis, bins in ((2, grid.rows), (3, grid.columns)):
        begin, cells = first[:, 3 - axis, None, None], (last - first + 1)[:, 3 - axis, None, None]
        bin_ = torch.arange(bins, device=maps.device)[:, None]
        cell = torch.arange(maps.shape[axis], device=maps.device)
        width = cells / bins
        inside = (cell >= begin + (bin_ * width).floor()) & (cell < begin + ((bin_ + 1) * width).ceil())  # m bins side
        outside = ~inside[:, :, None].unsqueeze(6 - axis)  # m bins 1 side 1, or m bins 1 1 side
        each = [maps.masked_fill(outside[:, i], -math.inf).amax(axis) for i in range(bins)]
        maps = torch.stack(each, dim=axis)
    return torch.where(maps == -math.inf, 0.0, maps)


def fpn_level(
    boxes: Tensor, strides: Sequence[int], *, canonical_size: float = 224.0, canonical_level: int = 4
) -> Tensor:
    """The level of a feature pyramid that suits each box: `k = floor(k₀ + log₂(√(w h) / 224))`.

    Method: Lin et al. 2017, arXiv:1612.03144, equation 1, kept within the levels that there are. As in torchvision 1e-6
    is added before rounding, so that a box of exactly 224 pixels does not fall a level by the rounding of its area.

    Args:
        boxes: `(m, 4)` xyxy pixels of the image; one without area takes the first level.
        strides: of the levels, powers of two that double.
        canonical_size: 224, the side of the boxes that k₀ begins with.
        canonical_level: k₀, log₂ of a stride.

    Returns:
        `(m,)` int64 index into the strides.

    Raises:
        ConfigError: the strides are others.
    """
    _check_strides(strides)
    check_rank(boxes, "fpn_level: boxes", "m 4")
    corners = at_least_float32(boxes.detach())
    side = (corners[:, 2:] - corners[:, :2]).clamp(min=0).prod(1).sqrt()
    k = canonical_level + torch.log2(side / canonical_size) + 1e-6
    first = int(math.log2(strides[0]))
    level = torch.zeros_like(k, dtype=torch.int64)
    for above in range(first + 1, first + len(strides)):
        level = level + (k >= above)
    return level


def _align(
    levels: Sequence[Tensor], strides: Sequence[float], level: Tensor, boxes: Tensor, image: Tensor, grid: _Grid
) -> Tensor:
    wide = [at_least_float32(features) for features in levels]
    boxes = boxes.detach().to(wide[0].dtype)
    by_level = grid.samples == 0 or not (torch.compiler.is_compiling() or _table_pays(wide, boxes, grid))
    align = _align_by_level if by_level else _align_by_table
    return _laid_out_as(levels[0], align(wide, strides, level, boxes, image, grid).to(levels[0].dtype))


def _table_pays(levels: Sequence[Tensor], boxes: Tensor, grid: _Grid) -> bool:
    """Whether it costs less to lay out the maps with channels last than it saves."""
    if grid.reduce == "max":
        return True  # torchvision has none
    if boxes.device.type != "cpu":
        return False
    if _channels_last(levels[0]):
        return True
    reads = len(boxes) * grid.rows * grid.columns * (2 * grid.samples) ** 2
    rows = sum(features.numel() // max(features.shape[1], 1) for features in levels)
    return reads > (rows if torch.is_grad_enabled() else 2 * rows)


def _align_by_level(
    levels: Sequence[Tensor], strides: Sequence[float], level: Tensor, boxes: Tensor, image: Tensor, grid: _Grid
) -> Tensor:
    """Torchvision's loop over boxes, one call a level."""
    from torchvision.ops import roi_align as align

    rois = torch.cat([image.to(boxes.dtype)[:, None], boxes], dim=1)
    bins = (grid.rows, grid.columns)
    if len(levels) == 1:
        return align(levels[0], rois, bins, 1 / strides[0], grid.samples, grid.aligned)
    read = levels[0].new_empty((len(boxes), levels[0].shape[1], *bins))
    for i, (features, stride) in enumerate(zip(levels, strides, strict=True)):
        index = (level == i).nonzero()[:, 0]
        read.index_copy_(0, index, align(features, rois[index], bins, 1 / stride, grid.samples, grid.aligned))
    return read


def _align_by_table(
    levels: Sequence[Tensor], strides: Sequence[float], level: Tensor, boxes: Tensor, image: Tensor, grid: _Grid
) -> Tensor:
    """All levels as the rows of one table, and each bin (or sample, for a maximum) as a weighted sum of rows."""
    tables = [features.flatten(2).mT for features in levels]  # n, hw, c
    table = tables[0] if len(tables) == 1 else torch.cat(tables, dim=1)
    places, channels = table.shape[1:]
    starts = [0]
    for rows in tables[:-1]:
        starts.append(starts[-1] + rows.shape[1])
    scale = _of_level([1 / stride for stride in strides], level, boxes.dtype)
    height, width = (_of_level([features.shape[axis] for features in levels], level) for axis in (2, 3))
    first = image.long() * places + _of_level(starts, level)

    left, top, right, bottom = (boxes * scale[:, None] - (0.5 if grid.aligned else 0.0)).unbind(1)
    rows, down = _taps(top, bottom, height, grid.rows, grid)  # m, rows, samples, 2
    columns, across = _taps(left, right, width, grid.columns, grid)
    rows = rows * width[:, None, None, None] + first[:, None, None, None]
    m, r = boxes.shape[0], grid.samples  # len() would fix the number in an exported graph
    if grid.reduce == "average":
        index = rows.flatten(2)[:, :, None, :, None] + columns.flatten(2)[:, None, :, None, :]
        weight = down.flatten(2)[:, :, None, :, None] * across.flatten(2)[:, None, :, None, :] / r**2
        bins = _weighted_rows(table.flatten(0, 1), index.reshape(-1, 4 * r**2), weight.reshape(-1, 4 * r**2))
    else:
        index = rows[:, :, :, None, None, :, None] + columns[:, None, None, :, :, None, :]
        weight = down[:, :, :, None, None, :, None] * across[:, None, None, :, :, None, :]
        each = _weighted_rows(table.flatten(0, 1), index.reshape(-1, 4), weight.reshape(-1, 4))
        bins = each.view(m, grid.rows, r, grid.columns, r, channels).amax((2, 4))
    return bins.view(m, grid.rows, grid.columns, channels).permute(0, 3, 1, 2)


def _taps(begin: Tensor, end: Tensor, side: Tensor, bins: int, grid: _Grid) -> tuple[Tensor, Tensor]:
    """Along one axis, the two pixels that each sample lies between and their weights, `(m, bins, samples, 2)`."""
    span = end - begin if grid.aligned else (end - begin).clamp(min=1)
    width = (span / bins)[:, None, None]
    bin_, sample = (torch.arange(count, device=begin.device, dtype=begin.dtype) for count in (bins, grid.samples))
    place = begin[:, None, None] + bin_[:, None] * width + (sample + 0.5) * width / grid.samples
    last = side[:, None, None] - 1
    inside = (place >= -1) & (place <= last + 1)
    place = torch.minimum(place.clamp(min=0), last.to(place.dtype))  # beyond the last pixel's centre, the last pixel
    low = place.long().clamp(min=0)
    high = torch.minimum(low + 1, last)
    part = place - low
    weight = torch.stack([1 - part, part], dim=-1) * inside[..., None]
    return torch.stack([torch.minimum(low, last), high], dim=-1), weight


def _weighted_rows(table: Tensor, index: Tensor, weight: Tensor) -> Tensor:
    """`Σ_j weight[i, j] · table[index[i, j]]`."""
    if torch.compiler.is_exporting():  # ONNX would walk through the bags one by one
        return (table[index] * weight[..., None]).sum(1)
    return F.embedding_bag(index, table, per_sample_weights=weight, mode="sum")


def _of_level(values: Sequence[float], level: Tensor, dtype: torch.dtype = torch.int64) -> Tensor:
    """The value of each box's level; sizes may be unknown when this is compiled, so no tensor is made of them."""
    chosen = torch.zeros_like(level, dtype=dtype)
    for i, value in enumerate(values):
        chosen = chosen + (level == i).to(dtype) * value
    return chosen


def _channels_last(x: Tensor) -> bool:
    return x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()


def _laid_out_as(features: Tensor, x: Tensor) -> Tensor:
    """With channels last where the features have them last."""
    return x.contiguous(memory_format=torch.channels_last if _channels_last(features) else torch.contiguous_format)


def _grid(size: int | tuple[int, int], *, samples: int, aligned: bool, reduce: Reduce) -> _Grid:
    rows, columns = (size, size) if isinstance(size, int) else size
    check_positive(min(rows, columns), "size")
    if reduce not in ("average", "max"):
        raise ConfigError(f"reduce: expected 'average' or 'max', got {reduce!r}")
    if samples < (1 if reduce == "max" else 0):
        raise ConfigError(
            f"samples: must be at least 1, or 0 for as many as a bin has pixels in average, got {samples}"
        )
    return _Grid(rows, columns, samples, aligned, reduce)


def _check_strides(strides: Sequence[int]) -> None:
    first = strides[0] if strides else 0
    if first < 1 or first & (first - 1) or list(strides) != [first * 2**i for i in range(len(strides))]:
        raise ConfigError(f"strides: expected powers of two that double, such as (4, 8, 16, 32), got {tuple(strides)}")


def _check_boxes(levels: Sequence[Tensor], boxes: Tensor, image: Tensor) -> None:
    for features in levels:
        check_rank(features, "roi: features", "n c h w")
    if torch.compiler.is_compiling():
        return
    if boxes.ndim != 2 or boxes.shape[1] != 4 or image.shape != boxes.shape[:1]:
        raise ShapeError(
            f"roi: expected boxes (m, 4) and image (m,), got {tuple(boxes.shape)} and {tuple(image.shape)}"
        )
    if image.device.type == "cpu" and len(image):  # beyond the batch another's memory would be read
        least, most = image.aminmax()
        if least < 0 or most >= len(levels[0]):
            raise RangeError(f"image: indices must be from 0 to {len(levels[0]) - 1}, got {int(least)} to {int(most)}")
