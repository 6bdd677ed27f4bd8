"""Twelve architectures in small, with the knobs that runs are varied by."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from doctor_blocks import Attention, Branches, Depthwise, Grown, Mixing, Parts, Residual, Squeeze

__all__ = ["NETS", "build_net", "layers_of"]


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


class Rows(nn.Module):
    """Convolutions, whose rows of maps a gated recurrent unit reads from the top; Shi et al. 2017."""

    def __init__(self, parts: Parts, shape: Sequence[int], classes: int) -> None:
        super().__init__()
        first, second, width = parts.wide(16), parts.wide(24), parts.wide(48)
        self.maps = nn.Sequential(
            *parts.conv(shape[0], first), parts.activation(),
            *parts.conv(first, second, stride=2), parts.activation(),
        )  # fmt: skip
        self.read = nn.GRU(second * -(-shape[2] // 2), width, batch_first=True)
        self.head = nn.Sequential(*parts.drop(), nn.Linear(width, classes))

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        states, _ = self.read(self.maps(x).permute(0, 2, 1, 3).flatten(2))
        return self.head(states[:, -1])


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


def _vgg(parts: Parts, shape: Sequence[int], classes: int) -> nn.Module:
    def stage(before: int, after: int) -> list[nn.Module]:
        return [
            *parts.conv(before, after), parts.activation(),
            *parts.conv(after, after), parts.activation(), nn.MaxPool2d(2),
        ]  # fmt: skip

    first, second, third = parts.wide(12), parts.wide(16), parts.wide(24)
    return nn.Sequential(
        *stage(shape[0], first), *stage(first, second), *stage(second, third),
        nn.Flatten(),
        *parts.drop(),
        nn.Linear(third * (shape[1] // 8) * (shape[2] // 8), classes),
    )  # fmt: skip


def _inception(parts: Parts, shape: Sequence[int], classes: int) -> nn.Module:
    first, each = parts.wide(12), parts.wide(8)
    return nn.Sequential(
        *parts.conv(shape[0], first), parts.activation(), nn.MaxPool2d(2),
        Branches(parts, first, each), nn.MaxPool2d(2),
        Branches(parts, 4 * each, each), nn.AvgPool2d(2),
        nn.Flatten(),
        *parts.drop(),
        nn.Linear(4 * each * (shape[1] // 8) * (shape[2] // 8), classes),
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
    "vgg": ("bn", _vgg),
    "inception": ("bn", _inception),
    "rows": ("none", Rows),
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
