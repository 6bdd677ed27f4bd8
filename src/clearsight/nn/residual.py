"""Residual blocks, with the activation after the sum (ResNet) or before each convolution (its second version)."""

from __future__ import annotations

from collections import OrderedDict

from torch import Tensor, nn

from clearsight.nn.activation import activation as make_activation
from clearsight.nn.checks import check_rank
from clearsight.nn.conv import ConvSequential, conv_norm, norm_after
from clearsight.nn.dropout import DropPath
from clearsight.nn.norm import norm as make_norm
from clearsight.nn.squeeze_excite import SqueezeExcite

__all__ = ["BasicBlock", "Bottleneck", "PreActBasicBlock", "PreActBottleneck"]


class _Block(nn.Module):
    """What the four have in common: an optional gate and an optional random path at the end of the branch."""

    def __init__(self, channels: int, squeeze_excite: int | None, drop_path: float) -> None:
        super().__init__()
        self.se = None if squeeze_excite is None else SqueezeExcite(channels, reduction=squeeze_excite)
        self.drop_path = DropPath(drop_path) if drop_path else None

    def _join(self, branch: Tensor, shortcut: Tensor) -> Tensor:
        """The sum; in place, for no layer before keeps its output for the way back."""
        if self.se is not None:
            branch = self.se(branch)
        if self.drop_path is not None:
            branch = self.drop_path(branch)
        return branch.add_(shortcut)


class BasicBlock(_Block):
    """Two 3×3 convolutions around an identity.

    Method: He et al. 2016, arXiv:1512.03385, figure 2; parameters are named as in torchvision, and `se` as in timm.

    Shape: x `(n, in_channels, h, w)` → `(n, width, ceil(h / stride), ceil(w / stride))`.

    Args:
        in_channels: channels of the input.
        width: channels of the block.
        stride: of the first convolution.
        dilation: of both convolutions.
        norm: a name of `nn.norm`.
        activation: a name of `nn.activation`.
        squeeze_excite: reduction of a `SqueezeExcite` at the end of the branch, 16 in its paper; None for none.
        drop_path: share of samples whose branch is left out in training.
    """

    expansion = 1

    def __init__(
        self,
        in_channels: int,
        width: int,
        *,
        stride: int = 1,
        dilation: int = 1,
        norm: str = "batch",
        activation: str = "relu",
        squeeze_excite: int | None = None,
        drop_path: float = 0.0,
    ) -> None:
        super().__init__(width, squeeze_excite, drop_path)
        self.conv1 = _conv3(in_channels, width, stride, dilation)
        self.bn1 = norm_after(norm, self.conv1)
        self.act1 = make_activation(activation)
        self.conv2 = _conv3(width, width, 1, dilation)
        self.bn2 = norm_after(norm, self.conv2)
        self.act2 = make_activation(activation)
        self.downsample = _shortcut(in_channels, width, stride, norm)

    @property
    def last_norm(self) -> nn.Module:
        """The norm that ends the branch: at scale zero the block is its shortcut."""
        return self.bn2

    def forward(self, x: Tensor) -> Tensor:
        """Branch plus shortcut, activated."""
        check_rank(x, "BasicBlock: x", "n c h w")
        shortcut = x if self.downsample is None else self.downsample(x)
        x = self.act1(conv_norm(self.conv1, self.bn1, x))
        x = conv_norm(self.conv2, self.bn2, x)
        return self.act2(self._join(x, shortcut))


class Bottleneck(_Block):
    """1×1, 3×3, 1×1 around an identity; the 3×3 has the stride (torchvision's "v1.5", not the paper's first 1×1).

    Method: He et al. 2016, arXiv:1512.03385, figure 5; with `groups=32, base_width=4` Xie et al. 2017 (ResNeXt),
    arXiv:1611.05431, and with `base_width=128` Zagoruyko and Komodakis 2016 (wide), arXiv:1605.07146. Parameters are
    named as in torchvision, and `se` as in timm.

    Shape: x `(n, in_channels, h, w)` → `(n, 4 * width, ceil(h / stride), ceil(w / stride))`.

    Args:
        in_channels: channels of the input.
        width: channels of the 3×3 convolution with one group and a base width of 64.
        stride: of the 3×3 convolution.
        dilation: of the 3×3 convolution.
        groups: of the 3×3 convolution, which has `width * base_width / 64 * groups` channels.
        base_width: channels of each group in a block of width 64.
        norm: a name of `nn.norm`.
        activation: a name of `nn.activation`.
        squeeze_excite: reduction of a `SqueezeExcite` at the end of the branch, 16 in its paper; None for none.
        drop_path: share of samples whose branch is left out in training.
    """

    expansion = 4

    def __init__(  # noqa: PLR0913 - each is an option of a published network
        self,
        in_channels: int,
        width: int,
        *,
        stride: int = 1,
        dilation: int = 1,
        groups: int = 1,
        base_width: int = 64,
        norm: str = "batch",
        activation: str = "relu",
        squeeze_excite: int | None = None,
        drop_path: float = 0.0,
    ) -> None:
        out_channels = width * self.expansion
        super().__init__(out_channels, squeeze_excite, drop_path)
        inner = width * base_width // 64 * groups
        self.conv1 = nn.Conv2d(in_channels, inner, 1, bias=False)
        self.bn1 = norm_after(norm, self.conv1)
        self.act1 = make_activation(activation)
        self.conv2 = _conv3(inner, inner, stride, dilation, groups)
        self.bn2 = norm_after(norm, self.conv2)
        self.act2 = make_activation(activation)
        self.conv3 = nn.Conv2d(inner, out_channels, 1, bias=False)
        self.bn3 = norm_after(norm, self.conv3)
        self.act3 = make_activation(activation)
        self.downsample = _shortcut(in_channels, out_channels, stride, norm)

    @property
    def last_norm(self) -> nn.Module:
        """The norm that ends the branch: at scale zero the block is its shortcut."""
        return self.bn3

    def forward(self, x: Tensor) -> Tensor:
        """Branch plus shortcut, activated."""
        check_rank(x, "Bottleneck: x", "n c h w")
        shortcut = x if self.downsample is None else self.downsample(x)
        x = self.act1(conv_norm(self.conv1, self.bn1, x))
        x = self.act2(conv_norm(self.conv2, self.bn2, x))
        x = conv_norm(self.conv3, self.bn3, x)
        return self.act3(self._join(x, shortcut))


class PreActBasicBlock(_Block):
    """Twice norm, activation and 3×3 convolution, around an identity that nothing touches.

    Where the shape changes, the shortcut is a 1×1 convolution of the first activation. Method: He et al. 2016, Identity
    Mappings in Deep Residual Networks, arXiv:1603.05027, figure 4 (e); parameters are named as in timm. No norm ends
    the branch: `last_norm` is None, for a zero scale there would leave every gradient of the branch zero.

    Shape: x `(n, in_channels, h, w)` → `(n, width, ceil(h / stride), ceil(w / stride))`.

    Args:
        in_channels: channels of the input.
        width: channels of the block.
        stride: of the first convolution.
        dilation: of both convolutions.
        norm: a name of `nn.norm`.
        activation: a name of `nn.activation`.
        squeeze_excite: reduction of a `SqueezeExcite` at the end of the branch; None for none.
        drop_path: share of samples whose branch is left out in training.
    """

    expansion = 1
    last_norm: nn.Module | None = None

    def __init__(
        self,
        in_channels: int,
        width: int,
        *,
        stride: int = 1,
        dilation: int = 1,
        norm: str = "batch",
        activation: str = "relu",
        squeeze_excite: int | None = None,
        drop_path: float = 0.0,
    ) -> None:
        super().__init__(width, squeeze_excite, drop_path)
        self.norm1 = make_norm(norm, in_channels)
        self.act1 = make_activation(activation)
        self.conv1 = _conv3(in_channels, width, stride, dilation)
        self.norm2 = norm_after(norm, self.conv1)
        self.act2 = make_activation(activation)
        self.conv2 = _conv3(width, width, 1, dilation)
        self.downsample = _plain_shortcut(in_channels, width, stride)

    def forward(self, x: Tensor) -> Tensor:
        """Branch plus shortcut."""
        check_rank(x, "PreActBasicBlock: x", "n c h w")
        ready = self.act1(self.norm1(x))
        shortcut = x if self.downsample is None else self.downsample(ready)
        branch = self.act2(conv_norm(self.conv1, self.norm2, ready))
        return self._join(self.conv2(branch), shortcut)


class PreActBottleneck(_Block):
    """Norm, activation and convolution with kernels of 1, 3 and 1, around an identity that nothing touches.

    The 3×3 has the stride. Where the shape changes, the shortcut is a 1×1 convolution of the first activation. Method:
    He et al. 2016, Identity Mappings in Deep Residual Networks, arXiv:1603.05027, figure 4 (e); parameters are named as
    in timm. No norm ends the branch: `last_norm` is None, for a zero scale there would leave every gradient of the
    branch zero.

    Shape: x `(n, in_channels, h, w)` → `(n, 4 * width, ceil(h / stride), ceil(w / stride))`.

    Args:
        in_channels: channels of the input.
        width: channels of the 3×3 convolution.
        stride: of the 3×3 convolution.
        dilation: of the 3×3 convolution.
        groups: of the 3×3 convolution.
        norm: a name of `nn.norm`.
        activation: a name of `nn.activation`.
        squeeze_excite: reduction of a `SqueezeExcite` at the end of the branch; None for none.
        drop_path: share of samples whose branch is left out in training.
    """

    expansion = 4
    last_norm: nn.Module | None = None

    def __init__(  # noqa: PLR0913 - each is an option of a published network
        self,
        in_channels: int,
        width: int,
        *,
        stride: int = 1,
        dilation: int = 1,
        groups: int = 1,
        norm: str = "batch",
        activation: str = "relu",
        squeeze_excite: int | None = None,
        drop_path: float = 0.0,
    ) -> None:
        out_channels = width * self.expansion
        super().__init__(out_channels, squeeze_excite, drop_path)
        self.norm1 = make_norm(norm, in_channels)
        self.act1 = make_activation(activation)
        self.conv1 = nn.Conv2d(in_channels, width, 1, bias=False)
        self.norm2 = norm_after(norm, self.conv1)
        self.act2 = make_activation(activation)
        self.conv2 = _conv3(width, width, stride, dilation, groups)
        self.norm3 = norm_after(norm, self.conv2)
        self.act3 = make_activation(activation)
        self.conv3 = nn.Conv2d(width, out_channels, 1, bias=False)
        self.downsample = _plain_shortcut(in_channels, out_channels, stride)

    def forward(self, x: Tensor) -> Tensor:
        """Branch plus shortcut."""
        check_rank(x, "PreActBottleneck: x", "n c h w")
        ready = self.act1(self.norm1(x))
        shortcut = x if self.downsample is None else self.downsample(ready)
        branch = self.act2(conv_norm(self.conv1, self.norm2, ready))
        branch = self.act3(conv_norm(self.conv2, self.norm3, branch))
        return self._join(self.conv3(branch), shortcut)


def _conv3(in_channels: int, out_channels: int, stride: int, dilation: int, groups: int = 1) -> nn.Conv2d:
    return nn.Conv2d(in_channels, out_channels, 3, stride, dilation, dilation, groups, bias=False)


def _shortcut(in_channels: int, out_channels: int, stride: int, norm: str) -> ConvSequential | None:
    if stride == 1 and in_channels == out_channels:
        return None
    convolution = nn.Conv2d(in_channels, out_channels, 1, stride, bias=False)
    return ConvSequential(convolution, norm_after(norm, convolution))


def _plain_shortcut(in_channels: int, out_channels: int, stride: int) -> nn.Sequential | None:
    if stride == 1 and in_channels == out_channels:
        return None
    return nn.Sequential(OrderedDict(conv=nn.Conv2d(in_channels, out_channels, 1, stride, bias=False)))
