"""From what every place of a tensor sees along one side of the image to a size, a stride and an offset."""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor

from clearsight.measure.reach import slim

__all__ = ["Extent", "read_extent", "read_place"]

_POSITIONAL = 0.25
_PERIODS = 64


class Extent(NamedTuple):
    """The field along one side of the image.

    Args:
        state: `inside` where the field of the middle place lies inside the image, `cut` where it does not, `whole`
            where an operation looked at all places, `nothing` where no place sees anything.
        pixels: the largest field that lies inside; of `cut` the largest there is.
        stride: pixels between neighbours; None where they are not in a row, or too few lie inside.
        offset: middle of the field of the first place, as if the image went on; 0.5 is the middle of the first pixel.
        dim: the axis of the tensor along which its places lie; None where there is not one.
    """

    state: Literal["inside", "cut", "whole", "nothing"]
    pixels: int = 0
    stride: float | None = None
    offset: float | None = None
    dim: int | None = None


def read_extent(before: Tensor, after: Tensor, length: int) -> Extent:
    """Read one side.

    Args:
        before: −(first pixel) of each element, see `measure.reach`.
        after: last pixel of each element.
        length: of the side.
    """
    before, after = torch.broadcast_tensors(slim(before), slim(after))
    nothing = torch.isneginf(before) | torch.isneginf(after)
    if before.numel() == 0 or bool(nothing.all()):
        return Extent("nothing")
    if bool(torch.isposinf(before).any() | torch.isposinf(after).any()):
        return Extent("whole")
    middle = torch.where(nothing, torch.nan, (after - before) / 2)
    spans = [_span(middle, dim) for dim in range(middle.ndim)]
    longest = max(spans, default=0.0)
    places = [dim for dim, span in enumerate(spans) if span > _POSITIONAL * longest]
    others = [dim for dim in range(before.ndim) if dim not in places]
    if others:  # channels that see different things: a place sees what any of them sees
        before, after = before.amax(others, keepdim=True), after.amax(others, keepdim=True)
    first, last = -before.double(), after.double()
    seen = torch.isfinite(first) & torch.isfinite(last)
    sizes = torch.where(seen, last - first + 1, 0)
    inside = seen & (first > 0) & (last < length - 1)
    if not bool(inside[tuple(size // 2 for size in inside.shape)]):
        return Extent("cut", int(sizes.max()), dim=places[0] if len(places) == 1 else None)
    pixels = int(sizes[inside].max())
    if len(places) != 1:
        return Extent("inside", pixels)
    stride, offset = _steps(((first + last) / 2).flatten(), inside.flatten())
    return Extent("inside", pixels, stride, offset, places[0])


def read_place(before: Tensor, after: Tensor, dim: int, index: int) -> tuple[int, int] | None:
    """First pixel and the one behind the last that a place sees, all channels together; None where it sees nothing.

    Args:
        before: see `read_extent`.
        after: see `read_extent`.
        dim: axis of the tensor along which places lie.
        index: of the place.
    """
    first, last = -before.select(dim, index).max(), after.select(dim, index).max()
    return (int(first), int(last) + 1) if bool(torch.isfinite(first) & torch.isfinite(last)) else None


def _span(middle: Tensor, dim: int) -> float:
    """How far the middles move along an axis."""
    if middle.size(dim) == 1:
        return 0.0
    highest = middle.nan_to_num(-torch.inf).amax(dim)
    lowest = middle.nan_to_num(torch.inf).amin(dim)
    return max(0.0, float((highest - lowest).max()))


def _steps(middle: Tensor, inside: Tensor) -> tuple[float | None, float | None]:
    """Stride and offset of places in a row; after upsampling it takes several places until the pattern comes again."""
    found = inside.nonzero().flatten()
    start, end = int(found[0]), int(found[-1]) + 1
    known = _steps_between(middle, inside, start, end)
    if known[0] is not None:
        return known
    quarter = (end - start) // 4  # strides leave out pixels at the border, so that cut fields may seem to lie inside
    return _steps_between(middle, inside, start + quarter, end - quarter)


def _steps_between(middle: Tensor, inside: Tensor, start: int, end: int) -> tuple[float | None, float | None]:
    row = middle[start:end]
    if len(row) < 2 or not bool(inside[start:end].all()):
        return None, None
    for period in range(1, min(_PERIODS, max(1, len(row) // 2)) + 1):
        steps = row[period:] - row[:-period]
        if bool((steps == steps[0]).all()):
            stride = float(steps[0]) / period
            places = torch.arange(start, start + period, dtype=torch.float64)
            return stride, float((row[:period] - stride * places).mean()) + 0.5
    return None, None
