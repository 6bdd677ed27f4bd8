"""TransUNet: convolutions, a transformer over what they find, and a decoder that goes back up with their maps."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from clearsight.errors import ConfigError
from clearsight.models.backbones.vit import RENAMED, Encoder, patch_grid
from clearsight.models.segment.segmenter import Segmenter
from clearsight.models.segment.semantic_loss import SemanticLoss
from clearsight.models.segment.transunet_resnet import HybridResNet
from clearsight.models.segment.unet_sizes import mirror_pad
from clearsight.nn.attention import SelfAttention
from clearsight.nn.conv import ConvNormAct
from clearsight.nn.transformer import Mlp, TransformerBlock
from clearsight.nn.upsample import Interpolate

if TYPE_CHECKING:
    from clearsight.data.normalisation import Statistics
    from clearsight.recipe.segment_sections import TransUnetConfig

__all__ = ["CascadedUpsampler", "TransUNet", "UpBlock", "build_transunet"]

STRIDE = 16
# From timm's names of the hybrid's convolutions to ours; in this order, before those of the transformer.
HYBRID = (
    (r"^patch_embed\.backbone\.stem\.conv\.", "resnet.stem.0."),
    (r"^patch_embed\.backbone\.stem\.norm\.", "resnet.stem.1."),
    (r"^patch_embed\.backbone\.stages\.(\d+)\.blocks\.", r"resnet.stages.\1."),
    (r"^(resnet\..*)\.norm(\d)\.", r"\1.bn\2."),
    (r"^(resnet\..*)\.downsample\.conv\.", r"\1.downsample.0."),
    (r"^(resnet\..*)\.downsample\.norm\.", r"\1.downsample.1."),
)


class UpBlock(nn.Module):
    """Twice as large, beside it a map of the encoder, and two 3×3 convolutions.

    Method: Chen et al. 2021, arXiv:2102.04306, section 3.3. Pixels are interpolated with half-pixel centres, where the
    authors' code aligns the corners: so the result does not depend on how large the image around an object is.

    Shape: x `(n, in_channels, h, w)`, skip `(n, skip_channels, 2h, 2w)` → `(n, out_channels, 2h, 2w)`.

    Args:
        in_channels: of x.
        skip_channels: of the encoder's map; 0 for none.
        out_channels: of the result.
    """

    def __init__(self, in_channels: int, skip_channels: int, out_channels: int) -> None:
        super().__init__()
        self.up = Interpolate("bilinear")
        self.conv1 = ConvNormAct(in_channels + skip_channels, out_channels)
        self.conv2 = ConvNormAct(out_channels, out_channels)

    def forward(self, x: Tensor, skip: Tensor | None = None) -> Tensor:
        """Enlarge, join, convolve."""
        x = self.up(x)
        if skip is not None:
            x = torch.cat((x, skip), 1)
        return self.conv2(self.conv1(x))


class CascadedUpsampler(nn.Module):
    """From the transformer's tokens, laid out as a map of stride 16, to the size of the image.

    Method: Chen et al. 2021, arXiv:2102.04306, section 3.3 and figure 1: a 3×3 convolution, then four `UpBlock`s, of
    which the last one has no map of the encoder.

    Shape: x `(n, in_channels, h, w)`, skips of strides 2, 4 and 8 → `(n, widths[-1], 16h, 16w)`.

    Args:
        in_channels: of x.
        skip_channels: of the encoder's maps of strides 2, 4 and 8.
        widths: of the first convolution and the four blocks.

    Raises:
        ConfigError: there are not five widths.
    """

    def __init__(self, in_channels: int, skip_channels: Sequence[int], widths: Sequence[int]) -> None:
        super().__init__()
        if len(widths) != 5 or min(widths) < 1:
            raise ConfigError(
                "decoder: expected five widths, of the first convolution and the four blocks that enlarge, got "
                f"{tuple(widths)}"
            )
        self.conv_more = ConvNormAct(in_channels, widths[0])
        beside = (*reversed(skip_channels), 0)
        self.blocks = nn.ModuleList(UpBlock(widths[i], beside[i], widths[i + 1]) for i in range(4))

    def forward(self, x: Tensor, skips: Sequence[Tensor]) -> Tensor:
        """The map, sixteen times as large.

        Args:
            x: `(n, in_channels, h, w)`.
            skips: maps of strides 2, 4 and 8, in this order.
        """
        x = self.conv_more(x)
        for block, skip in zip(self.blocks, (*reversed(skips), None), strict=True):
            x = block(x, skip)
        return x


class TransUNet(nn.Module):
    """TransUNet with the R50-ViT hybrid as its encoder; the published one unless told otherwise.

    Images of any size are taken: they are mirrored up to a multiple of 16, what was added is cut off the logits, and
    positions are resized to the image's grid of tokens (`PositionResize`).

    Method: Chen et al. 2021, arXiv:2102.04306, section 3 and figure 1: R50-ViT-B/16 with the cascaded upsampler and
    three skips. See `HybridResNet` and `UpBlock` for where numbers are not those of the authors' code.

    Shape: images `(n, channels, h, w)` float, normalised → logits `(n, num_classes, h, w)`.

    Attributes:
        in_channels: of the images.
        class_layer: names of the parameters whose shape depends on the number of classes.

    Args:
        num_classes: channels of the result.
        channels: of the images.
        layers: blocks of the transformer.
        width: channels of a token.
        heads: of the attention; must divide the width.
        backbone_width: channels of the ResNet's stem; its stages have 4, 8 and 16 times as many.
        backbone_blocks: of its three stages.
        decoder: channels of the decoder: first convolution and four blocks.
        image_size: side, or height and width, of the images that positions are learned for; a multiple of 16.
        dropout: share that is dropped while training, of the tokens and in the MLPs.

    Raises:
        ConfigError: heads do not divide the width, 16 not the image size, or there are other than three stages of the
            ResNet and five widths of the decoder.
        RangeError: the dropout is out of range.
    """

    class_layer = ("head.weight", "head.bias")

    def __init__(  # noqa: PLR0913 - each is an option of the network
        self,
        num_classes: int,
        *,
        channels: int = 3,
        layers: int = 12,
        width: int = 768,
        heads: int = 12,
        backbone_width: int = 64,
        backbone_blocks: Sequence[int] = (3, 4, 9),
        decoder: Sequence[int] = (512, 256, 128, 64, 16),
        image_size: int | tuple[int, int] = 224,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        self.in_channels = channels
        self.resnet = HybridResNet(backbone_width, backbone_blocks, channels=channels)
        *beside, deepest = self.resnet.channels
        self.conv_proj = nn.Conv2d(deepest, width, 1)
        blocks = [
            TransformerBlock(width, SelfAttention(width, heads), Mlp(width, dropout=dropout)) for _ in range(layers)
        ]
        self.encoder = Encoder(patch_grid(image_size, STRIDE, STRIDE), blocks, width, dropout=dropout)
        self.decoder = CascadedUpsampler(width, beside, decoder)
        self.head = nn.Conv2d(decoder[-1], num_classes, 3, padding=1)

    def forward(self, images: Tensor) -> Tensor:
        """Class logits of every pixel.

        Raises:
            ShapeError: the images have other channels.
        """
        height, width = images.shape[-2:]
        x, skips = self.encode(mirror_pad(images, 0, -width % STRIDE, 0, -height % STRIDE))
        return self.head(self.decoder(x, skips))[..., :height, :width]

    def encode(self, images: Tensor) -> tuple[Tensor, list[Tensor]]:
        """The transformer's tokens after their last norm, laid out as a map, and the maps of strides 2, 4 and 8.

        Args:
            images: `(n, channels, h, w)`, whose sides 16 divides.
        """
        *skips, deepest = self.resnet(images)
        patches = self.conv_proj(deepest)
        size = (patches.shape[2], patches.shape[3])
        tokens = self.encoder.ln(self.encoder(patches.flatten(2).transpose(1, 2), size))
        return tokens.transpose(1, 2).unflatten(2, size), skips

    def adapt_weights(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Weights of timm's hybrid R50-ViT, or of a ViT of timm's or torchvision's, under this net's names.

        The class token goes, with its position, and so does the classifier; positions learned for another square grid
        are resized to this one. Names that are this net's own stay.
        """
        own = any(name.startswith("decoder.") for name in state)
        found: dict[str, Tensor] = {}
        for name, value in state.items():
            renamed = name
            for pattern, target in HYBRID + RENAMED:
                renamed = re.sub(pattern, target, renamed)
            if own or not renamed.startswith(("head.", "heads.")):
                found[renamed] = value
        positions = found.get("encoder.pos_embedding")
        if positions is not None:
            placed = positions[:, 1:] if found.pop("class_token", None) is not None else positions
            found["encoder.pos_embedding"] = self.encoder.adapted(placed)
        return found

    def reset_classes(self) -> None:
        """Start the class layer anew."""
        self.head.reset_parameters()


def build_transunet(config: TransUnetConfig, *, num_classes: int, channels: int, statistics: Statistics) -> Segmenter:
    """A segmenter from a recipe's section.

    Args:
        config: the section.
        num_classes: the background is one of them.
        channels: of the images.
        statistics: of the input's channels.

    Raises:
        ConfigError: as `TransUNet` and `SemanticLoss`.
    """
    net = TransUNet(
        num_classes,
        channels=channels,
        layers=config.layers,
        width=config.width,
        heads=config.heads,
        backbone_width=config.backbone_width,
        backbone_blocks=config.backbone_blocks,
        decoder=config.decoder,
        image_size=config.image_size,
        dropout=config.dropout,
    )
    return Segmenter(net, statistics=statistics, loss=SemanticLoss(num_classes, **config.loss.model_dump()))
