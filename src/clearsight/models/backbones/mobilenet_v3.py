"""MobileNetV3, small and large, with torchvision's parameter names and outputs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

from torch import Tensor, nn

from clearsight.errors import ConfigError, nearest
from clearsight.models.backbones.checks import check_images
from clearsight.models.backbones.published import rename_head
from clearsight.models.backbones.pyramid import Pyramid
from clearsight.nn.conv import ConvNormAct
from clearsight.nn.frozen_norm import FrozenBatchNorm
from clearsight.nn.init import kaiming_init
from clearsight.nn.inverted_residual import InvertedResidualV3
from clearsight.nn.norm import batch_norms
from clearsight.nn.squeeze_excite import make_divisible

__all__ = ["MOBILENETS_V3", "MobileNetV3"]

# The paper's tables 1 and 2: kernel, expanded, channels, gated, activation, stride.
Row = tuple[int, int, int, bool, str, int]
LARGE: tuple[Row, ...] = (
    (3, 16, 16, False, "relu", 1),
    (3, 64, 24, False, "relu", 2),
    (3, 72, 24, False, "relu", 1),
    (5, 72, 40, True, "relu", 2),
    (5, 120, 40, True, "relu", 1),
    (5, 120, 40, True, "relu", 1),
    (3, 240, 80, False, "hardswish", 2),
    (3, 200, 80, False, "hardswish", 1),
    (3, 184, 80, False, "hardswish", 1),
    (3, 184, 80, False, "hardswish", 1),
    (3, 480, 112, True, "hardswish", 1),
    (3, 672, 112, True, "hardswish", 1),
    (5, 672, 160, True, "hardswish", 2),
    (5, 960, 160, True, "hardswish", 1),
    (5, 960, 160, True, "hardswish", 1),
)
SMALL: tuple[Row, ...] = (
    (3, 16, 16, True, "relu", 2),
    (3, 72, 24, False, "relu", 2),
    (3, 88, 24, False, "relu", 1),
    (5, 96, 40, True, "hardswish", 2),
    (5, 240, 40, True, "hardswish", 1),
    (5, 240, 40, True, "hardswish", 1),
    (5, 120, 48, True, "hardswish", 1),
    (5, 144, 48, True, "hardswish", 1),
    (5, 288, 96, True, "hardswish", 2),
    (5, 576, 96, True, "hardswish", 1),
    (5, 576, 96, True, "hardswish", 1),
)
SIZES: dict[str, tuple[tuple[Row, ...], int]] = {"small": (SMALL, 1024), "large": (LARGE, 1280)}


class MobileNetV3(nn.Module):
    """Inverted residuals with gates and hard swish, found by search, without the last layer of the classifier.

    Method: Howard et al. 2019, arXiv:1905.02244, tables 1 and 2, in the form that torchvision publishes weights for:
    batch norms have an ε of 0.001. Their momentum is PyTorch's 0.1, not the published 0.01, which needs thousands of
    steps until running statistics forget where they began. Levels are the last blocks of their stride; the 1×1
    convolution and the linear layer at the end are for `embed` alone.

    Shape: images `(n, channels, h, w)` → `c2` … `c5`, strides 4, 8, 16, 32; of `small_input` 1, 2, 4, 8.

    Attributes:
        features: called with images, it gives the pyramid: each level `(n, channels[level], ceil(h / strides[level]),
            ceil(w / strides[level]))`.
        in_channels: of the images.
        channels: by level, `c2` to `c5`.
        strides: by level, pixels of the input between neighbours.
        embedding: length of `embed`'s vector.

    Args:
        size: `small` or `large`.
        width: multiplies every number of channels, which stays a multiple of 8.
        norm: a name of `nn.norm`; None for batch norm.
        channels: of the input.
        small_input: the first two layers that halve keep the size instead, for images of 28 to 64 pixels.

    Raises:
        ConfigError: there is no such size or norm, or the width is not above 0.
    """

    def __init__(
        self, size: str, *, width: float = 1.0, norm: str | None = None, channels: int = 3, small_input: bool = False
    ) -> None:
        super().__init__()
        if size not in SIZES:
            raise ConfigError(f"size: there is no MobileNetV3 named {size!r}{nearest(size, SIZES)}")
        if width <= 0:
            raise ConfigError(f"width: must be above 0, got {width}")
        rows, embedding = SIZES[size]
        norm = norm or "batch"
        shrunk = 4 if small_input else 1
        reached, pixels = make_divisible(16 * width), 2
        stem = ConvNormAct(channels, reached, stride=1 if small_input else 2, norm=norm, activation="hardswish")
        layers: list[nn.Module] = [stem]
        self.in_channels = channels
        self.channels: dict[str, int] = {}
        self.strides: dict[str, int] = {}
        ends: dict[str, int] = {}
        for kernel, expanded, wide, gated, activation, step in rows:
            pixels *= step
            block = InvertedResidualV3(
                reached,
                make_divisible(wide * width),
                make_divisible(expanded * width),
                kernel=kernel,
                stride=1 if pixels <= shrunk else step,
                squeeze_excite=4 if gated else None,
                norm=norm,
                activation=activation,
            )
            layers.append(block)
            reached = make_divisible(wide * width)
            if pixels >= 4:
                level = f"c{pixels.bit_length() - 1}"
                self.channels[level], self.strides[level] = reached, pixels // shrunk
                ends[level] = len(layers) - 1
        layers.append(ConvNormAct(reached, 6 * reached, 1, norm=norm, activation="hardswish"))
        self.features = Pyramid(layers, ends=ends, in_channels=channels, strides=self.strides)
        self.embedding = make_divisible(embedding * width)
        self.classifier = nn.Sequential(nn.Linear(6 * reached, self.embedding), nn.Hardswish())
        self._start()

    def forward(self, images: Tensor) -> Tensor:
        """The last level, `c5`."""
        return self.features(images)["c5"]

    def embed(self, images: Tensor) -> Tensor:
        """One more 1×1 convolution, its mean over the image and one linear layer, `(n, embedding)`."""
        check_images(images, self)
        return self.classifier(self.features[-1](self(images)).mean(dim=(2, 3)))

    def adapt_weights(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Names of torchvision under ours: only the last layer's differ, `classifier.3` is `head`."""
        return rename_head(state, "classifier.3")

    def _start(self) -> None:
        """The published network's initial weights, the constants of its norms, and activations in place."""
        kaiming_init(self)
        for layer in self.classifier.modules():
            if isinstance(layer, nn.Linear):
                nn.init.normal_(layer.weight, std=0.01)
                nn.init.zeros_(layer.bias)
        for layer in batch_norms(self):
            layer.eps = 1e-3
        for layer in self.modules():
            if isinstance(layer, FrozenBatchNorm):
                layer.eps = 1e-3
            elif isinstance(layer, nn.Hardswish):
                layer.inplace = True


MOBILENETS_V3: dict[str, Callable[..., MobileNetV3]] = {
    f"mobilenet_v3_{size}": partial(MobileNetV3, size) for size in SIZES
}
