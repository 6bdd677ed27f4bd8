"""What the small architectures are built of: layers by their knobs, and blocks."""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = [
    "Attention", "Branches", "Depthwise", "Grown", "Mixing", "Parts", "Residual", "Squeeze"
]  # fmt: skip

ACTIVATIONS: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU, "gelu": nn.GELU, "tanh": nn.Tanh, "sigmoid": nn.Sigmoid, "leaky": nn.LeakyReLU,
}  # fmt: skip


class Parts:
    """What nets are built of.

    Args:
        norm: `bn`, `gn` or `none`.
        activation: key of `ACTIVATIONS`.
        dropout: before the last layer.
        width: factor on all widths.
    """

    def __init__(self, norm: str, activation: str, dropout: float, width: float) -> None:
        self.kind, self.active, self.dropout, self.width = norm, activation, dropout, width

    def wide(self, channels: int) -> int:
        """A width that groups of four divide, 4 at least; 1 where the factor is tiny."""
        return 1 if self.width < 0.05 else max(4, int(channels * self.width) // 4 * 4)

    def norm(self, channels: int) -> list[nn.Module]:
        """A normalisation, or nothing."""
        if self.kind == "bn":
            return [nn.BatchNorm2d(channels)]
        return [nn.GroupNorm(4 if channels % 4 == 0 else 1, channels)] if self.kind == "gn" else []

    def activation(self) -> nn.Module:
        """A fresh non-linearity."""
        return ACTIVATIONS[self.active]()

    def conv(self, before: int, after: int, *, stride: int = 1, kernel: int = 3, groups: int = 1) -> list[nn.Module]:
        """Convolution and norm."""
        pad, bias = kernel // 2, self.kind == "none"
        return [
            nn.Conv2d(before, after, kernel, stride, pad, groups=groups, bias=bias),
            *self.norm(after),
        ]

    def drop(self) -> list[nn.Module]:
        """Dropout where there is any."""
        return [nn.Dropout(self.dropout)] if self.dropout else []


class Residual(nn.Module):
    """Two convolutions around which the input is led."""

    def __init__(self, parts: Parts, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            *parts.conv(before, after, stride=stride), parts.activation(), *parts.conv(after, after)
        )
        same = before == after and stride == 1
        self.short = nn.Identity() if same else nn.Sequential(*parts.conv(before, after, stride=stride, kernel=1))
        self.out = parts.activation()

    def forward(self, x: Tensor) -> Tensor:
        """Same size, or smaller by the stride."""
        return self.out(self.body(x) + self.short(x))


class Squeeze(nn.Module):
    """Channels weighted by what they hold on the whole."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gate = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Conv2d(channels, max(1, channels // 4), 1),
            nn.ReLU(),
            nn.Conv2d(max(1, channels // 4), channels, 1),
            nn.Sigmoid(),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Same shape."""
        return x * self.gate(x)


class Attention(nn.Module):
    """Self-attention and a small network for each token, both led around."""

    def __init__(self, parts: Parts, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.project = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 2 * width), parts.activation(), nn.Linear(2 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        """`(n, tokens, width)`."""
        n, tokens, width = x.shape
        parts = self.qkv(self.norm1(x)).reshape(n, tokens, 3, self.heads, width // self.heads)
        query, key, value = parts.permute(2, 0, 3, 1, 4)
        mixed = nn.functional.scaled_dot_product_attention(query, key, value)
        x = x + self.project(mixed.transpose(1, 2).reshape(n, tokens, width))
        return x + self.mlp(self.norm2(x))


class Mixing(nn.Module):
    """A small network across tokens, then one for each token, both led around; Tolstikhin et al. 2021."""

    def __init__(self, parts: Parts, tokens: int, width: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.across = nn.Sequential(nn.Linear(tokens, 2 * tokens), parts.activation(), nn.Linear(2 * tokens, tokens))
        self.mlp = nn.Sequential(nn.Linear(width, 2 * width), parts.activation(), nn.Linear(2 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        """`(n, tokens, width)`."""
        x = x + self.across(self.norm1(x).transpose(1, 2)).transpose(1, 2)
        return x + self.mlp(self.norm2(x))


class Grown(nn.Module):
    """A convolution whose maps are put beside those that it is given; Huang et al. 2017."""

    def __init__(self, parts: Parts, before: int, more: int) -> None:
        super().__init__()
        self.body = nn.Sequential(*parts.conv(before, more), parts.activation())

    def forward(self, x: Tensor) -> Tensor:
        """Same size, more channels."""
        return torch.cat([x, self.body(x)], 1)


class Depthwise(nn.Module):
    """A wide convolution of each channel, a small network for each place, led around; Liu et al. 2022."""

    def __init__(self, parts: Parts, width: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            *parts.conv(width, width, kernel=5, groups=width),
            nn.Conv2d(width, 2 * width, 1), parts.activation(),
            nn.Conv2d(2 * width, width, 1),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        """Same shape."""
        return x + self.body(x)


class Branches(nn.Module):
    """Convolutions of several reaches side by side, whose maps are put together; Szegedy et al. 2015."""

    def __init__(self, parts: Parts, before: int, each: int) -> None:
        super().__init__()
        self.point = nn.Sequential(*parts.conv(before, each, kernel=1), parts.activation())
        self.near = nn.Sequential(
            *parts.conv(before, each, kernel=1), parts.activation(),
            *parts.conv(each, each), parts.activation(),
        )  # fmt: skip
        self.far = nn.Sequential(
            *parts.conv(before, each, kernel=1), parts.activation(),
            *parts.conv(each, each), parts.activation(),
            *parts.conv(each, each), parts.activation(),
        )  # fmt: skip
        self.pooled = nn.Sequential(nn.MaxPool2d(3, 1, 1), *parts.conv(before, each, kernel=1), parts.activation())

    def forward(self, x: Tensor) -> Tensor:
        """Same size, four times `each` channels."""
        return torch.cat([self.point(x), self.near(x), self.far(x), self.pooled(x)], 1)
