"""Small masks of boxes, pasted where the boxes lie in the image."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from clearsight.errors import ShapeError

__all__ = ["paste_masks"]

WINDOW_PIXELS = 2**20  # that are computed at a time; a few float tensors of so many
ROUNDED_ONCE = 128  # to this height + width `interpolate` fuses a product and a sum, which is seen in the sixth digit


class _Places(NamedTuple):
    """Where the boxes lie along one axis, in whole pixels.

    Args:
        begin: `(n,)` int64, first pixel; may lie outside of the image.
        end: `(n,)` int64, one beyond the last.
        first: `(n,)` int64, first pixel inside the image.
        shown: `(n,)` int64, pixels inside the image, 0 for a box without any.
    """

    begin: Tensor
    end: Tensor
    first: Tensor
    shown: Tensor

    def of(self, rows: Tensor) -> _Places:
        """Some of the boxes."""
        return _Places(*(value[rows] for value in self))


@torch.no_grad()
def paste_masks(probs: Tensor, boxes: Tensor, size: tuple[int, int], *, threshold: float | None = 0.5) -> Tensor:
    """Masks of an image from the masks of its boxes.

    Method: as torchvision pastes them, which follows the code of He et al. 2017, arXiv:1703.06870: a border of one zero
    is put around the mask and the box grows with it; its corners are cut to whole numbers, towards zero, and the last
    pixel counts as inside; the mask is stretched to these pixels bilinearly, centre on centre. What lies outside of
    the image is cut off; a box that lies there wholly (torchvision: an error), that has a negative side, or that is
    not finite gives an empty mask.

    Args:
        probs: `(n, s, s)` in [0, 1]; NaN counts as 0.
        boxes: `(n, 4)` xyxy pixels of the image.
        size: `(height, width)` of the image.
        threshold: a pixel is inside where its probability exceeds it; None for the probabilities themselves.

    Returns:
        `(n, height, width)` bool, or in the dtype of the probabilities, float32 at least; n may be 0.

    Raises:
        ShapeError: the probabilities are not square, or there are not as many boxes.

    Cost: the pixels of the boxes, not of the images: boxes of like size are pasted together, at most some 2²⁰ pixels
    (or one box) at a time. One device sync.

    Example:
        >>> paste_masks(torch.ones(1, 2, 2), torch.tensor([[1.0, 0.0, 3.0, 2.0]]), (3, 5)).int()
        tensor([[[0, 1, 1, 0, 0],
                 [0, 1, 1, 0, 0],
                 [0, 0, 0, 0, 0]]], dtype=torch.int32)
    """
    if probs.ndim != 3 or probs.shape[1] != probs.shape[2] or boxes.shape != (len(probs), 4):
        raise ShapeError(
            f"paste_masks: expected probs (n, s, s) and boxes (n, 4), got {tuple(probs.shape)} and {tuple(boxes.shape)}"
        )
    height, width = size
    values = (probs if probs.dtype.itemsize >= 4 else probs.float()).nan_to_num(0.0)
    pasted = values.new_zeros((len(probs), height, width), dtype=torch.bool if threshold is not None else values.dtype)
    across, down = _places(boxes, probs.shape[-1], (height, width))
    for rows, shape in _groups(down.shown, across.shown):
        y, x = down.of(rows), across.of(rows)
        top = torch.minimum(y.first, height - y.first.new_tensor(shape[0]))  # windows lie inside the image
        left = torch.minimum(x.first, width - x.first.new_tensor(shape[1]))
        line = top[:, None] + torch.arange(shape[0], device=top.device)
        column = left[:, None] + torch.arange(shape[1], device=left.device)
        window = _stretch(F.pad(values[rows], (1, 1, 1, 1)), line, y, column, x)
        there = window if threshold is None else window > threshold
        pasted[rows[:, None, None], line[:, :, None], column[:, None, :]] = there
    return pasted


def _places(boxes: Tensor, side: int, size: tuple[int, int]) -> tuple[_Places, _Places]:
    """Where boxes lie that grow with the border around their masks: across and down."""
    wide = boxes if boxes.dtype.itemsize >= 4 else boxes.float()
    half = (wide[:, 2:] - wide[:, :2]) * 0.5 * (float(side + 2) / side)
    centre = (wide[:, 2:] + wide[:, :2]) * 0.5
    finite = wide.isfinite().all(dim=1, keepdim=True)
    first = torch.where(finite, centre - half, 0.0).long()
    last = torch.where(finite, centre + half, -1.0).long()  # empty where the box is not finite
    found = []
    for axis, length in ((0, size[1]), (1, size[0])):
        begin, end = first[:, axis], last[:, axis] + 1
        inside = begin.clamp(min=0)
        found.append(_Places(begin, end, inside, (end.clamp(max=length) - inside).clamp(min=0)))
    return found[0], found[1]


def _groups(down: Tensor, across: Tensor) -> Iterator[tuple[Tensor, tuple[int, int]]]:
    """Boxes with pixels inside the image by falling longer side: indices, and a window that holds each of them."""
    longer = torch.where((down > 0) & (across > 0), torch.maximum(down, across), 0)
    order = longer.argsort(descending=True)
    sides = torch.stack((longer[order], down[order], across[order])).tolist()
    start, there = 0, sum(side > 0 for side in sides[0])
    while start < there:
        stop = min(start + max(1, WINDOW_PIXELS // sides[0][start] ** 2), there)
        yield order[start:stop], (max(sides[1][start:stop]), max(sides[2][start:stop]))
        start = stop


def _stretch(probs: Tensor, line: Tensor, y: _Places, column: Tensor, x: _Places) -> Tensor:
    """Bilinear values `(g, rows, columns)` of masks `(g, s, s)` at lines `(g, rows)` and columns; 0 beyond a box."""
    count, side, _ = probs.shape
    once = (y.end - y.begin + x.end - x.begin <= ROUNDED_ONCE)[:, None]
    low, high, lower, upper = _taps(column, x, side, probs.dtype, once)
    wide = (count, side, column.shape[1])
    left, right = (probs.gather(2, place[:, None].expand(wide)) for place in (low, high))
    rows = (lower[:, None] * left + upper[:, None] * right).flatten(0, 1)
    low, high, lower, upper = _taps(line, y, side, probs.dtype, once)
    start = side * torch.arange(count, device=probs.device)[:, None]
    return rows[start + low].mul_(lower[..., None]).add_(rows[start + high].mul_(upper[..., None]))


def _taps(
    pixel: Tensor, place: _Places, side: int, dtype: torch.dtype, once: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The two values that each pixel lies between, and their weights, rounded as PyTorch does on a CPU."""
    begin, end = place.begin[:, None], place.end[:, None]
    inside = (pixel >= begin) & (pixel < end)
    length = (end - begin).clamp(min=1).to(dtype)
    step = torch.full_like(length, side) / length  # a number over a tensor would be rounded twice
    middle = pixel - begin + 0.5
    where = torch.where(once, (step.double() * middle.double() - 0.5).to(dtype), step * middle.to(dtype) - 0.5)
    where = where.clamp(0, side - 1)
    low = where.long()
    part = where - low
    return low, (low + 1).clamp(max=side - 1), (1 - part) * inside, part * inside
