"""Enlarging feature maps by name, and the patch merging and expanding of transformers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clearsight.errors import ConfigError, ShapeError, nearest
from clearsight.nn.checks import check_odd, check_rank
from clearsight.nn.transposed import transposed_conv

__all__ = [
    "UPSAMPLERS",
    "Interpolate",
    "MaxUnpool",
    "PatchExpand",
    "PatchMerging",
    "PixelShuffle",
    "icnr",
    "upsample",
]

Mode = Literal["nearest", "bilinear", "bicubic"]


class Interpolate(nn.Module):
    """Enlarge by a whole factor; values between the pixels are taken from the nearest one, or mixed.

    Method: half-pixel centres unless `align_corners`: pixel i of the result lies at `(i + 1/2) / factor - 1/2` of the
    input. With aligned corners it lies at `i (h - 1) / (factor h - 1)`, so that the step between pixels depends on the
    size of the image. Bicubic is Keys 1981, equation 15, with a = -0.75, as in PyTorch and OpenCV.

    Shape: x `(n, c, h, w)` → `(n, c, factor * h, factor * w)`.

    Args:
        mode: `nearest`, `bilinear` or `bicubic`.
        factor: how much wider and higher, from 2 on.
        align_corners: of bilinear and bicubic: the centres of the corner pixels stay where they are.

    Raises:
        ConfigError: the factor is no whole number from 2 on, the mode is unknown, or corners are to be aligned in
            nearest.
    """

    def __init__(self, mode: Mode, *, factor: int = 2, align_corners: bool = False) -> None:
        super().__init__()
        _check_factor(factor)
        if mode not in get_args(Mode):
            raise ConfigError(f"mode: there is none named {mode!r}{nearest(mode, get_args(Mode))}")
        if align_corners and mode == "nearest":
            raise ConfigError("align_corners: nearest mixes no pixels; use bilinear or bicubic")
        self.mode, self.factor, self.align_corners = mode, factor, align_corners

    def forward(self, x: Tensor) -> Tensor:
        """The image, larger."""
        check_rank(x, "Interpolate: x", "n c h w")
        corners = None if self.mode == "nearest" else self.align_corners
        return F.interpolate(x, scale_factor=self.factor, mode=self.mode, align_corners=corners)

    def extra_repr(self) -> str:
        """Mode and factor, for `print(model)`."""
        return f"{self.mode}, factor={self.factor}, align_corners={self.align_corners}"


class PixelShuffle(nn.Module):
    """A convolution gives each pixel `factor²` values for each channel, which become a block of pixels.

    Method: Shi et al. 2016 (sub-pixel convolution), arXiv:1609.05158. The convolution starts as Aitken et
    al. 2017 (ICNR), arXiv:1707.02937, propose: as a convolution followed by nearest upsampling, so that no
    chequerboard shows before anything is learned (`icnr`).

    Shape: x `(n, channels, h, w)` → `(n, out_channels, factor * h, factor * w)`.

    Args:
        channels: of the input.
        out_channels: of the output; as many as came in unless given.
        factor: how much wider and higher, from 2 on.
        kernel: side of the kernel, odd.

    Raises:
        ConfigError: the factor is no whole number from 2 on, or the kernel is even.
    """

    def __init__(self, channels: int, *, out_channels: int | None = None, factor: int = 2, kernel: int = 3) -> None:
        super().__init__()
        _check_factor(factor)
        check_odd(kernel, "kernel")
        self.factor = factor
        self.conv = nn.Conv2d(channels, (out_channels or channels) * factor**2, kernel, padding=kernel // 2)
        self.shuffle = nn.PixelShuffle(factor)
        self.repeat_kernels()

    def repeat_kernels(self) -> None:
        """Give all pixels of a block the kernel and bias of its first one; after any other initialisation."""
        icnr(self.conv.weight, self.factor)
        if self.conv.bias is not None:
            icnr(self.conv.bias, self.factor)

    def forward(self, x: Tensor) -> Tensor:
        """Convolve, then lay the channels out as pixels."""
        check_rank(x, "PixelShuffle: x", "n c h w")
        x = self.conv(x)
        if len(x) == 0:  # whose gradient PyTorch's own shuffle gets wrong
            return x.reshape(0, x.shape[1] // self.factor**2, *(side * self.factor for side in x.shape[2:]))
        return self.shuffle(x)


def icnr(weight: Tensor, factor: int) -> Tensor:
    """Make the outputs that pixel shuffle lays out as one block the same, in place: those of the block's first pixel.

    Method: Aitken et al. 2017, arXiv:1707.02937. Pixel shuffle reads the `factor²` pixels of a channel from
    neighbouring channels, so each kernel is repeated in a row; a repetition of the whole stack would mix up the
    channels instead.

    Args:
        weight: of a convolution before a pixel shuffle, `(out * factor², …)`; also its bias.
        factor: of the pixel shuffle.

    Returns:
        The same tensor.

    Raises:
        ShapeError: factor² does not divide the outputs.
    """
    if len(weight) % factor**2:
        raise ShapeError(f"weight: expected a multiple of {factor}² = {factor**2} outputs, got {len(weight)}")
    with torch.no_grad():
        return weight.copy_(weight[:: factor**2].repeat_interleave(factor**2, dim=0))


class MaxUnpool(nn.Module):
    """Values go back to where max pooling found them; the rest is zero.

    Method: Zeiler and Fergus 2014, arXiv:1311.2901, section 2.1. Meant for pooling without overlap: where two windows
    had one winner, which of the two values stays is not defined.

    Shape: x and indices `(n, c, h, w)` → `(n, c, factor * h, factor * w)`, or of the size that is given.

    Args:
        factor: stride of the pooling, from 2 on.

    Raises:
        ConfigError: the factor is no whole number from 2 on.
    """

    def __init__(self, factor: int = 2) -> None:
        super().__init__()
        _check_factor(factor)
        self.factor = factor

    def forward(self, x: Tensor, indices: Tensor, size: Sequence[int] | None = None) -> Tensor:
        """Put the values back.

        Args:
            x: `(n, c, h, w)`.
            indices: of the same shape, from `nn.MaxPool2d(factor, return_indices=True)`.
            size: `(height, width)` before pooling, where it was no multiple of the factor.

        Raises:
            ShapeError: x and indices differ in shape, or no pooling by the factor leads from that size to x.
        """
        check_rank(x, "MaxUnpool: x", "n c h w")
        if x.shape != indices.shape:
            raise ShapeError(f"MaxUnpool: expected indices of {tuple(x.shape)}, as x, got {tuple(indices.shape)}")
        whole = [side * self.factor for side in x.shape[2:]]
        if size is not None and any(abs(s - w) >= self.factor for s, w in zip(size, whole, strict=True)):
            raise ShapeError(f"MaxUnpool: size must be less than {self.factor} away from {whole}, got {tuple(size)}")
        return F.max_unpool2d(x, indices, [self.factor] * 2, output_size=whole if size is None else list(size))

    def extra_repr(self) -> str:
        """The factor, for `print(model)`."""
        return f"factor={self.factor}"


class PatchMerging(nn.Module):
    """Each 2×2 block of tokens becomes one: the four laid side by side, normalised, and halved by a matrix.

    Method: Liu et al. 2021 (Swin), arXiv:2103.14030, section 3.1; names of parameters and outputs as in torchvision. An
    odd side is filled up with zeros on the right and below.

    Shape: x `(n, h, w, channels)` → `(n, ceil(h / 2), ceil(w / 2), 2 * channels)`; also without n.

    Args:
        channels: of a token.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.reduction = nn.Linear(4 * channels, 2 * channels, bias=False)
        self.norm = nn.LayerNorm(4 * channels)

    def forward(self, x: Tensor) -> Tensor:
        """Merge."""
        check_rank(x, "PatchMerging: x", "n h w c", "h w c")
        height, width = x.shape[-3:-1]
        if torch.compiler.is_compiling() or height % 2 or width % 2:  # compiled, the sizes may be unknown yet
            x = F.pad(x, (0, 0, 0, width % 2, 0, height % 2))
        x = x.unflatten(-2, (-1, 2)).unflatten(-4, (-1, 2))  # … h 2 w 2 c
        x = x.transpose(-4, -3).transpose(-3, -2).flatten(-3)  # … h w 4c: a block's columns first, as torchvision
        return self.reduction(self.norm(x))


class PatchExpand(nn.Module):
    """Each token becomes a block of tokens: a matrix makes the channels, which are laid out and normalised.

    Method: Cao et al. 2021 (Swin-Unet), arXiv:2105.05537, patch expanding layer: c → 2c channels, laid out as 2×2
    tokens of c/2; the last one c → 16c, as 4×4 tokens of c. Names of parameters as in the authors' code.

    Shape: x `(n, h, w, channels)` → `(n, factor * h, factor * w, out_channels)`; also without n.

    Args:
        channels: of a token.
        factor: how much wider and higher, from 2 on.
        out_channels: of a token of the result; `channels / 2` at factor 2 unless given, else `channels`.

    Raises:
        ConfigError: the factor is no whole number from 2 on, or an odd number of channels is to be halved.
    """

    def __init__(self, channels: int, *, factor: int = 2, out_channels: int | None = None) -> None:
        super().__init__()
        _check_factor(factor)
        if out_channels is None:
            if factor == 2 and channels % 2:
                raise ConfigError(f"channels: expected an even number to halve, got {channels}; pass out_channels")
            out_channels = channels // 2 if factor == 2 else channels
        self.factor = factor
        self.expand = nn.Linear(channels, factor**2 * out_channels, bias=False)
        self.norm = nn.LayerNorm(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """Expand."""
        check_rank(x, "PatchExpand: x", "n h w c", "h w c")
        x = self.expand(x).unflatten(-1, (self.factor, self.factor, -1))  # … h w f f c
        x = x.transpose(-4, -3).flatten(-5, -4).flatten(-3, -2)  # … fh fw c
        return self.norm(x)

    def extra_repr(self) -> str:
        """The factor, for `print(model)`."""
        return f"factor={self.factor}"


class _OnImages(nn.Module):
    """A layer of tokens `(n, h, w, c)`, on images `(n, c, h, w)`; in channels-last memory nothing is copied."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        check_rank(x, "upsample: x", "n c h w")
        return self.layer(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


def _interpolation(
    mode: Mode, channels: int, out_channels: int, factor: int, *, align_corners: bool = False
) -> nn.Module:
    enlarge = Interpolate(mode, factor=factor, align_corners=align_corners)
    if out_channels == channels:
        return enlarge
    # Both are linear and the weights of each pixel sum to one: the order changes nothing but the cost.
    return nn.Sequential(nn.Conv2d(channels, out_channels, 1), enlarge)


def _unpool(channels: int, out_channels: int, factor: int) -> nn.Module:
    if out_channels != channels:
        raise ConfigError(
            f"out_channels: unpool puts values back to where they were found, so it keeps the {channels} channels, got "
            f"{out_channels}; change them by a convolution before pooling or after"
        )
    return MaxUnpool(factor)


UPSAMPLERS: dict[str, Callable[[int, int, int], nn.Module]] = {
    "nearest": partial(_interpolation, "nearest"),
    "bilinear": partial(_interpolation, "bilinear"),
    "bicubic": partial(_interpolation, "bicubic"),
    "pixel_shuffle": lambda channels, out, factor: PixelShuffle(channels, out_channels=out, factor=factor),
    "transposed": lambda channels, out, factor: transposed_conv(channels, out, 2 * factor, stride=factor),
    "unpool": _unpool,
    "patch_expand": lambda channels, out, factor: _OnImages(PatchExpand(channels, out_channels=out, factor=factor)),
}


def upsample(
    name: str, channels: int, *, factor: int = 2, out_channels: int | None = None, align_corners: bool = False
) -> nn.Module:
    """A layer that enlarges `(n, channels, h, w)` to `(n, out_channels, factor * h, factor * w)`, by name.

    Args:
        name: a key of `UPSAMPLERS`. The interpolations get a 1×1 convolution before them where the channels change;
            the layer of `unpool` also takes the indices of the pooling.
        channels: of the input.
        factor: how much wider and higher, a whole number from 2 on.
        out_channels: of the output; as many as came in unless given.
        align_corners: of bilinear and bicubic, see `Interpolate`.

    Raises:
        ConfigError: the name is unknown, the factor is no whole number from 2 on, corners are to be aligned in what
            does not interpolate, or channels are to change in `unpool`.
    """
    if name not in UPSAMPLERS:
        raise ConfigError(f"upsample: there is none named {name!r}{nearest(name, UPSAMPLERS)}")
    _check_factor(factor)
    out = channels if out_channels is None else out_channels
    if align_corners:
        if name not in ("bilinear", "bicubic"):
            raise ConfigError(f"align_corners: {name} mixes no neighbouring pixels; use bilinear or bicubic")
        return _interpolation(name, channels, out, factor, align_corners=True)
    return UPSAMPLERS[name](channels, out, factor)


def _check_factor(factor: int) -> None:
    if not isinstance(factor, int) or factor < 2:
        raise ConfigError(f"factor: must be a whole number from 2 on, got {factor}")
