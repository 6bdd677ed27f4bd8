"""Convolutions that do their work in two cheaper steps."""

from __future__ import annotations

from torch import Tensor, nn

from clearsight.nn.checks import check_odd
from clearsight.nn.conv import ConvNormAct

__all__ = ["DepthwiseSeparable", "SpatiallySeparable"]


class DepthwiseSeparable(nn.Module):
    """A k×k convolution of each channel by itself, then a 1×1 convolution that mixes them.

    `c k² + c o` weights in place of `c o k²`. Method: Howard et al. 2017 (MobileNet), arXiv:1704.04861, section 3.1: a
    norm and an activation after both.

    Shape: x `(n, in_channels, h, w)` → `(n, out_channels, ceil(h / stride), ceil(w / stride))`.

    Args:
        in_channels: c.
        out_channels: o.
        kernel: k, odd.
        stride: of the first step.
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
        norm: str | None = "batch",
        activation: str = "relu",
    ) -> None:
        super().__init__()
        self.depthwise = ConvNormAct(
            in_channels, in_channels, kernel, stride=stride, groups=in_channels, norm=norm, activation=activation
        )
        self.pointwise = ConvNormAct(in_channels, out_channels, 1, norm=norm, activation=activation)

    def forward(self, x: Tensor) -> Tensor:
        """Each channel, then across channels."""
        return self.pointwise(self.depthwise(x))


class SpatiallySeparable(nn.Module):
    """A k×1 convolution, then a 1×k one: `2 k` in place of `k²` products a channel pair.

    It does exactly what k×k kernels of rank one do, and only comes close to others. Method: Szegedy et al. 2016
    (Inception v3), arXiv:1512.00567, section 3.2.

    Shape: x `(n, in_channels, h, w)` → `(n, out_channels, ceil(h / stride), ceil(w / stride))`.

    Args:
        in_channels: of the input.
        out_channels: of the output, and between.
        kernel: k, odd.
        stride: down the image in the first step, across it in the second.
        bias: of the second step.

    Raises:
        ConfigError: the kernel is even: its output would not lie on the input's pixels.
    """

    def __init__(
        self, in_channels: int, out_channels: int, kernel: int = 3, *, stride: int = 1, bias: bool = True
    ) -> None:
        super().__init__()
        check_odd(kernel, "kernel")
        half = kernel // 2
        self.down = nn.Conv2d(in_channels, out_channels, (kernel, 1), (stride, 1), (half, 0), bias=False)
        self.across = nn.Conv2d(out_channels, out_channels, (1, kernel), (1, stride), (0, half), bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """Down the columns, then along the rows."""
        return self.across(self.down(x))
