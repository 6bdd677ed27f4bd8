"""Convolution by way of the Fourier transform: as slow for a kernel of 101×101 as for one of 3×3."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from clearsight.errors import ShapeError
from clearsight.nn.precision import at_least_float32

__all__ = ["fft_conv2d"]


def fft_conv2d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    stride: int = 1,
    padding: int = 0,
    dilation: int = 1,
    groups: int = 1,
) -> Tensor:
    """What `torch.nn.functional.conv2d` computes, by a product of spectra.

    Cross-correlation is `F⁻¹(F(x) · conj F(w))`, cut to the places where the kernel lies wholly on the padded image. A
    stride only leaves out places, so it saves nothing here. On a CPU, forward and backward, it is slower up to kernels
    of 15, three times as fast from 21 and six times from 31 on. What is exported is a convolution: formats such as ONNX
    know no complex products, and whoever runs the graph chooses how it is done.

    Args:
        x: `(n, c, h, w)`; computed in float32 at least, since transforms of half precision do not exist everywhere.
        weight: `(o, c / groups, kh, kw)`.
        bias: `(o,)`, or None.
        stride: step, for both axes.
        padding: zeros on all sides.
        dilation: gap between the kernel's taps.
        groups: channel groups.

    Returns:
        `(n, o, …)`, in the dtype of x.

    Raises:
        ShapeError: channels and groups do not fit, or the kernel is larger than the padded image.

    Cost: `O(h w log(h w))` for each channel and a product for each pair of channels, whatever the kernel; spectra of x,
    weight and result in memory.
    """
    n, c, height, width = _checked(x, weight, groups)
    size = (height + 2 * padding, width + 2 * padding)
    span = tuple(dilation * (side - 1) + 1 for side in weight.shape[2:])
    if span[0] > size[0] or span[1] > size[1]:
        raise ShapeError(
            f"fft_conv2d: a kernel that spans {span[0]}×{span[1]} is larger than the padded image of "
            f"{size[0]}×{size[1]}"
        )
    if torch.compiler.is_exporting():
        return F.conv2d(x, weight, bias, stride, padding, dilation, groups)
    wide = at_least_float32(x)
    kernel = weight.to(wide.dtype)
    if dilation > 1:
        spread = kernel.new_zeros((*kernel.shape[:2], *span))
        spread[..., ::dilation, ::dilation] = kernel
        kernel = spread
    with torch.autocast(x.device.type, enabled=False):
        image = torch.fft.rfft2(F.pad(wide, [padding] * 4))
        taps = torch.fft.rfft2(kernel, s=size)
        image = image.view(n, groups, c // groups, *image.shape[2:])
        taps = taps.view(groups, len(weight) // groups, c // groups, *taps.shape[2:])
        # one matrix product for each frequency and group
        spectrum = torch.einsum("ngchw,gochw->ngohw", image, taps.conj()).reshape(n, len(weight), *taps.shape[3:])
        full = torch.fft.irfft2(spectrum, s=size)
    out = full[..., : size[0] - span[0] + 1 : stride, : size[1] - span[1] + 1 : stride]
    if bias is not None:
        out = out + bias.to(out.dtype).view(-1, 1, 1)
    as_x = x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()
    return out.to(x.dtype, memory_format=torch.channels_last if as_x else torch.preserve_format)


def _checked(x: Tensor, weight: Tensor, groups: int) -> tuple[int, int, int, int]:
    if x.ndim != 4 or weight.ndim != 4:
        raise ShapeError(
            f"fft_conv2d: expected x (n, c, h, w) and weight (o, c / groups, kh, kw), got {tuple(x.shape)} and "
            f"{tuple(weight.shape)}"
        )
    n, c, height, width = x.shape
    if groups < 1 or c != weight.shape[1] * groups or len(weight) % groups:
        raise ShapeError(
            f"fft_conv2d: {c} channels in {groups} groups do not fit weights of {tuple(weight.shape)}: expected "
            f"{weight.shape[1]} channels for each group, and a multiple of {groups} outputs"
        )
    return n, c, height, width
