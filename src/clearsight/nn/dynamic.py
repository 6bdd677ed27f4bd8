"""A convolution whose kernel is mixed anew for each input."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clearsight.errors import ConfigError
from clearsight.nn.checks import check_rank

__all__ = ["DynamicConv2d"]


class DynamicConv2d(nn.Module):
    """k expert kernels, mixed for each image by weights that a small network reads off its channel means.

    The mixture is one kernel, so that the cost is that of one convolution and a little. Method: Chen et al. 2020
    (Dynamic convolution), arXiv:1912.03458: a softmax over the experts, whose temperature should fall from about 30 to
    1 during the first epochs (section 3.3; set `temperature`). All images are convolved at once, as groups. What is
    exported multiplies patches instead, since a number of groups is no input of a graph, but the batch's size may be.

    Shape: x `(n, in_channels, h, w)` → `(n, out_channels, ceil(h / stride), ceil(w / stride))` for odd kernels.

    Args:
        in_channels: of the input.
        out_channels: of the output.
        kernel: side, odd.
        stride: step.
        experts: k.
        reduction: the mixing network's hidden layer has `in_channels / reduction` channels, at least 4.
        temperature: of the softmax; above 1 all experts learn.

    Attributes:
        weight: `(k · out_channels, in_channels, kernel, kernel)`, expert after expert.
        bias: `(k, out_channels)`.

    Raises:
        ConfigError: fewer than one expert or an even kernel.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int = 3,
        *,
        stride: int = 1,
        experts: int = 4,
        reduction: int = 4,
        temperature: float = 30.0,
    ) -> None:
        super().__init__()
        if experts < 1 or kernel < 1 or kernel % 2 == 0:
            raise ConfigError(f"DynamicConv2d: expected experts >= 1 and an odd kernel, got {experts} and {kernel}")
        self.experts, self.stride, self.temperature = experts, stride, temperature
        self.weight = nn.Parameter(torch.empty(experts * out_channels, in_channels, kernel, kernel))
        self.bias = nn.Parameter(torch.zeros(experts, out_channels))
        nn.init.kaiming_uniform_(self.weight, a=math.sqrt(5))  # as nn.Conv2d starts
        hidden = max(4, in_channels // reduction)
        self.attention = nn.Sequential(nn.Linear(in_channels, hidden), nn.ReLU(), nn.Linear(hidden, experts))

    def mixture(self, x: Tensor) -> Tensor:
        """Share of each expert, `(n, k)`; rows sum to 1."""
        return (self.attention(x.mean((2, 3))).float() / self.temperature).softmax(1)

    def forward(self, x: Tensor) -> Tensor:
        """Convolve each image with its own kernel."""
        check_rank(x, "DynamicConv2d: x", "n c h w")
        n, c, height, width = x.shape
        share = self.mixture(x).to(self.weight.dtype)
        weight = share @ self.weight.reshape(self.experts, -1)  # n, o c k k
        bias = share @ self.bias
        kernel, half, stride = self.weight.shape[-1], self.weight.shape[-1] // 2, self.stride
        rows, columns = (height - 1) // stride + 1, (width - 1) // stride + 1
        if n == 0 or torch.compiler.is_exporting():
            patches = F.unfold(x, kernel, padding=half, stride=stride)  # n, c k k, places
            y = weight.reshape(n, self.bias.shape[1], patches.shape[1]) @ patches + bias[..., None]
        else:
            kernels, image = weight.reshape(-1, c, kernel, kernel), x.reshape(1, n * c, height, width)
            y = F.conv2d(image, kernels, bias.reshape(-1), stride, half, groups=n)
        y = y.reshape(n, self.bias.shape[1], rows, columns)
        as_x = x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()
        return y.contiguous(memory_format=torch.channels_last) if as_x else y

    def extra_repr(self) -> str:
        """Experts and temperature, for `print(model)`."""
        return f"experts={self.experts}, stride={self.stride}, temperature={self.temperature:g}"
