"""Fourier mixing: tokens and channels exchange what they know by a transform without weights."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from clearsight.nn.checks import check_rank
from clearsight.nn.precision import at_least_float32

__all__ = ["FourierMixing", "fourier_mix"]


def fourier_mix(x: Tensor, *, ortho: bool = False) -> Tensor:
    """The real part of the discrete Fourier transform over tokens and channels.

    `y[k, m] = Σ_l Σ_c x[l, c] · cos(2π (k l / L + m c / C))`. Done twice it gives `L C` times the even part of x;
    the odd part is lost.

    Method: Lee-Thorp et al. 2022 (FNet), arXiv:2105.03824, equation 3. Half precision is transformed in float32. In an
    exported graph the sum is done by products with matrices of cosines and sines, the paper's other form (section 3.2):
    runtimes that have a transform at all are slow and coarse for lengths that are no powers of two.

    Args:
        x: `(n, l, c)`, float.
        ortho: divide by `√(l c)`, which keeps the norm; without it sums of 64 K elements and more may overflow float16.

    Returns:
        `(n, l, c)` of the type of x.

    Raises:
        ShapeError: x has another rank.
    """
    check_rank(x, "fourier_mix: x", "n l c")
    tokens, channels = x.shape[1:]
    with torch.autocast(x.device.type, enabled=False):
        wide = at_least_float32(x)
        if torch.compiler.is_exporting():
            (cos_l, sin_l), (cos_c, sin_c) = (_waves(size, wide) for size in (tokens, channels))
            mixed = cos_l @ (wide @ cos_c) - sin_l @ (wide @ sin_c)
        else:
            mixed = torch.fft.fft2(wide).real
        if ortho:
            mixed = mixed / math.sqrt(tokens * channels)
        return mixed.to(x.dtype)


def _waves(size: int, like: Tensor) -> tuple[Tensor, Tensor]:
    """Cosines and sines of `2π i j / size`; the products are reduced as integers, which keeps the angles exact."""
    index = torch.arange(size, device=like.device)
    angle = (index[:, None] * index % size).double() * (2 * math.pi / size)
    return angle.cos().to(like.dtype), angle.sin().to(like.dtype)


class FourierMixing(nn.Module):
    """`fourier_mix` as a layer: what stands in for self-attention in FNet.

    Shape: x `(n, l, c)` → the same.

    Args:
        ortho: see `fourier_mix`; FNet has it off, for a norm follows.
    """

    def __init__(self, *, ortho: bool = False) -> None:
        super().__init__()
        self.ortho = ortho

    def forward(self, x: Tensor) -> Tensor:
        """Tokens and channels mixed."""
        return fourier_mix(x, ortho=self.ortho)

    def extra_repr(self) -> str:
        """The scale, for `print(model)`."""
        return f"ortho={self.ortho}"
