"""MobileNetV2, with torchvision's parameter names and outputs."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from torch import Tensor, nn

from clearsight.errors import ConfigError
from clearsight.models.backbones.checks import check_images
from clearsight.models.backbones.published import rename_head
from clearsight.models.backbones.pyramid import Pyramid
from clearsight.nn.conv import ConvNormAct
from clearsight.nn.init import kaiming_init
from clearsight.nn.inverted_residual import InvertedResidualV2
from clearsight.nn.squeeze_excite import make_divisible

__all__ = ["MOBILENETS_V2", "MobileNetV2"]

# The paper's table 2: expansion, channels, blocks, stride of the first.
ROWS = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))


class MobileNetV2(nn.Module):
    """Inverted residuals with linear bottlenecks, without the classifier.

    Method: Sandler et al. 2018, arXiv:1801.04381, table 2, in the form that torchvision publishes weights for. Levels
    are the last blocks of their stride; the 1×1 convolution at the end is for `embed` alone.

    Shape: images `(n, channels, h, w)` → `c2` … `c5`, strides 4, 8, 16, 32; of `small_input` 1, 2, 4, 8.

    Attributes:
        features: called with images, it gives the pyramid: each level `(n, channels[level], ceil(h / strides[level]),
            ceil(w / strides[level]))`.
        in_channels: of the images.
        channels: by level, `c2` to `c5`.
        strides: by level, pixels of the input between neighbours.
        embedding: length of `embed`'s vector.

    Args:
        width: multiplies every number of channels, which stays a multiple of 8; the last only where above 1.
        norm: a name of `nn.norm`; None for batch norm.
        channels: of the input.
        small_input: the first two layers that halve keep the size instead, for images of 28 to 64 pixels.

    Raises:
        ConfigError: the width is not above 0, or there is no such norm.
    """

    def __init__(
        self, *, width: float = 1.0, norm: str | None = None, channels: int = 3, small_input: bool = False
    ) -> None:
        super().__init__()
        if width <= 0:
            raise ConfigError(f"width: must be above 0, got {width}")
        norm = norm or "batch"
        shrunk = 4 if small_input else 1
        reached, pixels = make_divisible(32 * width), 2
        stem = ConvNormAct(channels, reached, stride=1 if small_input else 2, norm=norm, activation="relu6")
        layers: list[nn.Module] = [stem]
        self.in_channels = channels
        self.channels: dict[str, int] = {}
        self.strides: dict[str, int] = {}
        ends: dict[str, int] = {}
        for expansion, wide, count, step in ROWS:
            pixels *= step
            out = make_divisible(wide * width)
            for k in range(count):
                stride = 1 if k or pixels <= shrunk else step
                layers.append(InvertedResidualV2(reached, out, stride=stride, expansion=expansion, norm=norm))
                reached = out
            if pixels >= 4:
                level = f"c{pixels.bit_length() - 1}"
                self.channels[level], self.strides[level] = reached, pixels // shrunk
                ends[level] = len(layers) - 1
        self.embedding = make_divisible(1280 * max(1.0, width))
        layers.append(ConvNormAct(reached, self.embedding, 1, norm=norm, activation="relu6"))
        self.features = Pyramid(layers, ends=ends, in_channels=channels, strides=self.strides)
        kaiming_init(self)

    def forward(self, images: Tensor) -> Tensor:
        """The last level, `c5`."""
        return self.features(images)["c5"]

    def embed(self, images: Tensor) -> Tensor:
        """The mean over the image of one more 1×1 convolution, `(n, embedding)`."""
        check_images(images, self)
        return self.features[-1](self(images)).mean(dim=(2, 3))

    def adapt_weights(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Names of torchvision under ours: only the last layer's differ, `classifier.1` is `head`."""
        return rename_head(state, "classifier.1")


MOBILENETS_V2: dict[str, Callable[..., MobileNetV2]] = {"mobilenet_v2": MobileNetV2}
