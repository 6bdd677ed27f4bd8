"""Nine architectures in small, with the knobs that runs are varied by."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

__all__ = ["NETS", "build_net", "layers_of"]

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


class Transformer(nn.Module):
    """Patches, two blocks of attention, the mean of the tokens."""

    def __init__(self, parts: Parts, shape: Sequence[int], classes: int) -> None:
        super().__init__()
        channels, height, wide = shape
        patch, width = (2 if height <= 8 else 4), max(8, int(32 * parts.width) // 8 * 8)
        self.patches = nn.Conv2d(channels, width, patch, patch)
        self.place = nn.Parameter(0.02 * torch.randn(1, (height // patch) * (wide // patch), width))
        self.blocks = nn.Sequential(Attention(parts, width, 4), Attention(parts, width, 4))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Sequential(*parts.drop(), nn.Linear(width, classes))

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        tokens = self.patches(x).flatten(2).transpose(1, 2) + self.place
        return self.head(self.norm(self.blocks(tokens)).mean(1))


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


class Mixer(nn.Module):
    """Patches, two blocks of mixing, the mean of the tokens."""

    def __init__(self, parts: Parts, shape: Sequence[int], classes: int) -> None:
        super().__init__()
        channels, height, wide = shape
        patch, width = (2 if height <= 8 else 4), max(4, parts.wide(32))
        tokens = (height // patch) * (wide // patch)
        self.patches = nn.Conv2d(channels, width, patch, patch)
        self.blocks = nn.Sequential(Mixing(parts, tokens, width), Mixing(parts, tokens, width))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Sequential(*parts.drop(), nn.Linear(width, classes))

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        tokens = self.patches(x).flatten(2).transpose(1, 2)
        return self.head(self.norm(self.blocks(tokens)).mean(1))


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


# ------------------------------------------------------------------------------------------------ nets
def _mlp(parts: Parts, shape: Sequence[int], classes: int) -> nn.Module:
    width = parts.wide(64)
    inputs = shape[0] * shape[1] * shape[2]
    norms = [[nn.BatchNorm1d(width)] if parts.kind == "bn" else [] for _ in range(2)]
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(inputs, width), *norms[0], parts.activation(),
        nn.Linear(width, width), *norms[1], parts.activation(),
        *parts.drop(),
        nn.Linear(width, classes),
    )  # fmt: skip


def _cnn(parts: Parts, shape: Sequence[int], classes: int) -> nn.Module:
    first, second = parts.wide(16), parts.wide(32)
    return nn.Sequential(
        *parts.conv(shape[0], first), parts.activation(), nn.MaxPool2d(2),
        *parts.conv(first, second), parts.activation(), nn.MaxPool2d(2),
        *parts.conv(second, second), parts.activation(),
        nn.Flatten(),
        *parts.drop(),
        nn.Linear(second * (shape[1] // 4) * (shape[2] // 4), classes),
    )  # fmt: skip


def _resnet(parts: Parts, shape: Sequence[int], classes: int) -> nn.Module:
    first, second = parts.wide(12), parts.wide(24)
    return nn.Sequential(
        *parts.conv(shape[0], first), parts.activation(),
        Residual(parts, first, first, 1), Residual(parts, first, second, 2), Residual(parts, second, second, 2),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        *parts.drop(),
        nn.Linear(second, classes),
    )  # fmt: skip


def _depthwise(parts: Parts, shape: Sequence[int], classes: int) -> nn.Module:
    def block(before: int, after: int, stride: int) -> list[nn.Module]:
        return [
            *parts.conv(before, before, stride=stride, groups=before), parts.activation(), Squeeze(before),
            *parts.conv(before, after, kernel=1), parts.activation(),
        ]  # fmt: skip

    first, second = parts.wide(16), parts.wide(32)
    return nn.Sequential(
        *parts.conv(shape[0], first), parts.activation(),
        *block(first, second, 2), *block(second, second, 1), *block(second, second, 2),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        *parts.drop(),
        nn.Linear(second, classes),
    )  # fmt: skip


def _dense(parts: Parts, shape: Sequence[int], classes: int) -> nn.Module:
    first, more = parts.wide(12), parts.wide(8)
    middle = parts.wide(16)
    return nn.Sequential(
        *parts.conv(shape[0], first, stride=2), parts.activation(),
        Grown(parts, first, more), Grown(parts, first + more, more),
        *parts.conv(first + 2 * more, middle, kernel=1), parts.activation(), nn.AvgPool2d(2),
        Grown(parts, middle, more), Grown(parts, middle + more, more),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        *parts.drop(),
        nn.Linear(middle + 2 * more, classes),
    )  # fmt: skip


def _next(parts: Parts, shape: Sequence[int], classes: int) -> nn.Module:
    patch, width = (2 if shape[1] <= 8 else 4), parts.wide(24)
    return nn.Sequential(
        nn.Conv2d(shape[0], width, patch, patch), *parts.norm(width),
        Depthwise(parts, width), Depthwise(parts, width), Depthwise(parts, width),
        *parts.norm(width),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        *parts.drop(),
        nn.Linear(width, classes),
    )  # fmt: skip


GELU = ("vit", "mixer", "next")  # where nothing else is asked for
NETS: dict[str, tuple[str, Callable[[Parts, Sequence[int], int], nn.Module]]] = {
    "mlp": ("none", _mlp),
    "cnn": ("none", _cnn),
    "cnn_bn": ("bn", _cnn),
    "resnet": ("bn", _resnet),
    "depthwise": ("bn", _depthwise),
    "vit": ("none", Transformer),
    "dense": ("bn", _dense),
    "mixer": ("none", Mixer),
    "next": ("gn", _next),
}


def build_net(
    name: str,
    shape: Sequence[int],
    classes: int,
    *,
    norm: str = "",
    activation: str = "",
    dropout: float = 0.0,
    width: float = 1.0,
) -> nn.Module:
    """A net with PyTorch's own initialisation.

    Args:
        name: key of `NETS`.
        shape: `(c, h, w)` of an image.
        classes: how many.
        norm: `bn`, `gn`, `none`; empty takes the net's own.
        activation: key of `ACTIVATIONS`; empty takes the net's own.
        dropout: before the last layer.
        width: factor on all widths.
    """
    own, build = NETS[name]
    active = activation or ("gelu" if name in GELU else "relu")
    return build(Parts(norm or own, active, dropout, width), shape, classes)


def layers_of(model: nn.Module) -> list[tuple[str, nn.Conv2d | nn.Linear]]:
    """Convolutions and linear maps with their names, in order."""
    return [(name, one) for name, one in model.named_modules() if isinstance(one, nn.Conv2d | nn.Linear)]
