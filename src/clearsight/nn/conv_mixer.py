"""ConvMixer's block: mix places, then channels."""

from __future__ import annotations

from torch import Tensor, nn

from clearsight.nn.activation import activation as make_activation
from clearsight.nn.checks import check_odd, check_rank
from clearsight.nn.norm import norm as make_norm

__all__ = ["ConvMixerBlock"]


class ConvMixerBlock(nn.Sequential):
    """A large depthwise convolution beside a shortcut, then a 1×1; an activation and a norm after both, in this order.

    Method: Trockman and Kolter 2022, Patches Are All You Need?, arXiv:2201.09792, section 2; parameters are named as in
    timm.

    Shape: x `(n, channels, h, w)` → the same.

    Args:
        channels: of input and output.
        kernel: of the depthwise convolution, odd.
        norm: a name of `nn.norm`.
        activation: a name of `nn.activation`.

    Raises:
        ConfigError: the kernel is even or a name unknown.
    """

    def __init__(self, channels: int, kernel: int = 9, *, norm: str = "batch", activation: str = "gelu") -> None:
        check_odd(kernel, "kernel")
        depthwise = nn.Conv2d(channels, channels, kernel, padding=kernel // 2, groups=channels)
        places = nn.Sequential(depthwise, make_activation(activation), make_norm(norm, channels))
        pointwise = nn.Conv2d(channels, channels, 1)
        super().__init__(_Residual(places), pointwise, make_activation(activation), make_norm(norm, channels))

    @property
    def last_norm(self) -> nn.Module:
        """The norm that ends the branch beside the shortcut."""
        return self[0].fn[-1]  # pyright: ignore[reportIndexIssue, reportReturnType]

    def forward(self, x: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Places, then channels."""
        check_rank(x, "ConvMixerBlock: x", "n c h w")
        return super().forward(x)


class _Residual(nn.Module):
    """A layer plus its input; the sum is in place, for no norm keeps its output for the way back."""

    def __init__(self, fn: nn.Module) -> None:
        super().__init__()
        self.fn = fn

    def forward(self, x: Tensor) -> Tensor:
        return self.fn(x).add_(x)
