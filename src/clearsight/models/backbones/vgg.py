"""VGG 11 to 19, with batch norm or without, with torchvision's parameter names and outputs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

import torch.nn.functional as F
from torch import Tensor, nn

from clearsight.errors import ConfigError
from clearsight.models.backbones.checks import check_images
from clearsight.models.backbones.published import rename_head
from clearsight.nn.conv import conv_norm, convolve, norm_after
from clearsight.nn.init import kaiming_init

__all__ = ["VGGS", "Vgg", "VggFeatures"]

WIDTHS = (64, 128, 256, 512, 512)
LAYERS: dict[int, tuple[int, int, int, int, int]] = {  # convolutions of the five stages
    11: (1, 1, 2, 2, 2),
    13: (2, 2, 2, 2, 2),
    16: (2, 2, 3, 3, 3),
    19: (2, 2, 4, 4, 4),
}
POOLED = 7


class VggFeatures(nn.Sequential):
    """The convolutions and pools in one row, numbered as published; called, it gives the pyramid.

    Shape: images `(n, channels, h, w)` → `c2` … `c5`, `ceil(h / stride)` × `ceil(w / stride)` each.

    Attributes:
        in_channels: of the images.
        channels: by level, `c2` to `c5`.
        strides: by level.

    Args:
        counts: 3×3 convolutions of the five stages.
        channels: of the images.
        norm: a name of `nn.norm`, or None for none.
        small_input: without the first two pools.
    """

    def __init__(self, counts: tuple[int, ...], *, channels: int, norm: str | None, small_input: bool) -> None:
        super().__init__()
        self.in_channels = channels
        self.normed = norm is not None
        levels, smallest = ("c2", "c3", "c4", "c5"), 1 if small_input else 4
        self.channels: dict[str, int] = dict(zip(levels, (*WIDTHS[2:], WIDTHS[-1]), strict=True))
        self.strides: dict[str, int] = {level: smallest * 2**k for k, level in enumerate(levels)}
        self.stages: list[tuple[int, int]] = []  # where the convolutions of each begin and end; its pool comes next
        for number, (count, width) in enumerate(zip(counts, WIDTHS, strict=True)):
            start = len(self)
            for _ in range(count):
                convolution = nn.Conv2d(channels, width, 3, padding=1)
                self.append(convolution)
                if norm is not None:
                    self.append(norm_after(norm, convolution))
                self.append(nn.ReLU(inplace=True))
                channels = width
            self.stages.append((start, len(self)))
            self.append(nn.Identity() if small_input and number < 2 else nn.MaxPool2d(2, 2))

    def forward(self, images: Tensor) -> dict[str, Tensor]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """The pyramid; pools round up, where the published network leaves an odd row or column out.

        Args:
            images: `(n, channels, h, w)` float, normalised.

        Returns:
            `c2`, `c3` and `c4`, the last three stages before their pools, and `c5`, the last after its own.

        Raises:
            ShapeError: the images have other channels, or are smaller than the largest stride.
        """
        check_images(images, self)
        found: dict[str, Tensor] = {}
        x = images
        for number in range(len(self.stages)):
            before, x = self.stage(number, x, ceil=True)
            if number >= 2:
                found[f"c{number}"] = before
        return found | {"c5": x}

    def stage(self, number: int, x: Tensor, *, ceil: bool) -> tuple[Tensor, Tensor]:
        """One stage: what its convolutions give, and that after the pool.

        Args:
            number: 0 to 4.
            x: its input.
            ceil: whether the pool rounds up.
        """
        layers, (start, end) = list(self), self.stages[number]
        step = 3 if self.normed else 2
        for first in range(start, end, step):
            convolution, activation = layers[first], layers[first + step - 1]
            x = activation(conv_norm(convolution, layers[first + 1], x) if self.normed else convolve(convolution, x))
        if isinstance(layers[end], nn.Identity):
            return x, x
        return x, F.max_pool2d(x, 2, 2, ceil_mode=ceil)


class Vgg(nn.Module):
    """Plain network of 3×3 convolutions, without the last layer of its classifier.

    Method: Simonyan and Zisserman 2015, arXiv:1409.1556, table 1, columns A, B, D and E, in the form that torchvision
    publishes weights for (with batch norm, or at other image sizes, as there).

    Shape: images `(n, channels, h, w)` → `c2` … `c5`, strides 4, 8, 16, 32; of `small_input` 1, 2, 4, 8.

    Attributes:
        in_channels: of the images.
        channels: by level, `c2` to `c5`.
        strides: by level, pixels of the input between neighbours.
        embedding: length of `embed`'s vector.

    Args:
        depth: 11, 13, 16 or 19.
        norm: a name of `nn.norm`; None for batch norm with `normed`, else for no norm.
        normed: the published form with batch norms.
        channels: of the input.
        small_input: without the first two pools, for images of 28 to 64 pixels.
        hidden: width of the classifier's two hidden layers, which hold 120 of VGG-16's 138 million parameters; 0 for
            none: `embed` is then the mean of `c5`, and published weights of these layers are left out.
        dropout: share of the first hidden layer's outputs that is dropped in training.

    Raises:
        ConfigError: there is no such depth.
    """

    def __init__(
        self,
        depth: int,
        *,
        norm: str | None = None,
        normed: bool = False,
        channels: int = 3,
        small_input: bool = False,
        hidden: int = 4096,
        dropout: float = 0.5,
    ) -> None:
        super().__init__()
        if depth not in LAYERS:
            raise ConfigError(f"depth: there is no VGG-{depth}; choose one of {', '.join(map(str, LAYERS))}")
        norm = "batch" if norm is None and normed else norm
        self.features = VggFeatures(LAYERS[depth], channels=channels, norm=norm, small_input=small_input)
        self.in_channels = channels
        self.channels = dict(self.features.channels)
        self.strides = dict(self.features.strides)
        self.classifier: nn.Sequential | None = None
        if hidden:
            self.classifier = nn.Sequential(
                nn.Linear(WIDTHS[-1] * POOLED**2, hidden),
                nn.ReLU(inplace=True),
                nn.Dropout(dropout),
                nn.Linear(hidden, hidden),
                nn.ReLU(inplace=True),
            )
        self.embedding = hidden or WIDTHS[-1]
        kaiming_init(self)
        for layer in self.modules():
            if isinstance(layer, nn.Linear):
                nn.init.normal_(layer.weight, std=0.01)
                nn.init.zeros_(layer.bias)

    def forward(self, images: Tensor) -> Tensor:
        """The last level, `c5`."""
        return self.features(images)["c5"]

    def embed(self, images: Tensor) -> Tensor:
        """The published network in full, up to its second hidden layer, `(n, embedding)`.

        Args:
            images: `(n, channels, h, w)` float, normalised.

        Raises:
            ShapeError: the images have other channels, or are smaller than the largest stride.
        """
        if self.classifier is None:
            return self(images).mean(dim=(2, 3))
        check_images(images, self)
        x = images
        for number in range(len(WIDTHS)):
            _, x = self.features.stage(number, x, ceil=False)
        return self.classifier(F.adaptive_avg_pool2d(x, POOLED).flatten(1))

    def adapt_weights(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Torchvision's names under ours: only the last layer's differ, `classifier.6` is `head`."""
        found = rename_head(state, "classifier.6")
        if self.classifier is None:
            return {name: value for name, value in found.items() if not name.startswith("classifier.")}
        return found


VGGS: dict[str, Callable[..., Vgg]] = {
    **{f"vgg{depth}": partial(Vgg, depth) for depth in LAYERS},
    **{f"vgg{depth}_bn": partial(Vgg, depth, normed=True) for depth in LAYERS},
}
