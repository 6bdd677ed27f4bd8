"""Masks, their run lengths and their boxes; polygons are in `ops.outlines`.

A mask is `(h, w)` bool. Pixel (row i, column j) covers the square from (x, y) = (j, i) to (j + 1, i + 1) and its
centre is (j + 0.5, i + 0.5): the coordinates of boxes and contours everywhere in clearsight.
"""

from __future__ import annotations

import numpy as np
from torch import Tensor

from clearsight.errors import DataError, ShapeError
from clearsight.types import Rle

__all__ = [
    "mask_to_box",
    "mask_to_rle",
    "rle_area",
    "rle_from_string",
    "rle_to_mask",
    "rle_to_string",
]

_FIRST_CHARACTER = 48  # of the 64 that COCO's strings use: "0" to "o"
_CONTINUES = 0x20
_SIGN = 0x10


# ------------------------------------------------------------------------------------------------ run lengths
def mask_to_rle(mask: np.ndarray | Tensor) -> Rle:
    """Run lengths of a mask in COCO's order: down the columns, the first run of zeros (0 long if need be).

    Args:
        mask: `(h, w)`, bool or any number; non-zero is inside.

    Raises:
        ShapeError: not two axes.
    """
    bits = _two_axes(mask)
    flat = bits.ravel(order="F")
    if not flat.size:
        return Rle(size=bits.shape, counts=())
    changes = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    counts = np.diff(changes, prepend=0, append=flat.size).tolist()
    return Rle(size=bits.shape, counts=tuple([0, *counts] if flat[0] else counts))


def rle_to_mask(rle: Rle) -> np.ndarray:
    """The `(h, w)` bool mask of run lengths.

    Raises:
        DataError: a run is negative, or the runs do not add up to the size.
    """
    height, width = rle.size
    counts = np.asarray(rle.counts, dtype=np.int64)
    if (counts < 0).any() or counts.sum() != height * width:
        raise DataError(
            f"run lengths: expected runs >= 0 that add up to {height} x {width} = {height * width}, "
            f"got {len(counts)} runs that add up to {counts.sum()}, smallest {counts.min(initial=0)}"
        )
    inside = np.arange(len(counts)) % 2 == 1
    return np.repeat(inside, counts).reshape(width, height).T


def rle_area(rle: Rle) -> int:
    """Pixels inside, without unpacking."""
    return sum(rle.counts[1::2])


def rle_to_string(rle: Rle) -> str:
    """COCO's compressed string of the run lengths.

    From the fourth run on, the difference to the run two before is stored; each number is cut into groups of five bits,
    the lowest first, one character a group, with a bit that says whether another follows.
    """
    left = np.asarray(rle.counts, dtype=np.int64)
    left[3:] -= np.asarray(rle.counts[1:-2], dtype=np.int64)
    groups, used = [], []
    open_ = np.ones(len(left), dtype=bool)
    while open_.any():
        group = left & 0x1F
        left = left >> 5
        more = np.where(group & _SIGN, left != -1, left != 0)
        groups.append(group + _CONTINUES * more + _FIRST_CHARACTER)
        used.append(open_)
        open_ = open_ & more
    if not groups:
        return ""
    return np.stack(groups, axis=1)[np.stack(used, axis=1)].astype(np.uint8).tobytes().decode("ascii")


def rle_from_string(text: str | bytes, size: tuple[int, int]) -> Rle:
    """Run lengths of COCO's compressed string.

    Args:
        text: as `rle_to_string` gives it.
        size: `(height, width)` of the mask; the runs are not checked against it (`rle_to_mask` does).

    Raises:
        DataError: a character is not one of the 64, the last number is cut off, or a run is negative.
    """
    raw = text.encode("utf-8") if isinstance(text, str) else text
    codes = np.frombuffer(raw, dtype=np.uint8).astype(np.int64) - _FIRST_CHARACTER
    if not codes.size:
        return Rle(size=size, counts=())
    last = (codes & _CONTINUES) == 0
    if (codes < 0).any() or (codes > 0x3F).any() or not last[-1]:
        raise DataError(f"compressed run lengths: {raw[:20]!r}… has foreign characters or ends within a number")
    starts = np.flatnonzero(np.concatenate(([True], last[:-1])))
    lengths = np.diff(starts, append=codes.size)
    if lengths.max() > 12:  # a count of more than 60 bits cannot be
        raise DataError(f"compressed run lengths: {raw[:20]!r}… has a number of {lengths.max()} characters")
    shift = 5 * (np.arange(codes.size) - np.repeat(starts, lengths))
    values = np.add.reduceat((codes & 0x1F) << shift, starts)
    values -= np.where(codes[last] & _SIGN, 1, 0) << (5 * lengths)  # two's complement
    values[1::2] = np.cumsum(values[1::2])
    values[2::2] = np.cumsum(values[2::2])
    if (values < 0).any():
        raise DataError(f"compressed run lengths: {raw[:20]!r}… has a negative run")
    return Rle(size=size, counts=tuple(values.tolist()))


# ------------------------------------------------------------------------------------------------ boxes
def mask_to_box(mask: np.ndarray | Tensor) -> tuple[float, float, float, float] | None:
    """The smallest box, xyxy half-open, that holds all pixels inside; None for an empty mask."""
    bits = _two_axes(mask)
    rows, columns = np.flatnonzero(bits.any(axis=1)), np.flatnonzero(bits.any(axis=0))
    if not rows.size:
        return None
    return float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1)


def _two_axes(mask: np.ndarray | Tensor) -> np.ndarray:
    array = np.asarray(mask)
    if array.ndim != 2:
        raise ShapeError(f"mask: expected (h, w), got {array.shape}; give one mask at a time")
    return array if array.dtype == bool else array != 0
