"""The way back up of a U-Net on any backbone: enlarge, join the skip, convolve twice."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clearsight.errors import ConfigError
from clearsight.nn.conv import ConvNormAct
from clearsight.nn.cross_iteration_norm import CrossIterationBatchNorm
from clearsight.nn.init import init

__all__ = ["DecoderBlock", "UNetDecoder", "enlarged_conv"]

# Below so many output pixels the kernels take longer to add up than the saved products (measured on CPUs).
_PAYS = 4096


def enlarged_conv(x: Tensor, skip: Tensor | None, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """A 3×3 convolution of an image that is enlarged by two, beside a skip, without making either.

    `conv2d(cat(enlarge(x), skip), weight, padding=1)`, enlarged to the nearest pixel. Each pixel of x then meets its
    kernel several times over: added up, that is a transposed convolution of kernel 4 and stride 2, with 4 products an
    output pixel in place of 9, and neither the enlarged image nor the joined one is written or read.

    Shape: x `(n, c, h, w)`, skip `(n, s, 2 h, 2 w)` → `(n, o, 2 h, 2 w)`.

    Args:
        x: the coarse map.
        skip: the fine map, or None.
        weight: `(o, c + s, 3, 3)`, of x's channels first.
        bias: `(o,)`, or None.
    """
    channels = x.shape[1]
    kernel = weight[:, :channels].flip(2, 3).transpose(0, 1)  # c o 3 3
    kernel = F.pad(kernel, (0, 0, 0, 1)) + F.pad(kernel, (0, 0, 1, 0))  # a pixel is two rows,
    kernel = F.pad(kernel, (0, 1)) + F.pad(kernel, (1, 0))  # and two columns
    y = F.conv_transpose2d(x, kernel, bias, stride=2, padding=1)
    return y if skip is None else y.add_(F.conv2d(skip, weight[:, channels:], padding=1))


class DecoderBlock(nn.Module):
    """Enlarge by two to the nearest pixel, join the skip, and two 3×3 convolutions with norms and ReLUs.

    Through `enlarged_conv` where that is faster.

    Shape: x `(n, in_channels, h, w)`, skip `(n, skip_channels, 2 h, 2 w)` → `(n, out_channels, 2 h, 2 w)`.

    Args:
        in_channels: of the coarse map.
        skip_channels: of the fine map; 0 for none.
        out_channels: of the output.
        norm: a name of `nn.norm`.
    """

    def __init__(self, in_channels: int, skip_channels: int, out_channels: int, *, norm: str = "batch") -> None:
        super().__init__()
        self.conv1 = ConvNormAct(in_channels + skip_channels, out_channels, norm=norm)
        self.conv2 = ConvNormAct(out_channels, out_channels, norm=norm)

    def forward(self, x: Tensor, skip: Tensor | None = None) -> Tensor:
        """One level up."""
        convolution, norm, activation = self.conv1
        if self._pays(x, convolution, norm):
            y = enlarged_conv(x, skip, convolution.weight, convolution.bias)  # pyright: ignore[reportArgumentType]
            return self.conv2(activation(norm(y)))
        x = F.interpolate(x, scale_factor=2, mode="nearest")
        return self.conv2(self.conv1(x if skip is None else torch.cat((x, skip), dim=1)))

    def _pays(self, x: Tensor, convolution: nn.Module, norm: nn.Module) -> bool:
        """Not where somebody compiles, exports, or watches the layers that `enlarged_conv` goes past."""
        if torch.compiler.is_compiling() or isinstance(norm, CrossIterationBatchNorm):
            return False
        if any(layer._forward_hooks or layer._forward_pre_hooks for layer in (self.conv1, convolution)):  # pyright: ignore[reportPrivateUsage]
            return False
        return 4 * len(x) * x.shape[2] * x.shape[3] >= _PAYS


class UNetDecoder(nn.Module):
    """From the deepest level of a backbone to the size of the image, past the levels between.

    Method: Ronneberger et al. 2015, arXiv:1505.04597, in the form of segmentation-models-pytorch's `Unet`, with its
    names of parameters and its outputs: each block enlarges to the nearest pixel and convolves what it enlarged beside
    the level of that stride, where there is one.

    Shape: `(n, channels[level], h / strides[level], w / strides[level])` by level → `(n, widths[-1], h, w)`.

    Args:
        channels: by level of the backbone.
        strides: by level of the backbone, powers of two.
        widths: channels behind each block, the last at stride 1; a backbone of fewer levels takes the last ones.
        norm: a name of `nn.norm`.

    Raises:
        ConfigError: the largest stride is no power of two, or there are not widths enough to come back from it.
    """

    def __init__(
        self,
        channels: Mapping[str, int],
        *,
        strides: Mapping[str, int],
        widths: Sequence[int] = (256, 128, 64, 32, 16),
        norm: str = "batch",
    ) -> None:
        super().__init__()
        by_stride = {strides[level]: level for level in channels}
        largest = max(by_stride)
        steps = largest.bit_length() - 1
        if largest != 2**steps or steps < 1:
            raise ConfigError(
                f"backbone: a U-Net goes up by factors of two, which never gets from stride {largest} to 1"
            )
        if len(widths) < steps:
            raise ConfigError(
                f"decoder_channels: expected {steps} or more, to come back from stride {largest}, got {len(widths)}"
            )
        self.deepest = by_stride[largest]
        self.skips = tuple(by_stride.get(2**step) for step in reversed(range(steps)))
        reached = channels[self.deepest]
        self.blocks = nn.ModuleList()
        for level, width in zip(self.skips, widths[-steps:], strict=True):
            self.blocks.append(DecoderBlock(reached, channels[level] if level else 0, width, norm=norm))
            reached = width
        init(self)

    def forward(self, features: Mapping[str, Tensor]) -> Tensor:
        """Up."""
        x = features[self.deepest]
        for block, level in zip(self.blocks, self.skips, strict=True):
            x = block(x, features[level] if level else None)
        return x
