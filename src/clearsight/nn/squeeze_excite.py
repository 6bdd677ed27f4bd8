"""Squeeze-and-excitation: channels weighed by what the whole image holds."""

from __future__ import annotations

from torch import Tensor, nn

from clearsight.nn.activation import activation as make_activation
from clearsight.nn.checks import check_positive, check_rank

__all__ = ["SqueezeExcite", "make_divisible"]


class SqueezeExcite(nn.Module):
    """Multiply each channel by a number between 0 and 1 that two small layers derive from the means of all channels.

    Method: Hu et al. 2018, arXiv:1709.01507, section 3, equations 2 to 4. Parameters are named as in torchvision and
    timm: `fc1` and `fc2`, 1×1 convolutions on the means.

    Shape: x `(n, channels, h, w)` → the same.

    Args:
        channels: of the input.
        reduction: the paper's r: between the two layers are `channels / r`, rounded by `make_divisible`.
        divisor: of that number; 1 for the paper's exact `channels / r`.
        squeezed: that number itself, in place of `reduction` and `divisor`.
        activation: between the layers, a name of `nn.activation`.
        gate: at the end: `sigmoid`, or MobileNetV3's `hardsigmoid`.

    Raises:
        ConfigError: a name is unknown or a number below 1.
    """

    def __init__(
        self,
        channels: int,
        *,
        reduction: int = 16,
        divisor: int = 8,
        squeezed: int | None = None,
        activation: str = "relu",
        gate: str = "sigmoid",
    ) -> None:
        super().__init__()
        check_positive(reduction, "reduction")
        between = make_divisible(channels / reduction, divisor) if squeezed is None else squeezed
        check_positive(between, "squeezed")
        self.fc1 = nn.Conv2d(channels, between, 1)
        self.act = make_activation(activation)
        self.fc2 = nn.Conv2d(between, channels, 1)
        self.gate = make_activation(gate)

    def forward(self, x: Tensor) -> Tensor:
        """Every channel times its weight."""
        check_rank(x, "SqueezeExcite: x", "n c h w")
        means = x.mean((2, 3), keepdim=True)
        return x * self.gate(self.fc2(self.act(self.fc1(means))))


def make_divisible(channels: float, divisor: int = 8) -> int:
    """The multiple of a divisor that is nearest to a number of channels, but at most a tenth below it and at least one.

    Method: the rule of MobileNet's published code, by which scaled widths stay those of its published weights.

    Args:
        channels: above 0, such as `0.75 * 24`.
        divisor: 1 rounds to whole numbers.

    Raises:
        ConfigError: the divisor is below 1.

    Example:
        >>> make_divisible(18), make_divisible(3)
        (24, 8)
    """
    check_positive(divisor, "divisor")
    rounded = max(divisor, int(channels + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * channels else rounded
