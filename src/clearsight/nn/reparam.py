"""Convolutions with several branches in training that are one convolution in use, with equal outputs."""

from __future__ import annotations

from abc import abstractmethod
from collections import OrderedDict
from collections.abc import Iterator

from torch import Tensor, nn

from clearsight.errors import ConfigError
from clearsight.nn.activation import activation as make_activation
from clearsight.nn.checks import check_odd, check_rank
from clearsight.nn.conv import ConvSequential, conv_norm, convolve, norm_after
from clearsight.nn.fold import fold_norm, identity_kernel, merge_convolutions
from clearsight.nn.norm import norm as make_norm

__all__ = ["AsymmetricConv", "LargeKernelConv", "RepConv", "Reparameterised"]


class Reparameterised(nn.Module):
    """A layer with a training form of several branches, and a form for use: `reparam_conv`, one convolution.

    Attributes:
        reparam_conv: None in the training form.
    """

    reparam_conv: nn.Conv2d | None

    @abstractmethod
    def branches(self) -> Iterator[tuple[nn.Conv2d, nn.Module]]:
        """Convolution and norm of each branch of the training form; their outputs are added."""

    def merge(self) -> nn.Conv2d:
        """The convolution that does what the branches do in evaluation mode; the layer stays as it is.

        Raises:
            ConfigError: a norm has no running statistics.
        """
        if self.reparam_conv is not None:
            return self.reparam_conv
        return merge_convolutions([fold_norm(convolution, norm) for convolution, norm in self.branches()])

    def deploy(self) -> None:
        """Put the one convolution in the place of the branches, which are gone; once more changes nothing.

        Raises:
            ConfigError: a norm has no running statistics.
        """
        if self.reparam_conv is None:
            merged = self.merge()
            for name in self._training_names():
                delattr(self, name)
            self.reparam_conv = merged

    def _training_names(self) -> list[str]:
        return [name for name in self._modules if name not in ("reparam_conv", "act")]


class RepConv(Reparameterised):
    """RepVGG's block: k×k, 1×1 and, where shapes allow, the identity, each with its norm; their sum is activated.

    Method: Ding et al. 2021, arXiv:2101.03697, figures 2 and 4, section 3.3; parameters are named as in timm.

    Shape: x `(n, in_channels, h, w)` → `(n, out_channels, ceil(h / stride), ceil(w / stride))`.

    Args:
        in_channels: of the input.
        out_channels: of the output.
        kernel: k, odd, 3 or more.
        stride: step; the identity is there at 1 only, with as many channels out as in.
        dilation: of the k×k convolution.
        groups: of both convolutions.
        norm: a name of `nn.norm`; the form for use asks for one with running statistics.
        activation: a name of `nn.activation`; `none` for no activation.
        deployed: make the form for use at once.

    Raises:
        ConfigError: the kernel is even or 1, or groups do not divide the channels.
    """

    def __init__(  # noqa: PLR0913 - what a convolution, a norm and an activation take
        self,
        in_channels: int,
        out_channels: int,
        kernel: int = 3,
        *,
        stride: int = 1,
        dilation: int = 1,
        groups: int = 1,
        norm: str = "batch",
        activation: str = "relu",
        deployed: bool = False,
    ) -> None:
        super().__init__()
        _check_side(kernel, "kernel")
        wide = _convolution(in_channels, out_channels, (kernel, kernel), stride, dilation, groups, bias=deployed)
        self.reparam_conv = wide if deployed else None
        if not deployed:
            alike = in_channels == out_channels and stride == 1
            self.identity = make_norm(norm, in_channels) if alike else None
            self.conv_kxk = _with_norm(wide, norm)
            self.conv_1x1 = _with_norm(_convolution(in_channels, out_channels, (1, 1), stride, 1, groups), norm)
        self.act = make_activation(activation)

    def forward(self, x: Tensor) -> Tensor:
        """The sum of the branches, activated."""
        check_rank(x, "RepConv: x", "n c h w")
        if self.reparam_conv is not None:
            return self.act(convolve(self.reparam_conv, x))
        total = self.conv_kxk(x).add_(self.conv_1x1(x))
        return self.act(total if self.identity is None else total.add_(self.identity(x)))

    def branches(self) -> Iterator[tuple[nn.Conv2d, nn.Module]]:
        """The k×k, the 1×1, and the identity as a 1×1."""
        yield _pair(self.conv_kxk)
        small, norm = _pair(self.conv_1x1)
        yield small, norm
        if self.identity is not None:
            same = nn.Conv2d(small.in_channels, small.out_channels, 1, groups=small.groups, bias=False)
            same.weight = nn.Parameter(identity_kernel(small.in_channels, (1, 1), groups=small.groups).to(small.weight))
            yield same, self.identity


class AsymmetricConv(Reparameterised):
    """ACNet's block: a k×k, a k×1 and a 1×k convolution, each with its norm, are added: a k×k with a stronger cross.

    Method: Ding et al. 2019, arXiv:1908.03930, section 3.3, figures 1 and 3; no activation.

    Shape: x `(n, in_channels, h, w)` → `(n, out_channels, ceil(h / stride), ceil(w / stride))`.

    Args:
        in_channels: of the input.
        out_channels: of the output.
        kernel: k, odd, 3 or more.
        stride: step.
        dilation: of the kernels.
        groups: of all three.
        norm: a name of `nn.norm`; the form for use asks for one with running statistics.
        deployed: make the form for use at once.

    Raises:
        ConfigError: the kernel is even or 1, or groups do not divide the channels.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int = 3,
        *,
        stride: int = 1,
        dilation: int = 1,
        groups: int = 1,
        norm: str = "batch",
        deployed: bool = False,
    ) -> None:
        super().__init__()
        _check_side(kernel, "kernel")
        square = _convolution(in_channels, out_channels, (kernel, kernel), stride, dilation, groups, bias=deployed)
        self.reparam_conv = square if deployed else None
        if not deployed:
            self.square_conv = square
            self.square_bn = norm_after(norm, square)
            self.ver_conv = _convolution(in_channels, out_channels, (kernel, 1), stride, dilation, groups)
            self.ver_bn = norm_after(norm, self.ver_conv)
            self.hor_conv = _convolution(in_channels, out_channels, (1, kernel), stride, dilation, groups)
            self.hor_bn = norm_after(norm, self.hor_conv)

    def forward(self, x: Tensor) -> Tensor:
        """The sum of the three."""
        check_rank(x, "AsymmetricConv: x", "n c h w")
        if self.reparam_conv is not None:
            return convolve(self.reparam_conv, x)
        total = conv_norm(self.square_conv, self.square_bn, x)
        total = total.add_(conv_norm(self.ver_conv, self.ver_bn, x))
        return total.add_(conv_norm(self.hor_conv, self.hor_bn, x))

    def branches(self) -> Iterator[tuple[nn.Conv2d, nn.Module]]:
        """The square, the column and the row."""
        yield self.square_conv, self.square_bn
        yield self.ver_conv, self.ver_bn
        yield self.hor_conv, self.hor_bn


class LargeKernelConv(Reparameterised):
    """RepLKNet's convolution: a large depthwise kernel beside a small one, each with its norm, are added.

    Method: Ding et al. 2022, arXiv:2203.06717, section 3.2, guideline 3; parameters are named as the authors' code.

    Shape: x `(n, channels, h, w)` → `(n, channels, ceil(h / stride), ceil(w / stride))`.

    Args:
        channels: of input and output.
        kernel: the large side, odd.
        small: the small side, odd and below `kernel`; None for no small branch.
        stride: step.
        norm: a name of `nn.norm`; the form for use asks for one with running statistics.
        deployed: make the form for use at once.

    Raises:
        ConfigError: a side is even, or the small one is not below the large one.
    """

    def __init__(
        self,
        channels: int,
        kernel: int = 31,
        *,
        small: int | None = 5,
        stride: int = 1,
        norm: str = "batch",
        deployed: bool = False,
    ) -> None:
        super().__init__()
        check_odd(kernel, "kernel")
        if small is not None:
            check_odd(small, "small")
            if small >= kernel:
                raise ConfigError(f"small: must be below the kernel of {kernel}, got {small}")
        large = _convolution(channels, channels, (kernel, kernel), stride, 1, channels, bias=deployed)
        self.reparam_conv = large if deployed else None
        if not deployed:
            self.lkb_origin = _with_norm(large, norm)
            self.small_conv = None
            if small is not None:
                beside = _convolution(channels, channels, (small, small), stride, 1, channels)
                self.small_conv = _with_norm(beside, norm)

    def forward(self, x: Tensor) -> Tensor:
        """The sum of both."""
        check_rank(x, "LargeKernelConv: x", "n c h w")
        if self.reparam_conv is not None:
            return convolve(self.reparam_conv, x)
        total = self.lkb_origin(x)
        return total if self.small_conv is None else total.add_(self.small_conv(x))

    def branches(self) -> Iterator[tuple[nn.Conv2d, nn.Module]]:
        """The large kernel, and the small one."""
        yield _pair(self.lkb_origin)
        if self.small_conv is not None:
            yield _pair(self.small_conv)


def _convolution(
    in_channels: int,
    out_channels: int,
    kernel: tuple[int, int],
    stride: int,
    dilation: int,
    groups: int,
    *,
    bias: bool = False,
) -> nn.Conv2d:
    """Padded so that stride 1 keeps the size."""
    for channels, what in ((in_channels, "in_channels"), (out_channels, "out_channels")):
        if groups < 1 or channels < 1 or channels % groups:
            raise ConfigError(f"groups: found {groups}, which does not divide {channels} {what}")
    half = (dilation * (kernel[0] // 2), dilation * (kernel[1] // 2))
    return nn.Conv2d(in_channels, out_channels, kernel, stride, half, dilation, groups, bias=bias)


def _with_norm(convolution: nn.Conv2d, norm: str) -> ConvSequential:
    return ConvSequential(OrderedDict(conv=convolution, bn=norm_after(norm, convolution)))


def _pair(branch: nn.Sequential) -> tuple[nn.Conv2d, nn.Module]:
    convolution, norm = branch
    if not isinstance(convolution, nn.Conv2d):
        raise ConfigError(f"merge: expected a convolution before the norm, found {type(convolution).__name__}")
    return convolution, norm


def _check_side(kernel: int, what: str) -> None:
    check_odd(kernel, what)
    if kernel == 1:
        raise ConfigError(f"{what}: must be 3 or more for branches of a smaller kernel to lie in it, got {kernel}")
