"""Inception modules: branches of several kernels side by side."""

from __future__ import annotations

from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clearsight.nn.activation import activation as make_activation
from clearsight.nn.checks import check_odd, check_rank
from clearsight.nn.conv import conv_norm, norm_after

__all__ = ["Inception", "InceptionA", "InceptionB", "InceptionC", "InceptionConv", "InceptionD", "InceptionE"]


class InceptionConv(nn.Module):
    """Convolution, norm with an ε of 0.001, activation; parameters are named as in torchvision's `BasicConv2d`.

    Shape: x `(n, in_channels, h, w)` → `(n, out_channels, h', w')`, the same size at stride 1 with the default padding.

    Args:
        in_channels: of the input.
        out_channels: of the output.
        kernel: odd side, or height and width.
        stride: step.
        padded: keep the size; without, the kernel stays inside the map.
        norm: a name of `nn.norm`.
        activation: a name of `nn.activation`.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int | tuple[int, int],
        *,
        stride: int = 1,
        padded: bool = True,
        norm: str = "batch",
        activation: str = "relu",
    ) -> None:
        super().__init__()
        height, width = (kernel, kernel) if isinstance(kernel, int) else kernel
        padding = (height // 2, width // 2) if padded else 0
        self.padded = padded
        self.conv = nn.Conv2d(in_channels, out_channels, (height, width), stride, padding, bias=False)
        self.bn = norm_after(norm, self.conv)
        if hasattr(self.bn, "eps"):
            self.bn.eps = 1e-3  # pyright: ignore[reportArgumentType]
        self.act = make_activation(activation)

    def forward(self, x: Tensor, *, same: bool = False) -> Tensor:
        """Convolve, normalise, activate.

        Args:
            x: the input.
            same: pad this once, where the layer is not `padded`: the size becomes `ceil(h / stride)`.
        """
        if same and not self.padded:
            height, width = self.conv.kernel_size
            x = F.pad(x, (width // 2, width // 2, height // 2, height // 2))
        return self.act(conv_norm(self.conv, self.bn, x))


class Inception(nn.Module):
    """GoogLeNet's module: 1×1, 3×3, 5×5 and pooling side by side, the costly ones behind a 1×1 that narrows.

    Method: Szegedy et al. 2015, arXiv:1409.4842, figure 2 (b), with batch norm; parameters are named as in torchvision.

    Shape: x `(n, in_channels, h, w)` → `(n, out, h, w)` with out the sum of the branches' last widths.

    Args:
        in_channels: of the input.
        widths: a row of the paper's table 1: 1×1, 3×3 reduce, 3×3, 5×5 reduce, 5×5, pool.
        kernel: of the third branch: 3 as torchvision's published weights have it, 5 as the paper.
        norm: a name of `nn.norm`.
        activation: a name of `nn.activation`.

    Raises:
        ConfigError: the kernel is even or a name unknown.
    """

    def __init__(
        self,
        in_channels: int,
        widths: tuple[int, int, int, int, int, int],
        *,
        kernel: int = 3,
        norm: str = "batch",
        activation: str = "relu",
    ) -> None:
        super().__init__()
        check_odd(kernel, "kernel")
        conv = partial(InceptionConv, norm=norm, activation=activation)
        one, three_reduce, three, five_reduce, five, pool = widths
        self.branch1 = conv(in_channels, one, 1)
        self.branch2 = nn.Sequential(conv(in_channels, three_reduce, 1), conv(three_reduce, three, 3))
        self.branch3 = nn.Sequential(conv(in_channels, five_reduce, 1), conv(five_reduce, five, kernel))
        self.branch4 = nn.Sequential(nn.MaxPool2d(3, 1, padding=1, ceil_mode=True), conv(in_channels, pool, 1))

    def forward(self, x: Tensor) -> Tensor:
        """The four branches side by side."""
        check_rank(x, "Inception: x", "n c h w")
        return torch.cat((self.branch1(x), self.branch2(x), self.branch3(x), self.branch4(x)), 1)


class InceptionA(nn.Module):
    """Inception-v3's module for 35×35 maps: the 5×5 beside two 3×3 in a row.

    Method: Szegedy et al. 2016, arXiv:1512.00567, figure 5; parameters are named as in torchvision.

    Shape: x `(n, in_channels, h, w)` → `(n, 224 + pool_width, h, w)`.

    Args:
        in_channels: of the input.
        pool_width: channels of the pooling branch.
        norm: a name of `nn.norm`.
        activation: a name of `nn.activation`.
    """

    def __init__(self, in_channels: int, pool_width: int, *, norm: str = "batch", activation: str = "relu") -> None:
        super().__init__()
        conv = partial(InceptionConv, norm=norm, activation=activation)
        self.branch1x1 = conv(in_channels, 64, 1)
        self.branch5x5_1 = conv(in_channels, 48, 1)
        self.branch5x5_2 = conv(48, 64, 5)
        self.branch3x3dbl_1 = conv(in_channels, 64, 1)
        self.branch3x3dbl_2 = conv(64, 96, 3)
        self.branch3x3dbl_3 = conv(96, 96, 3)
        self.branch_pool = conv(in_channels, pool_width, 1)

    def forward(self, x: Tensor) -> Tensor:
        """The four branches side by side."""
        check_rank(x, "InceptionA: x", "n c h w")
        five = self.branch5x5_2(self.branch5x5_1(x))
        double = self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x)))
        return torch.cat((self.branch1x1(x), five, double, self.branch_pool(_average(x))), 1)


class InceptionB(nn.Module):
    """Inception-v3's step from 35×35 to 17×17: strided convolutions beside strided pooling.

    Method: Szegedy et al. 2016, arXiv:1512.00567, figure 10; parameters are named as in torchvision.

    Shape: x `(n, in_channels, h, w)` → `(n, 480 + in_channels, (h - 3) // 2 + 1, (w - 3) // 2 + 1)`.

    Args:
        in_channels: of the input.
        norm: a name of `nn.norm`.
        activation: a name of `nn.activation`.
    """

    def __init__(self, in_channels: int, *, norm: str = "batch", activation: str = "relu") -> None:
        super().__init__()
        conv = partial(InceptionConv, norm=norm, activation=activation)
        self.branch3x3 = conv(in_channels, 384, 3, stride=2, padded=False)
        self.branch3x3dbl_1 = conv(in_channels, 64, 1)
        self.branch3x3dbl_2 = conv(64, 96, 3)
        self.branch3x3dbl_3 = conv(96, 96, 3, stride=2, padded=False)

    def forward(self, x: Tensor, *, same: bool = False) -> Tensor:
        """The three branches side by side; with `same` padded, to `ceil(h / 2)`."""
        check_rank(x, "InceptionB: x", "n c h w")
        double = self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x)), same=same)
        return torch.cat((self.branch3x3(x, same=same), double, F.max_pool2d(x, 3, 2, padding=int(same))), 1)


class InceptionC(nn.Module):
    """Inception-v3's module for 17×17 maps: 7×7 kernels as 1×7 and 7×1.

    Method: Szegedy et al. 2016, arXiv:1512.00567, figure 6; parameters are named as in torchvision.

    Shape: x `(n, in_channels, h, w)` → `(n, 768, h, w)`.

    Args:
        in_channels: of the input.
        inner: channels between the first and the last convolution of a 7×7 branch.
        norm: a name of `nn.norm`.
        activation: a name of `nn.activation`.
    """

    def __init__(self, in_channels: int, inner: int, *, norm: str = "batch", activation: str = "relu") -> None:
        super().__init__()
        conv = partial(InceptionConv, norm=norm, activation=activation)
        self.branch1x1 = conv(in_channels, 192, 1)
        self.branch7x7_1 = conv(in_channels, inner, 1)
        self.branch7x7_2 = conv(inner, inner, (1, 7))
        self.branch7x7_3 = conv(inner, 192, (7, 1))
        self.branch7x7dbl_1 = conv(in_channels, inner, 1)
        self.branch7x7dbl_2 = conv(inner, inner, (7, 1))
        self.branch7x7dbl_3 = conv(inner, inner, (1, 7))
        self.branch7x7dbl_4 = conv(inner, inner, (7, 1))
        self.branch7x7dbl_5 = conv(inner, 192, (1, 7))
        self.branch_pool = conv(in_channels, 192, 1)

    def forward(self, x: Tensor) -> Tensor:
        """The four branches side by side."""
        check_rank(x, "InceptionC: x", "n c h w")
        single = self.branch7x7_3(self.branch7x7_2(self.branch7x7_1(x)))
        double = self.branch7x7dbl_3(self.branch7x7dbl_2(self.branch7x7dbl_1(x)))
        double = self.branch7x7dbl_5(self.branch7x7dbl_4(double))
        return torch.cat((self.branch1x1(x), single, double, self.branch_pool(_average(x))), 1)


class InceptionD(nn.Module):
    """Inception-v3's step from 17×17 to 8×8.

    Method: Szegedy et al. 2016, arXiv:1512.00567, figure 10 with figure 6's factors; parameters are named as in
    torchvision.

    Shape: x `(n, in_channels, h, w)` → `(n, 512 + in_channels, (h - 3) // 2 + 1, (w - 3) // 2 + 1)`.

    Args:
        in_channels: of the input.
        norm: a name of `nn.norm`.
        activation: a name of `nn.activation`.
    """

    def __init__(self, in_channels: int, *, norm: str = "batch", activation: str = "relu") -> None:
        super().__init__()
        conv = partial(InceptionConv, norm=norm, activation=activation)
        self.branch3x3_1 = conv(in_channels, 192, 1)
        self.branch3x3_2 = conv(192, 320, 3, stride=2, padded=False)
        self.branch7x7x3_1 = conv(in_channels, 192, 1)
        self.branch7x7x3_2 = conv(192, 192, (1, 7))
        self.branch7x7x3_3 = conv(192, 192, (7, 1))
        self.branch7x7x3_4 = conv(192, 192, 3, stride=2, padded=False)

    def forward(self, x: Tensor, *, same: bool = False) -> Tensor:
        """The three branches side by side; with `same` padded, to `ceil(h / 2)`."""
        check_rank(x, "InceptionD: x", "n c h w")
        three = self.branch3x3_2(self.branch3x3_1(x), same=same)
        seven = self.branch7x7x3_3(self.branch7x7x3_2(self.branch7x7x3_1(x)))
        pooled = F.max_pool2d(x, 3, 2, padding=int(same))
        return torch.cat((three, self.branch7x7x3_4(seven, same=same), pooled), 1)


class InceptionE(nn.Module):
    """Inception-v3's module for 8×8 maps: 1×3 and 3×1 side by side, not in a row.

    Method: Szegedy et al. 2016, arXiv:1512.00567, figure 7; parameters are named as in torchvision.

    Shape: x `(n, in_channels, h, w)` → `(n, 2048, h, w)`.

    Args:
        in_channels: of the input.
        norm: a name of `nn.norm`.
        activation: a name of `nn.activation`.
    """

    def __init__(self, in_channels: int, *, norm: str = "batch", activation: str = "relu") -> None:
        super().__init__()
        conv = partial(InceptionConv, norm=norm, activation=activation)
        self.branch1x1 = conv(in_channels, 320, 1)
        self.branch3x3_1 = conv(in_channels, 384, 1)
        self.branch3x3_2a = conv(384, 384, (1, 3))
        self.branch3x3_2b = conv(384, 384, (3, 1))
        self.branch3x3dbl_1 = conv(in_channels, 448, 1)
        self.branch3x3dbl_2 = conv(448, 384, 3)
        self.branch3x3dbl_3a = conv(384, 384, (1, 3))
        self.branch3x3dbl_3b = conv(384, 384, (3, 1))
        self.branch_pool = conv(in_channels, 192, 1)

    def forward(self, x: Tensor) -> Tensor:
        """The six ends side by side."""
        check_rank(x, "InceptionE: x", "n c h w")
        three = self.branch3x3_1(x)
        double = self.branch3x3dbl_2(self.branch3x3dbl_1(x))
        ends = (
            self.branch1x1(x),
            self.branch3x3_2a(three),
            self.branch3x3_2b(three),
            self.branch3x3dbl_3a(double),
            self.branch3x3dbl_3b(double),
            self.branch_pool(_average(x)),
        )
        return torch.cat(ends, 1)


def _average(x: Tensor) -> Tensor:
    """Means of 3×3, zeros beyond the border counted as the published network counts them."""
    return F.avg_pool2d(x, 3, 1, padding=1)
