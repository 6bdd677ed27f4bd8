"""Swin-Unet: a U of transformers in windows; patches are merged on the way down and expanded on the way up."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from clearsight.models.backbones.swin import RENAMED, SwinFeatures
from clearsight.models.segment.segmenter import Segmenter
from clearsight.models.segment.semantic_loss import SemanticLoss
from clearsight.models.segment.unet_sizes import mirror_pad
from clearsight.nn.transformer import WindowBlock
from clearsight.nn.upsample import PatchExpand
from clearsight.nn.window_attention import WindowAttention

if TYPE_CHECKING:
    from clearsight.data.normalisation import Statistics
    from clearsight.recipe.segment_sections import SwinUnetConfig

__all__ = ["SwinUnet", "UpStage", "build_swin_unet"]


class UpStage(nn.Module):
    """Tokens twice as dense, joined with those of the encoder, then blocks of attention in windows.

    Method: Cao et al. 2021, arXiv:2105.05537, sections 3.4 and 3.5: a patch expanding layer, both maps beside each
    other, a linear layer back to one map's channels, and Swin's blocks.

    Shape: x `(n, h, w, 2 channels)`, skip `(n, 2h, 2w, channels)` → `(n, 2h, 2w, channels)`.

    Args:
        channels: of the result.
        heads: must divide the channels.
        window: side of a window.
        drop_paths: of each block, the share of samples whose branches are left out while training.

    Raises:
        ConfigError: the heads do not divide the channels.
        RangeError: a share is out of range.
    """

    def __init__(self, channels: int, heads: int, window: int, drop_paths: Sequence[float]) -> None:
        super().__init__()
        self.expand = PatchExpand(2 * channels)
        self.join = nn.Linear(2 * channels, channels)
        self.blocks = nn.Sequential()
        for i, share in enumerate(drop_paths):
            attention = WindowAttention(channels, heads, window, shift=window // 2 if i % 2 else 0)
            self.blocks.append(WindowBlock(channels, attention, drop_path=share))

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        """Expand, join, attend."""
        return self.blocks(self.join(torch.cat((self.expand(x), skip), -1)))


class SwinUnet(nn.Module):
    """Swin-Unet on Swin-T's stages of two blocks; the published one unless told otherwise.

    Images of any size are taken: they are mirrored up to a multiple of eight patches, and what was added is cut off the
    logits. The last map is expanded to the image's pixels before the class layer, which has no bias.

    Method: Cao et al. 2021, arXiv:2105.05537, section 3 and figure 1, in which the encoder's maps are taken behind a
    stage's blocks; the authors' code takes them before, with as many parameters. The decoder's blocks are dropped as
    often as the encoder's of the same stage, as there.

    Shape: images `(n, channels, h, w)` float, normalised → logits `(n, num_classes, h, w)`.

    Attributes:
        in_channels: of the images.
        class_layer: names of the parameters whose shape depends on the number of classes.

    Args:
        num_classes: channels of the result.
        channels: of the images.
        width: channels of the first stage; each next one has twice as many.
        depths: blocks of the encoder's four stages, and of the first three in the decoder.
        heads: of the four stages; must divide their channels.
        window: side of a window, in tokens.
        patch: side of a patch, in pixels.
        drop_path: share of samples whose branches are left out in training, in the encoder's last block; rises from 0
            in the first.

    Raises:
        ConfigError: there are not four stages, the heads do not divide the channels, or the patch is below 2.
        RangeError: the share is out of range.
    """

    class_layer = ("head.weight",)

    def __init__(
        self,
        num_classes: int,
        *,
        channels: int = 3,
        width: int = 96,
        depths: Sequence[int] = (2, 2, 2, 2),
        heads: Sequence[int] = (3, 6, 12, 24),
        window: int = 7,
        patch: int = 4,
        drop_path: float = 0.2,
    ) -> None:
        super().__init__()
        self.in_channels = channels
        self.features = SwinFeatures(
            width, depths, heads, window=window, patch=patch, channels=channels, drop_path=drop_path
        )
        wide = list(self.features.channels.values())
        self.norm = nn.LayerNorm(wide[-1])
        shares = [drop_path * i / max(sum(depths) - 1, 1) for i in range(sum(depths))]
        self.decoder = nn.ModuleList()
        for stage in (2, 1, 0):
            before = sum(depths[:stage])
            mirrored = shares[before : before + depths[stage]]
            self.decoder.append(UpStage(wide[stage], heads[stage], window, mirrored))
        self.norm_up = nn.LayerNorm(width)
        self.up = PatchExpand(width, factor=patch, out_channels=width)
        self.head = nn.Conv2d(width, num_classes, 1, bias=False)
        for layer in self.modules():
            if isinstance(layer, nn.Linear):
                nn.init.trunc_normal_(layer.weight, std=0.02)
                if layer.bias is not None:
                    nn.init.zeros_(layer.bias)

    def forward(self, images: Tensor) -> Tensor:
        """Class logits of every pixel.

        Raises:
            ShapeError: the images have other channels.
        """
        height, width = images.shape[-2:]
        whole = 8 * self.features.patch
        found = self.features(mirror_pad(images, 0, -width % whole, 0, -height % whole))
        c2, c3, c4, c5 = (level.permute(0, 2, 3, 1) for level in found.values())  # n c h w → n h w c, as they lie
        x = self.norm(c5)
        for stage, skip in zip(self.decoder, (c4, c3, c2), strict=True):
            x = stage(x, skip)
        x = self.up(self.norm_up(x)).permute(0, 3, 1, 2)
        return self.head(x)[..., :height, :width]

    def adapt_weights(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Weights of a Swin of torchvision's or timm's under this net's names: in the encoder, and in its mirror.

        As the paper does, a stage's blocks are also those of the decoder's stage of the same size. Blocks beyond this
        net's depth and the classifier go. A state that has a decoder is taken as it is.
        """
        if any(name.startswith("decoder.") for name in state):
            return dict(state)
        own = self.state_dict()
        found: dict[str, Tensor] = {}
        for name, value in state.items():
            renamed = re.sub(r"^layers\.(\d)\.blocks\.", lambda at: f"features.{2 * int(at[1]) + 1}.", name)
            renamed = re.sub(r"^layers\.(\d)\.downsample\.", lambda at: f"features.{2 * int(at[1])}.", renamed)
            for pattern, target in RENAMED:
                renamed = re.sub(pattern, target, renamed)
            if renamed.endswith(("relative_position_index", "attn_mask")) or renamed.startswith("head."):
                continue
            block = re.match(r"features\.([1357])\.(\d+)\.", renamed)
            if block and not any(key.startswith(block[0]) for key in own):
                continue
            found[renamed] = value
            if block and block[1] != "7":
                mirrored = f"decoder.{2 - int(block[1]) // 2}.blocks.{block[2]}.{renamed[block.end() :]}"
                found[mirrored] = value
        return found | {name: value for name, value in own.items() if name.endswith("relative_position_index")}

    def reset_classes(self) -> None:
        """Start the class layer anew."""
        self.head.reset_parameters()


def build_swin_unet(config: SwinUnetConfig, *, num_classes: int, channels: int, statistics: Statistics) -> Segmenter:
    """A segmenter from a recipe's section.

    Args:
        config: the section.
        num_classes: the background is one of them.
        channels: of the images.
        statistics: of the input's channels.

    Raises:
        ConfigError: as `SwinUnet` and `SemanticLoss`.
    """
    net = SwinUnet(
        num_classes,
        channels=channels,
        width=config.width,
        depths=config.depths,
        heads=config.heads,
        window=config.window,
        patch=config.patch,
        drop_path=config.drop_path,
    )
    return Segmenter(net, statistics=statistics, loss=SemanticLoss(num_classes, **config.loss.model_dump()))
