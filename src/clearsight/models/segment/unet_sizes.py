"""Sizes inside a U-Net: what is cut off where without padding, and an image extended by its mirror image."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from clearsight.errors import ShapeError
from clearsight.nn.checks import check_positive

__all__ = [
    "mirror_pad",
    "pad_to_multiple",
    "valid_crops",
    "valid_input_size",
    "valid_margin",
    "valid_output_size",
    "valid_step",
]


def valid_margin(depth: int) -> int:
    """Pixels that a U-Net of unpadded convolutions cuts off at each side of its input: `6 · 2 ** depth - 4`.

    Two 3×3 convolutions take two pixels at each side; a pooling makes pixels twice as wide. Down and up again that is
    `2 (1 + 2 + … + 2 ** (depth - 1))` twice, and `2 · 2 ** depth` at the bottom.

    Args:
        depth: number of poolings.

    Example:
        >>> valid_margin(4)  # 572 becomes 388
        92
    """
    check_positive(depth, "depth")
    return 6 * 2**depth - 4


def valid_step(depth: int) -> int:
    """Tiles of one image meet without a seam where they begin at multiples of this: all see the same pooling grid.

    Args:
        depth: number of poolings.
    """
    check_positive(depth, "depth")
    return 2**depth


def valid_crops(depth: int) -> tuple[int, ...]:
    """What is cut off at each side of each skip, from the finest to the coarsest: `12 · 2 ** k - 8`, k ending at 0.

    The deepest skip loses 4: two pixels to each of the two convolutions of the bottom, counted on pixels twice as fine.
    One level up it is `2 (c + 2 + 2)`: what the level below lost, and its two convolutions down and two up.

    Args:
        depth: number of poolings.

    Example:
        >>> valid_crops(4)  # 568 to 392, 280 to 200, 136 to 104, 64 to 56
        (88, 40, 16, 4)
    """
    check_positive(depth, "depth")
    return tuple(12 * 2**k - 8 for k in reversed(range(depth)))


def valid_output_size(size: int, depth: int) -> int:
    """Side of the output of a U-Net of unpadded convolutions.

    Method: Ronneberger et al. 2015, arXiv:1505.04597, section 2: sides are such that every pooling meets an even one.

    Args:
        size: side of the input.
        depth: number of poolings.

    Raises:
        ShapeError: a pooling would meet an odd side, or nothing would be left; the message has the next side that fits.

    Example:
        >>> valid_output_size(572, 4)
        388
    """
    found = size - 2 * valid_margin(depth)
    if found < 1 or (size + 4) % valid_step(depth):
        fits = valid_input_size(max(found, 1), depth)
        raise ShapeError(
            f"size: without padding a U-Net of {depth} poolings takes sides of {valid_input_size(1, depth)}, "
            f"{valid_step(depth)} more, and so on, got {size}; the next that fits is {fits}"
        )
    return found


def valid_input_size(wanted: int, depth: int) -> int:
    """The smallest side of an input whose output covers the wanted side; see `valid_output_size`.

    Args:
        wanted: side of the output, at least 1.
        depth: number of poolings.

    Raises:
        ConfigError: the wanted side or the depth is below 1.

    Example:
        >>> valid_input_size(388, 4), valid_input_size(389, 4)
        (572, 588)
    """
    check_positive(wanted, "wanted")
    least, step = wanted + 2 * valid_margin(depth), valid_step(depth)
    return -(-(least + 4) // step) * step - 4


def mirror_pad(x: Tensor, left: int, right: int, top: int, bottom: int) -> Tensor:
    """Extend images by their mirror image, without repeating the border pixel; as often as it takes.

    What is wider than the image goes on with the mirror image of the mirror image (NumPy's `reflect`); a side of one
    pixel is repeated.

    Shape: x `(n, c, h, w)` → `(n, c, h + top + bottom, w + left + right)`.

    Args:
        x: images; h and w at least 1.
        left: pixels to add, at least 0.
        right: likewise.
        top: likewise.
        bottom: likewise.
    """
    if not (left or right or top or bottom):
        return x
    height, width = x.shape[-2:]
    if max(left, right) < width and max(top, bottom) < height:
        return F.pad(x, (left, right, top, bottom), mode="reflect")
    x = x.index_select(-2, _mirrored(height, top, bottom, x.device))
    return x.index_select(-1, _mirrored(width, left, right, x.device))


def _mirrored(side: int, before: int, after: int, device: torch.device) -> Tensor:
    """Which pixel stands at each place, to and fro."""
    place = torch.arange(-before, side + after, device=device)
    if side == 1:
        return torch.zeros_like(place)
    last = side - 1
    return last - (place.remainder(2 * last) - last).abs()


def pad_to_multiple(x: Tensor, multiple: int) -> Tensor:
    """Extend images on the right and below to whole multiples, by their mirror image; see `mirror_pad`.

    Shape: x `(n, c, h, w)` → `(n, c, ceil(h / multiple) · multiple, ceil(w / multiple) · multiple)`.

    Args:
        x: images; h and w at least 1.
        multiple: at least 1.
    """
    height, width = x.shape[-2:]
    return mirror_pad(x, 0, -width % multiple, 0, -height % multiple)
