"""DANet: attention over positions and over channels, side by side, on the deepest level of a backbone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal

import torch.nn.functional as F
from torch import Tensor, nn

from clearsight.errors import ConfigError
from clearsight.models.backbones import build_backbone
from clearsight.models.backbones.published import backbone_weights
from clearsight.models.backbones.resnet import ResNet
from clearsight.models.base import Backbone
from clearsight.models.segment.segmenter import Segmenter
from clearsight.models.segment.semantic_loss import SemanticLoss
from clearsight.models.segment.unet_sizes import pad_to_multiple
from clearsight.nn.checks import check_dropped, check_positive, check_rank
from clearsight.nn.conv import ConvNormAct
from clearsight.nn.dual_attention import ChannelAttention, PositionAttention
from clearsight.nn.init import init

if TYPE_CHECKING:
    from clearsight.data.normalisation import Statistics
    from clearsight.recipe.segment_sections import DanetConfig

__all__ = ["Danet", "DualAttentionHead", "build_danet", "dilate"]


def dilate(backbone: Backbone, output_stride: Literal[8, 16]) -> Backbone:
    """Dilated convolutions in place of a ResNet's last strides, in place: its deeper levels stay as fine as `c3`.

    Weights, and what they see of the image, remain: a stage that no longer halves the image has its 3×3 convolutions
    twice as wide from its second block on, and so have all that come after.

    Method: Yu and Koltun 2016, arXiv:1511.07122, section 2, laid out as by torchvision's
    `replace_stride_with_dilation`; the authors of DANet also offer wider rates in the last stage ("multi-grid").

    Args:
        backbone: a ResNet, ResNeXt, wide or squeeze-and-excitation one; not changed before.
        output_stride: stride of `c5`: 8 (the paper's) or 16.

    Returns:
        The backbone, its `strides` as they are now.

    Raises:
        ConfigError: it is another network, or the output stride is none of these.
    """
    if output_stride not in (8, 16):
        raise ConfigError(f"output_stride: expected 8, 16, or None for the backbone's own, got {output_stride}")
    if type(backbone) is not ResNet:  # a subclass may have other kernels
        raise ConfigError(
            f"output_stride: only ResNets can be dilated, not a {type(backbone).__name__}; set output_stride to null "
            "for the backbone's own stride"
        )
    dilation = 1
    for level, stage in (("c4", backbone.layer3), ("c5", backbone.layer4)):
        held = backbone.strides[level] > output_stride
        for number, block in enumerate(stage):
            if held and number == 1:
                dilation *= 2
            for layer in block.modules():
                if isinstance(layer, nn.Conv2d):
                    layer.stride = (1, 1) if held else layer.stride
                    if layer.kernel_size == (3, 3):
                        layer.dilation = layer.padding = (dilation, dilation)
        backbone.strides[level] = min(backbone.strides[level], output_stride)
    return backbone


class DualAttentionHead(nn.Module):
    """Two branches of convolution, attention and convolution, added, and a 1×1 convolution to the classes.

    Method: Fu et al. 2019, arXiv:1809.02983, section 3.4, figure 2, laid out as in the authors' code: all four
    convolutions are 3×3 with norm and ReLU, and whole channels are dropped before the last layer.

    Shape: x `(n, in_channels, h, w)` → logits `(n, classes, h, w)`. Memory on CPUs: `(h w)²` numbers a sample, twice,
    see `PositionAttention`.

    Args:
        in_channels: of the map.
        classes: channels of the output.
        channels: inside, a multiple of 8; a quarter of the `in_channels` in the paper.
        norm: a name of `nn.norm`.
        dropout: share of channels, in [0, 1).

    Raises:
        ConfigError: 8 does not divide the channels, or `classes` is below 1.
        RangeError: the dropout is out of range.
    """

    def __init__(
        self, in_channels: int, classes: int, *, channels: int = 128, norm: str = "batch", dropout: float = 0.1
    ) -> None:
        super().__init__()
        check_positive(classes, "classes")
        check_dropped(dropout, "dropout")
        self.to_positions = ConvNormAct(in_channels, channels, norm=norm)
        self.positions = PositionAttention(channels)
        self.from_positions = ConvNormAct(channels, channels, norm=norm)
        self.to_channels = ConvNormAct(in_channels, channels, norm=norm)
        self.channels = ChannelAttention()
        self.from_channels = ConvNormAct(channels, channels, norm=norm)
        self.dropout = nn.Dropout2d(dropout)
        self.out = nn.Conv2d(channels, classes, 1)
        init(self)

    def forward(self, x: Tensor) -> Tensor:
        """Attend, add, classify."""
        by_position = self.from_positions(self.positions(self.to_positions(x)))
        by_channel = self.from_channels(self.channels(self.to_channels(x)))
        return self.out(self.dropout(by_position + by_channel))


class Danet(nn.Module):
    """A backbone, `DualAttentionHead` on its level `c5`, and a bilinear enlargement to the image's size.

    Method: Fu et al. 2019, arXiv:1809.02983, section 3. The paper's backbone is a ResNet whose last two stages are
    dilated, for an output stride of 8 (`dilate`); others keep their stride. Differences: logits are enlarged with
    half-pixel centres, and only the sum of the two branches is trained; the authors add a loss on each alone.

    Images of any size are extended by their mirror image to a multiple of the stride, and the logits cut. Attention
    among positions has `(h w / stride²)²` scores an image, on CPUs held twice, in float32 64 MiB each at 512×512 and
    stride 8, 16 times that at twice the side, and a 16th at stride 16. GPUs have kernels that do not hold them.

    Shape: x `(n, c, h, w)` → logits `(n, classes, h, w)`, for any h and w from 1 on.

    Attributes:
        class_layer: names of the parameters whose shape depends on `classes`.
        scale: stride of `c5`, by which the logits are enlarged.

    Args:
        backbone: with a level `c5`; see `dilate`.
        classes: channels of the output.
        head_channels: see `DualAttentionHead`.
        norm: of the head, a name of `nn.norm`.
        dropout: see `DualAttentionHead`.

    Raises:
        ConfigError: 8 does not divide the head's channels, the backbone has no `c5`, or `classes` is below 1.
        RangeError: the dropout is out of range.
    """

    class_layer = ("head.out.weight", "head.out.bias")

    def __init__(
        self,
        backbone: Backbone,
        classes: int,
        *,
        head_channels: int = 128,
        norm: str = "batch",
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        if "c5" not in backbone.channels:
            raise ConfigError(f"backbone: DANet reads its level c5; it has {', '.join(backbone.channels)}")
        self.backbone = backbone
        self.head = DualAttentionHead(
            backbone.channels["c5"], classes, channels=head_channels, norm=norm, dropout=dropout
        )
        self.scale = backbone.strides["c5"]
        self.multiple = max(backbone.strides.values())

    def forward(self, x: Tensor) -> Tensor:
        """Logits of every pixel."""
        check_rank(x, "Danet: x", "n c h w")
        height, width = x.shape[-2:]
        logits = self.head(self.backbone.features(pad_to_multiple(x, self.multiple))["c5"])
        enlarged = F.interpolate(logits, scale_factor=self.scale, mode="bilinear", align_corners=False)
        return enlarged[..., :height, :width]

    def adapt_weights(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """A published classifier's weights under the backbone's names here."""
        return backbone_weights(self.backbone, state)

    def reset_classes(self) -> None:
        """Start the last layer anew."""
        init(self.head.out)


def build_danet(config: DanetConfig, *, num_classes: int, channels: int, statistics: Statistics) -> Segmenter:
    """The model that a recipe's `model` section describes; published weights are not loaded here.

    Args:
        config: of name `danet`.
        num_classes: k, the background one of them.
        channels: of the input.
        statistics: of the input's channels.

    Raises:
        ConfigError: the backbone has no such option, or cannot be dilated.
    """
    backbone = build_backbone(
        config.backbone, norm=config.norm, channels=channels, drop_path=config.drop_path, levels=("c5",)
    )
    if config.output_stride is not None:
        backbone = dilate(backbone, config.output_stride)
    net = Danet(backbone, num_classes, head_channels=config.head_channels, norm=config.norm or "batch")
    return Segmenter(net, statistics=statistics, loss=SemanticLoss(num_classes, **config.loss.model_dump()))
