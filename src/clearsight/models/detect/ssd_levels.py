"""SSD's feature maps behind a backbone, and the default boxes that stand on them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clearsight.assign.assignment import Points
from clearsight.errors import ConfigError
from clearsight.models.detect.dense import PointGrid, level_shapes, make_points
from clearsight.nn.conv import ConvSequential

__all__ = ["AtrousLevels", "DefaultBoxes", "ExtraLevels", "default_shapes", "xavier_init"]

SCALES = (0.07, 0.15, 0.33, 0.51, 0.69, 0.87, 1.05)  # of the image's sides, the last for the larger square alone
RATIOS = ((2.0,), (2.0, 3.0), (2.0, 3.0), (2.0, 3.0), (2.0,), (2.0,))  # besides 1, and each turned over


class AtrousLevels(nn.Module):
    """The six maps of the published SSD: c3 scaled, two convolutions in place of VGG's hidden layers, four blocks more.

    Method: Liu et al. 2016, arXiv:1512.02325, section 3.1: pool5 has stride 1 and fc6 is dilated, so that the second
    map keeps c4's stride; c3 is scaled to a learned length at each place (Liu et al. 2015, arXiv:1506.04579, equations
    1 to 3). The last two blocks have no padding; maps smaller than their kernels are padded on the right and below.

    Attributes:
        channels: of the six maps.
        strides: of the six maps, pixels.
        unpadded: how many of the last maps come of convolutions without padding.

    Args:
        in_channels: of `c3` and `c4`, strides 8 and 16.
    """

    strides = (8, 16, 32, 64, 100, 300)
    unpadded = 2

    def __init__(self, in_channels: Mapping[str, int]) -> None:
        super().__init__()
        self.channels = (in_channels["c3"], 1024, 512, 256, 256, 256)
        self.scale = nn.Parameter(torch.full((in_channels["c3"],), 20.0))
        self.atrous = ConvSequential(
            nn.MaxPool2d(3, 1, padding=1),
            nn.Conv2d(in_channels["c4"], 1024, 3, padding=6, dilation=6),
            nn.ReLU(inplace=True),
            nn.Conv2d(1024, 1024, 1),
            nn.ReLU(inplace=True),
        )
        self.extra = nn.ModuleList(
            [_extra(1024, 512), _extra(512, 256), _extra(256, 256, padded=False), _extra(256, 256, padded=False)]
        )
        xavier_init(self)

    def forward(self, features: Mapping[str, Tensor]) -> list[Tensor]:
        """The maps, by rising stride."""
        x = self.atrous(features["c4"])
        levels = [F.normalize(features["c3"]) * self.scale.view(1, -1, 1, 1), x]
        for number, block in enumerate(self.extra):
            lacking = [max(0, 3 - side) for side in x.shape[-2:]]
            if number >= len(self.extra) - self.unpadded and any(lacking):
                x = F.pad(x, (0, lacking[1], 0, lacking[0]))
            x = block(x)
            levels.append(x)
        return levels


class ExtraLevels(nn.Module):
    """Six maps on any backbone: c3, c4 and c5 as they are, and three blocks that halve.

    Attributes:
        channels: of the six maps.
        strides: of the six maps, pixels.
        unpadded: none of the maps comes of convolutions without padding.

    Args:
        in_channels: of `c3`, `c4` and `c5`.
        strides: by level of the backbone.
    """

    unpadded = 0

    def __init__(self, in_channels: Mapping[str, int], *, strides: Mapping[str, int]) -> None:
        super().__init__()
        self.levels = ("c3", "c4", "c5")
        deepest = in_channels["c5"]
        self.channels = (*(in_channels[level] for level in self.levels), 512, 256, 256)
        self.strides = (*(strides[level] for level in self.levels), *(strides["c5"] * 2**k for k in (1, 2, 3)))
        self.extra = nn.ModuleList([_extra(deepest, 512), _extra(512, 256), _extra(256, 256)])
        xavier_init(self)

    def forward(self, features: Mapping[str, Tensor]) -> list[Tensor]:
        """The maps, by rising stride."""
        levels = [features[level] for level in self.levels]
        for block in self.extra:
            levels.append(block(levels[-1]))
        return levels


class DefaultBoxes(PointGrid):
    """The points of all maps, remembered for the last few image sizes; their boxes are shares of the image's sides.

    Method: Liu et al. 2016, arXiv:1512.02325, section 2.2, "choosing scales and aspect ratios": of each map a square of
    its scale, one of the geometric mean with the next map's, and for each ratio two boxes of the scale's area. As
    torchvision's, sides are at most the image's, and the boxes of an oblong image are oblong as it is. Points stand in
    the middle of cells of one stride, on unpadded maps of equal shares of the image.

    Args:
        strides: of the maps.
        unpadded: how many of the last maps come of 3×3 convolutions without padding.
        scales: one a map and one more, in shares of the image's sides.
        ratios: of each map, above 1.
        remember: number of grids kept.

    Raises:
        ConfigError: there are not as many scales and ratios as the maps need, or a scale is not above 0.
    """

    def __init__(
        self,
        strides: Sequence[int],
        *,
        unpadded: int = 0,
        scales: Sequence[float] = SCALES,
        ratios: Sequence[Sequence[float]] = RATIOS,
        remember: int = 4,
    ) -> None:
        super().__init__(strides, remember=remember)
        if len(scales) != len(strides) + 1 or len(ratios) != len(strides):
            raise ConfigError(
                f"anchor_scales: expected {len(strides) + 1} scales and {len(strides)} groups of ratios for "
                f"{len(strides)} maps, got {len(scales)} and {len(ratios)}"
            )
        if min(scales) <= 0:
            raise ConfigError(f"anchor_scales: must be above 0, got {min(scales)}")
        self.unpadded = unpadded
        self.shapes = default_shapes(scales, ratios)

    def make(self, size: tuple[int, int], device: torch.device) -> Points:
        """The points for images of `(height, width)`."""
        padded = len(self.strides) - self.unpadded
        shapes = level_shapes(size, self.strides[:padded])
        steps = [(float(stride), float(stride)) for stride in self.strides[:padded]]
        for _ in range(self.unpadded):
            height, width = (max(side - 2, 1) for side in shapes[-1])
            shapes.append((height, width))
            steps.append((size[0] / height, size[1] / width))
        half = torch.tensor([size[1], size[0]]) / 2
        anchors = [torch.cat((-sides * half, sides * half), dim=1) for sides in self.shapes]
        return make_points(shapes, self.strides, steps=steps, anchors=anchors, device=device)


def default_shapes(scales: Sequence[float], ratios: Sequence[Sequence[float]]) -> list[Tensor]:
    """Width and height of the default boxes of each map, in shares of the image's sides, at most 1.

    Args:
        scales: one a map and one more.
        ratios: of each map, width over height; each is turned over too.

    Returns:
        `(2 + 2 r, 2)` a map.
    """
    found = []
    for scale, following, of_map in zip(scales, scales[1:], ratios, strict=False):
        sides = [(scale, scale), (math.sqrt(scale * following),) * 2]
        for ratio in of_map:
            wide, high = scale * math.sqrt(ratio), scale / math.sqrt(ratio)
            sides += [(wide, high), (high, wide)]
        found.append(torch.tensor(sides).clamp(max=1))
    return found


def xavier_init(module: nn.Module) -> None:
    """Initialise every convolution below a module as the published SSD: Xavier's uniform weights, biases of 0."""
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)  # pyright: ignore[reportArgumentType] - each has one


def _extra(in_channels: int, out_channels: int, *, padded: bool = True) -> ConvSequential:
    """A 1×1 convolution to half the output's channels and a 3×3 one that halves the map, or takes two off its sides."""
    last = nn.Conv2d(out_channels // 2, out_channels, 3, stride=2 if padded else 1, padding=int(padded))
    first = nn.Conv2d(in_channels, out_channels // 2, 1)
    return ConvSequential(first, nn.ReLU(inplace=True), last, nn.ReLU(inplace=True))
