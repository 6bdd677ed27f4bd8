"""Wide 3×3 convolutions with a quarter of the products, for inference in float32 on CPUs."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clearsight.errors import ShapeError

__all__ = ["winograd_conv2d", "winograd_pays"]

TILE = 4
PATCH = TILE + 2
WIDE = 192
MANY = 72
FILLED = 0.8
AT_ONCE = 80

# Equation 3 of the paper for F(4, 3): of a patch of six, of a kernel of three, and to the four outputs.
_PATCH = (
    (4, 0, -5, 0, 1, 0),
    (0, -4, -4, 1, 1, 0),
    (0, 4, -4, -1, 1, 0),
    (0, -2, -1, 2, 1, 0),
    (0, 2, -1, -2, 1, 0),
    (0, 4, 0, -5, 0, 1),
)
_KERNEL = (
    (1 / 4, 0, 0),
    (-1 / 6, -1 / 6, -1 / 6),
    (-1 / 6, 1 / 6, -1 / 6),
    (1 / 24, 1 / 12, 1 / 6),
    (1 / 24, -1 / 12, 1 / 6),
    (0, 0, 1),
)
_OUTPUT = ((1, 1, 1, 1, 1, 0), (0, 1, -1, 2, -2, 0), (0, 1, 1, 4, 4, 0), (0, 1, -1, 8, -8, 1))


def winograd_conv2d(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """A 3×3 convolution, stride 1, padded by 1, through tiles of 4×4 outputs: 36 products in place of 144.

    Each patch of 6×6 inputs and each kernel is taken to 36 numbers, multiplied there (36 matrix products over the
    channels), and taken back. Exact in exact arithmetic; in float32 its rounding error is about seven times that of a
    direct convolution, still some 1e-5 of the output's size. Half precision has no digits to spare and takes the direct
    way, as do empty batches and code that is compiled or exported.

    Method: Lavin and Gray 2016, arXiv:1509.09308, section 4.3, F(4×4, 3×3).

    Shape: x `(n, c, h, w)` → `(n, o, h, w)`, channels-last in memory.

    Args:
        x: float.
        weight: `(o, c, 3, 3)`.
        bias: `(o,)`, or None.

    Raises:
        ShapeError: the kernel is not 3×3, or the channels differ.
    """
    if x.ndim != 4 or weight.shape[1:] != (x.shape[1], 3, 3):
        raise ShapeError(
            f"winograd_conv2d: expected x (n, c, h, w) and weight (o, c, 3, 3), got {tuple(x.shape)} and "
            f"{tuple(weight.shape)}"
        )
    n, channels, height, width = x.shape
    if n == 0 or x.dtype.itemsize < 4 or torch.compiler.is_compiling():
        return F.conv2d(x, weight, bias, padding=1)
    out_channels = len(weight)
    to_patch, to_kernel, to_output = (_both_axes(rows, x) for rows in (_PATCH, _KERNEL, _OUTPUT))
    kernels = (to_kernel @ weight.permute(2, 3, 1, 0).reshape(9, -1)).view(-1, channels, out_channels)
    down, across = -(-height // TILE), -(-width // TILE)
    padded = F.pad(x.permute(0, 2, 3, 1), (0, 0, 1, across * TILE - width + 1, 1, down * TILE - height + 1))
    per_image, per_row, per_column, _ = padded.stride()
    patches = padded.as_strided(
        (PATCH, PATCH, n, down, across, channels),
        (per_row, per_column, per_image, TILE * per_row, TILE * per_column, 1),
    )
    out = x.new_empty(n, down * TILE, across * TILE, out_channels)
    tiles = out.view(n, down, TILE, across, TILE, out_channels).permute(2, 4, 0, 1, 3, 5)
    together = max(1, AT_ONCE // max(1, down * across))
    for first in range(0, n, together):  # few enough to stay in the processor's cache, enough for a matrix product
        images = slice(first, first + together)
        taken = to_patch @ patches[:, :, images].reshape(PATCH * PATCH, -1)
        product = torch.bmm(taken.view(PATCH * PATCH, -1, channels), kernels)
        back = to_output @ product.view(PATCH * PATCH, -1)
        tiles[:, :, images] = back.view(TILE, TILE, -1, down, across, out_channels)
    out = out[:, :height, :width].contiguous()
    return (out if bias is None else out.add_(bias)).permute(0, 3, 1, 2)


def _both_axes(rows: tuple[tuple[float, ...], ...], like: Tensor) -> Tensor:
    """The transform of one axis as that of both at once, `(rows², columns²)`."""
    one = torch.tensor(rows, dtype=torch.float64)
    return torch.kron(one, one).to(like)


def winograd_pays(x: Tensor, conv: nn.Conv2d) -> bool:
    """Whether `winograd_conv2d` is the faster way through a convolution here.

    In float32 on CPUs, without gradients, for 3×3 kernels of stride 1 between at least 192 channels, with so many tiles
    that taking the kernels over is little of the work, and maps that tiles of 4×4 fill well: not 14×14.

    Args:
        x: `(n, c, h, w)`.
        conv: any 2-D convolution.
    """
    if conv.in_channels < WIDE or conv.out_channels < WIDE or torch.is_grad_enabled() or torch.compiler.is_compiling():
        return False
    if conv.kernel_size != (3, 3) or conv.stride != (1, 1) or conv.dilation != (1, 1) or conv.groups != 1:
        return False
    if type(x) is not Tensor or x.ndim != 4 or x.dtype != torch.float32 or x.device.type != "cpu":
        return False
    if conv.padding != (1, 1) or conv.padding_mode != "zeros" or torch.is_autocast_enabled("cpu"):
        return False
    down, across = -(-x.shape[2] // TILE), -(-x.shape[3] // TILE)
    filled = x.shape[2] * x.shape[3] / max(down * across * TILE**2, 1)
    return len(x) * down * across >= MANY and filled >= FILLED
