"""MobileNet, the first, with timm's parameter names and outputs."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

from torch import Tensor, nn

from clearsight.errors import ConfigError
from clearsight.models.backbones.checks import check_images
from clearsight.models.backbones.published import rename_head
from clearsight.nn.activation import activation
from clearsight.nn.conv import conv_norm, norm_after
from clearsight.nn.squeeze_excite import make_divisible

__all__ = ["MOBILENETS_V1", "MobileNetV1"]

STAGES = ((1, 64), (2, 128), (2, 256), (6, 512), (2, 1024))  # blocks and channels; all but the first halve the size


class MobileNetV1(nn.Module):
    """Depthwise separable convolutions in a row, without the classifier.

    Method: Howard et al. 2017, arXiv:1704.04861, table 1, in the form that timm publishes weights for
    (`mobilenetv1_100`). Differs from the paper: ReLU is cut off at 6, as in its published code.

    Shape: images `(n, channels, h, w)` → `c2` … `c5`, strides 4, 8, 16, 32; of `small_input` 1, 2, 4, 8.

    Attributes:
        in_channels: of the images.
        channels: by level, `c2` to `c5`.
        strides: by level, pixels of the input between neighbours.
        embedding: length of `embed`'s vector.

    Args:
        width: the paper's α, which multiplies every number of channels; they stay multiples of 8.
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
        self.in_channels = channels
        self.conv_stem = nn.Conv2d(channels, reached, 3, 1 if small_input else 2, padding=1, bias=False)
        self.bn1 = norm_after(norm, self.conv_stem)
        self.act1 = activation("relu6")
        self.blocks = nn.Sequential()
        self.channels: dict[str, int] = {}
        self.strides: dict[str, int] = {}
        for stage, (count, wide) in enumerate(STAGES):
            step = 2 if stage else 1
            pixels *= step
            out = make_divisible(wide * width)
            first = _Separable(reached, out, stride=1 if pixels <= shrunk else step, norm=norm)
            self.blocks.append(nn.Sequential(first, *(_Separable(out, out, norm=norm) for _ in range(count - 1))))
            reached = out
            if pixels >= 4:
                level = f"c{pixels.bit_length() - 1}"
                self.channels[level], self.strides[level] = reached, pixels // shrunk
        self.embedding = reached
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):  # by fan-out, of which each group has its share
                fan_out = math.prod(layer.kernel_size) * layer.out_channels // layer.groups
                nn.init.normal_(layer.weight, std=math.sqrt(2 / fan_out))

    def features(self, images: Tensor) -> dict[str, Tensor]:
        """The pyramid.

        Args:
            images: `(n, channels, h, w)` float, normalised.

        Returns:
            `c2` to `c5`, each `(n, channels[level], ceil(h / strides[level]), ceil(w / strides[level]))`.

        Raises:
            ShapeError: the images have other channels, or are smaller than the largest stride.
        """
        check_images(images, self)
        c1, c2, c3, c4, c5 = self.blocks
        x = c2(c1(self.act1(conv_norm(self.conv_stem, self.bn1, images))))
        levels = {"c2": x, "c3": c3(x)}
        levels["c4"] = c4(levels["c3"])
        levels["c5"] = c5(levels["c4"])
        return levels

    def forward(self, images: Tensor) -> Tensor:
        """The last level, `c5`."""
        return self.features(images)["c5"]

    def embed(self, images: Tensor) -> Tensor:
        """The mean of `c5` over the image, `(n, embedding)`."""
        return self(images).mean(dim=(2, 3))

    def adapt_weights(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Names of timm under ours: only the last layer's differ, `classifier` is `head`."""
        return rename_head(state, "classifier")


class _Separable(nn.Module):
    """`nn.separable.DepthwiseSeparable` under timm's names."""

    def __init__(self, in_channels: int, out_channels: int, *, stride: int = 1, norm: str) -> None:
        super().__init__()
        self.conv_dw = nn.Conv2d(in_channels, in_channels, 3, stride, padding=1, groups=in_channels, bias=False)
        self.bn1 = norm_after(norm, self.conv_dw)
        self.act1 = activation("relu6")
        self.conv_pw = nn.Conv2d(in_channels, out_channels, 1, bias=False)
        self.bn2 = norm_after(norm, self.conv_pw)
        self.act2 = activation("relu6")

    def forward(self, x: Tensor) -> Tensor:
        x = self.act1(conv_norm(self.conv_dw, self.bn1, x))
        return self.act2(conv_norm(self.conv_pw, self.bn2, x))


MOBILENETS_V1: dict[str, Callable[..., MobileNetV1]] = {"mobilenet_v1": MobileNetV1}
