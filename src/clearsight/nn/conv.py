"""The block that most networks are made of."""

from __future__ import annotations

from torch import nn

from clearsight.nn.activation import activation as make_activation
from clearsight.nn.norm import norm as make_norm

__all__ = ["ConvNormAct"]


class ConvNormAct(nn.Sequential):
    """Convolution, normalisation, activation; the convolution has a bias only where no normalisation follows.

    Shape: x `(n, in_channels, h, w)` → `(n, out_channels, ceil(h / stride), ceil(w / stride))` for odd kernels.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        kernel: side of the kernel, odd; padded by `kernel // 2`.
        stride: step.
        groups: channel groups of the convolution.
        norm: a name of `nn.norm`, or None.
        activation: a name of `nn.activation`.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int = 3,
        *,
        stride: int = 1,
        groups: int = 1,
        norm: str | None = "batch",
        activation: str = "relu",
    ) -> None:
        layers: list[nn.Module] = [
            nn.Conv2d(in_channels, out_channels, kernel, stride, padding=kernel // 2, groups=groups, bias=norm is None)
        ]
        if norm is not None:
            layers.append(make_norm(norm, out_channels))
        if activation != "none":
            layers.append(make_activation(activation))
        super().__init__(*layers)
