"""ViT: an image is a row of patches to a transformer; torchvision's names, weights of timm as well."""

from __future__ import annotations

import math
import re
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import torch
from torch import Tensor, nn

from clearsight.errors import ConfigError
from clearsight.models.backbones.checks import check_images
from clearsight.models.backbones.isotropic import (
    isotropic_pyramid,
    isotropic_strides,
    nearest_level,
    pad_to_multiple,
    quarter_patch,
)
from clearsight.models.backbones.positions import PositionResize
from clearsight.models.backbones.published import rename_head
from clearsight.nn.attention import SelfAttention
from clearsight.nn.dropout import dropout as make_dropout
from clearsight.nn.transformer import Mlp, TransformerBlock

__all__ = ["VITS", "Encoder", "VisionTransformer", "patch_conv", "patch_grid"]

# From the names of timm, and of torchvision's files, to those of torchvision's network; in this order.
RENAMED = (
    (r"^cls_token$", "class_token"),
    (r"^pos_embed$", "encoder.pos_embedding"),
    (r"^patch_embed\.proj\.", "conv_proj."),
    (r"^norm\.", "encoder.ln."),
    (r"^blocks\.(\d+)\.", r"encoder.layers.encoder_layer_\1."),
    (r"(encoder_layer_\d+)\.norm([12])\.", r"\1.ln_\2."),
    (r"\.attn\.qkv\.", ".self_attention.in_proj_"),
    (r"\.attn\.proj\.", ".self_attention.out_proj."),
    (r"\.mlp\.(?:fc1|linear_1)\.", ".mlp.0."),
    (r"\.mlp\.(?:fc2|linear_2)\.", ".mlp.3."),
)


class Encoder(nn.Module):
    """Blocks over tokens that know their places.

    Positions are learned for one grid and resized to that of the image (`PositionResize`); other tokens come before the
    grid's, and theirs stay as they are. Parameters are named as in torchvision's ViT.

    Shape: tokens `(n, prefix + rows · columns, width)` → the same.

    Args:
        grid: rows and columns that positions are learned for.
        blocks: map `(n, l, width)` to the same.
        width: channels of a token.
        prefix: tokens that lie on no grid.
        dropout: share of the tokens' channels that is dropped before the blocks while training.
    """

    def __init__(
        self,
        grid: tuple[int, int],
        blocks: Sequence[nn.Module],
        width: int,
        *,
        prefix: int = 0,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.prefix, self.resize = prefix, PositionResize(grid)
        self.pos_embedding = nn.Parameter(torch.empty(1, prefix + grid[0] * grid[1], width).normal_(std=0.02))
        self.dropout = make_dropout("dropout", dropout)
        self.layers = nn.Sequential(OrderedDict((f"encoder_layer_{i}", block) for i, block in enumerate(blocks)))
        self.ln = nn.LayerNorm(width, eps=1e-6)

    def forward(self, tokens: Tensor, size: tuple[int, int]) -> Tensor:
        """The tokens after all blocks, before the norm `ln`: which of them it is wanted of is for the caller to say.

        Args:
            tokens: `(n, prefix + size[0] · size[1], width)`.
            size: rows and columns of the grid.
        """
        positions = self.pos_embedding
        ahead, placed = positions[:, : self.prefix], positions[:, self.prefix :]
        resized = self.resize(placed, size)
        if resized is not placed:
            positions = torch.cat((ahead, resized), 1)
        return self.layers(self.dropout(tokens + positions))

    def adapted(self, positions: Tensor) -> Tensor:
        """Published positions on this grid: resized where they were learned for another square one."""
        side = math.isqrt(max(positions.shape[1] - self.prefix, 0))
        if positions.shape[1:] == self.pos_embedding.shape[1:] or side**2 != positions.shape[1] - self.prefix:
            return positions
        placed = PositionResize((side, side))(positions[:, self.prefix :], self.resize.grid)
        return torch.cat((positions[:, : self.prefix], placed), 1)


class VisionTransformer(nn.Module):
    """Vision transformer without its classifier.

    Method: Dosovitskiy et al. 2021, arXiv:2010.11929, section 3.1 and table 1; the tiny and small forms from Touvron et
    al. 2021 (DeiT), arXiv:2012.12877, table 1, without its distillation token. Images of any size are taken: sides that
    are no multiple of the patch are filled up with zeros, and positions resized. The pyramid is made of the patches'
    tokens after the last norm, without parameters (`isotropic_pyramid`).

    Shape: images `(n, channels, h, w)` → `c2` … `c5`, of strides 4, 8, 16 and 32 where the patch is one of these; of
    `small_input` 1, 2, 4, 8.

    Attributes:
        in_channels: of the images.
        channels: by level, all `width`.
        strides: by level, pixels of the input between neighbours.
        embedding: `width`.

    Args:
        width: channels of a token.
        depth: blocks.
        heads: of the attention; must divide the width.
        patch: side of a patch.
        norm: must be None: the norms are layer norms.
        channels: of the input.
        small_input: patches of a quarter of the side, for images of 28 to 64 pixels.
        image_size: side, or height and width, of the images that positions are learned for; None for 224, and 56 of
            `small_input`, which is the same grid.
        dropout: share that is dropped while training, of positions, of attention's output and in the MLPs.
        attention_dropout: share of the attention weights that is dropped while training.
        drop_path: share of samples whose branches are left out in training, in the last block; rises from 0 in the
            first (Huang et al. 2016, arXiv:1603.09382, equation 4).

    Raises:
        ConfigError: a norm is given, the heads do not divide the width, or the patch not the image size.
        RangeError: a share is out of range.
    """

    def __init__(  # noqa: PLR0913 - each is an option of the network
        self,
        width: int,
        depth: int,
        heads: int,
        *,
        patch: int = 16,
        norm: str | None = None,
        channels: int = 3,
        small_input: bool = False,
        image_size: int | tuple[int, int] | None = None,
        dropout: float = 0.0,
        attention_dropout: float = 0.0,
        drop_path: float = 0.0,
    ) -> None:
        super().__init__()
        if norm is not None:
            raise ConfigError(f"ViT: its norms are layer norms; leave `norm` out (found {norm!r})")
        self.in_channels, self.embedding, self.level = channels, width, nearest_level(patch)
        self.patch = quarter_patch(patch, small_input=small_input)
        self.strides = isotropic_strides(self.patch, self.level)
        self.channels = dict.fromkeys(self.strides, width)
        grid = patch_grid(image_size, patch, self.patch)
        self.class_token = nn.Parameter(torch.zeros(1, 1, width))
        self.conv_proj = patch_conv(channels, width, self.patch)
        blocks = [
            TransformerBlock(
                width,
                SelfAttention(width, heads, dropout=attention_dropout),
                Mlp(width, dropout=dropout),
                dropout=dropout,
                drop_path=drop_path * i / max(depth - 1, 1),
            )
            for i in range(depth)
        ]
        self.encoder = Encoder(grid, blocks, width, prefix=1, dropout=dropout)

    def features(self, images: Tensor) -> dict[str, Tensor]:
        """The pyramid.

        Args:
            images: `(n, channels, h, w)` float, normalised.

        Returns:
            `c2` to `c5`, each `(n, width, ceil(h / strides[level]), ceil(w / strides[level]))`.

        Raises:
            ShapeError: the images have other channels, or are smaller than the largest stride.
        """
        tokens, size = self._encoded(images)
        placed = self.encoder.ln(tokens[:, 1:]).transpose(1, 2).unflatten(2, size)
        return isotropic_pyramid(placed, images, self.strides, self.level)

    def forward(self, images: Tensor) -> Tensor:
        """The last level, `c5`."""
        return self.features(images)["c5"]

    def embed(self, images: Tensor) -> Tensor:
        """The class token after the last norm, `(n, embedding)`.

        Raises:
            ShapeError: as for `features`.
        """
        return self.encoder.ln(self._encoded(images)[0][:, 0])

    def _encoded(self, images: Tensor) -> tuple[Tensor, tuple[int, int]]:
        """Tokens after the blocks, and rows and columns of the patches."""
        check_images(images, self)
        patches = self.conv_proj(pad_to_multiple(images, self.patch))
        size = (patches.shape[2], patches.shape[3])
        tokens = torch.cat((self.class_token.expand(images.shape[0], -1, -1), patches.flatten(2).transpose(1, 2)), 1)
        return self.encoder(tokens, size), size

    def adapt_weights(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Names of torchvision or timm under ours, which are torchvision's but for the last layer, `head`.

        Positions that were learned for another square grid are resized to this one.
        """
        found: dict[str, Tensor] = {}
        for name, value in rename_head(state, "heads.head").items():
            renamed = name
            for pattern, target in RENAMED:
                renamed = re.sub(pattern, target, renamed)
            found[renamed] = self.encoder.adapted(value) if renamed == "encoder.pos_embedding" else value
        return found


def patch_conv(channels: int, width: int, patch: int) -> nn.Conv2d:
    """The matrix that makes a token of a patch, initialised as in torchvision.

    Args:
        channels: of the images.
        width: channels of a token.
        patch: side of a patch.
    """
    convolution = nn.Conv2d(channels, width, patch, patch)
    nn.init.trunc_normal_(convolution.weight, std=(channels * patch**2) ** -0.5)
    nn.init.zeros_(convolution.bias)  # pyright: ignore[reportArgumentType]
    return convolution


def patch_grid(image_size: int | tuple[int, int] | None, published: int, patch: int) -> tuple[int, int]:
    """Rows and columns of patches that positions are learned for.

    Args:
        image_size: side of the images, or height and width; None for 224 in patches of the published side.
        published: that side.
        patch: the side that the network has.

    Raises:
        ConfigError: the patch does not divide the size.
    """
    if image_size is None:
        return (224 // published, 224 // published)
    height, width = (image_size, image_size) if isinstance(image_size, int) else image_size
    if height < 1 or width < 1 or height % patch or width % patch:
        raise ConfigError(f"image_size: must be a multiple of the patch, {patch} pixels, got {height}×{width}")
    return height // patch, width // patch


VITS: dict[str, Callable[..., VisionTransformer]] = {
    "vit_ti_16": partial(VisionTransformer, 192, 12, 3),
    "vit_s_16": partial(VisionTransformer, 384, 12, 6),
    "vit_b_16": partial(VisionTransformer, 768, 12, 12),
    "vit_b_32": partial(VisionTransformer, 768, 12, 12, patch=32),
    "vit_l_16": partial(VisionTransformer, 1024, 24, 16),
}
