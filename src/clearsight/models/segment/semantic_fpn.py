"""Semantic FPN: the levels of a feature pyramid, brought to one size and added."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import reduce
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clearsight.errors import ConfigError
from clearsight.models.backbones import build_backbone
from clearsight.models.backbones.published import backbone_weights
from clearsight.models.base import Backbone
from clearsight.models.necks.fpn import Fpn
from clearsight.models.segment.segmenter import Segmenter
from clearsight.models.segment.semantic_loss import SemanticLoss
from clearsight.models.segment.unet_sizes import pad_to_multiple
from clearsight.nn.checks import check_positive, check_rank
from clearsight.nn.conv import ConvSequential
from clearsight.nn.init import init

if TYPE_CHECKING:
    from clearsight.data.normalisation import Statistics
    from clearsight.recipe.segment_sections import SemanticFpnConfig

__all__ = ["LevelBranch", "SemanticFpn", "build_semantic_fpn"]

LEVELS = ("c2", "c3", "c4", "c5")


def _enlarge(x: Tensor, factor: int) -> Tensor:
    return F.interpolate(x, scale_factor=factor, mode="bilinear", align_corners=False)


class LevelBranch(nn.Sequential):
    """What happens to one level on its way to the finest: convolve, enlarge by two, convolve, and so on.

    The last enlargement is left to the caller, who adds first: it is linear, so that once does for all levels.

    Shape: x `(n, in_channels, h, w)` → `(n, channels, 2 ** (doublings - 1) h, …)`; the same size for 0 and 1 doublings.

    Args:
        in_channels: of the level.
        channels: of every convolution; four and more in a group of the norm, up to 32 groups: 128 have the paper's 32.
            Fewer in a group would leave a map of one pixel nothing to compare.
        doublings: from this level's size to the finest's; a 3×3 convolution, group norm and ReLU stands before each,
            and one also where there is none.
    """

    def __init__(self, in_channels: int, channels: int, *, doublings: int) -> None:
        super().__init__()
        groups = math.gcd(32, channels, max(1, channels // 4))
        for number in range(max(1, doublings)):
            convolution = nn.Conv2d(channels if number else in_channels, channels, 3, padding=1, bias=False)
            self.append(ConvSequential(convolution, nn.GroupNorm(groups, channels), nn.ReLU(inplace=True)))

    def forward(self, x: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Convolve and enlarge in turns."""
        for number, stage in enumerate(self):
            x = stage(_enlarge(x, 2) if number else x)
        return x


class SemanticFpn(nn.Module):
    """A backbone, a feature pyramid, a branch a level, their sum, and a 1×1 convolution to the classes.

    Method: Kirillov et al. 2019, Panoptic Feature Pyramid Networks, arXiv:1901.02446, section 3.1, figure 3: each level
    passes 3×3 convolutions, group norms and ReLUs, with a bilinear enlargement by two behind each, until it is at the
    finest level's size, a quarter of the image's; the sum of all goes to the classes and is enlarged to the image's
    size. The coarser levels are added before their last enlargement, which gives the same sum for less.

    Images of any size are extended by their mirror image to a multiple of the largest stride, and the logits cut. A
    backbone that begins at a coarser level, such as ConvMixer with strides 7, 14 and 28, has its sum at that level's
    size, and is enlarged by its stride.

    Shape: x `(n, c, h, w)` → logits `(n, classes, h, w)`, for any h and w from 1 on.

    Attributes:
        class_layer: names of the parameters whose shape depends on `classes`.
        scale: stride of the finest level, by which the logits are enlarged.

    Args:
        backbone: with some of the levels `c2` to `c5`.
        classes: channels of the output.
        fpn_channels: of the pyramid; 256 in the paper.
        head_channels: of the branches; 128 in the paper.

    Raises:
        ConfigError: the backbone has none of the levels, a stride is not the finest's times a power of two, or a number
            is below 1.
    """

    class_layer = ("head.weight", "head.bias")

    def __init__(self, backbone: Backbone, classes: int, *, fpn_channels: int = 256, head_channels: int = 128) -> None:
        super().__init__()
        for number, what in ((classes, "classes"), (fpn_channels, "fpn_channels"), (head_channels, "head_channels")):
            check_positive(number, what)
        used = {level: backbone.channels[level] for level in LEVELS if level in backbone.channels}
        doublings = _doublings([backbone.strides[level] for level in used])
        self.backbone = backbone
        self.fpn = Fpn(used, fpn_channels, strides=backbone.strides)
        self.branches = nn.ModuleList(LevelBranch(fpn_channels, head_channels, doublings=each) for each in doublings)
        self.head = nn.Conv2d(head_channels, classes, 1)
        self.scale = min(self.fpn.strides.values())
        self.multiple = max(backbone.strides.values())
        init(self.branches)
        init(self.head)

    def forward(self, x: Tensor) -> Tensor:
        """Logits of every pixel."""
        check_rank(x, "SemanticFpn: x", "n c h w")
        height, width = x.shape[-2:]
        levels = self.fpn(self.backbone.features(pad_to_multiple(x, self.multiple)))
        found, *coarser = [branch(level) for branch, level in zip(self.branches, levels, strict=True)]
        if coarser:
            found = found + _enlarge(reduce(torch.add, coarser), 2)
        return _enlarge(self.head(found), self.scale)[..., :height, :width]

    def adapt_weights(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """A published classifier's weights under the backbone's names here."""
        return backbone_weights(self.backbone, state)

    def reset_classes(self) -> None:
        """Start the last layer anew."""
        init(self.head)


def _doublings(strides: list[int]) -> list[int]:
    """How often each level is enlarged by two to be as fine as the first."""
    if not strides:
        raise ConfigError(f"backbone: a semantic FPN stands on some of the levels {', '.join(LEVELS)}; it has none")
    ratios = [stride / strides[0] for stride in strides]
    counts = [int(ratio).bit_length() - 1 for ratio in ratios]
    if any(2**count != ratio for count, ratio in zip(counts, ratios, strict=True)) or 0 in counts[1:]:
        raise ConfigError(
            "backbone: a semantic FPN brings all levels to the finest's size by factors of two, which strides of "
            f"{', '.join(map(str, strides))} do not allow"
        )
    return counts


def build_semantic_fpn(
    config: SemanticFpnConfig, *, num_classes: int, channels: int, statistics: Statistics
) -> Segmenter:
    """The model that a recipe's `model` section describes; published weights are not loaded here.

    Args:
        config: of name `semantic_fpn`.
        num_classes: k, the background one of them.
        channels: of the input.
        statistics: of the input's channels.

    Raises:
        ConfigError: the backbone has no such option, or cannot be put under a pyramid.
    """
    backbone = build_backbone(
        config.backbone, norm=config.norm, channels=channels, drop_path=config.drop_path, levels=("c5",)
    )
    net = SemanticFpn(backbone, num_classes, fpn_channels=config.fpn_channels, head_channels=config.head_channels)
    return Segmenter(net, statistics=statistics, loss=SemanticLoss(num_classes, **config.loss.model_dump()))
