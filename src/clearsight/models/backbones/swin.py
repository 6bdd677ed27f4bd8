"""Swin: a pyramid of transformers whose attention stays in windows; torchvision's names, weights of timm as well."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial

from torch import Tensor, nn

from clearsight.errors import ConfigError
from clearsight.models.backbones.checks import check_images
from clearsight.models.backbones.isotropic import pad_to_multiple, whole_patches
from clearsight.nn.transformer import WindowBlock
from clearsight.nn.upsample import PatchMerging
from clearsight.nn.window_attention import WindowAttention

__all__ = ["SWINS", "SwinFeatures", "SwinTransformer"]

LEVELS = ("c2", "c3", "c4", "c5")

# From timm's names to torchvision's; stages and mergings take turns in one row there.
RENAMED = (
    (r"^patch_embed\.proj\.", "features.0.0."),
    (r"^patch_embed\.norm\.", "features.0.2."),
    (r"\.mlp\.fc1\.", ".mlp.0."),
    (r"\.mlp\.fc2\.", ".mlp.3."),
    (r"^head\.fc\.", "head."),
)


class SwinFeatures(nn.Sequential):
    """Patches, then stages of blocks with a merging between each two; named as torchvision's `features`.

    Shape: images `(n, channels, h, w)` → `c2` … `c5`, `(n, c, ceil(h / stride), ceil(w / stride))` each: the stages'
    outputs as they are, without a norm, in channels-last order of memory.

    Args:
        width: channels of the first stage; each next one has twice as many.
        depths: blocks of the four stages.
        heads: of the four stages; must divide their channels.
        window: side of a window.
        patch: side of a patch.
        channels: of the images.
        drop_path: share of samples whose branches are left out in training, in the last block; rises from 0.

    Raises:
        ConfigError: there are not four stages, or the heads do not divide the channels.
    """

    def __init__(
        self,
        width: int,
        depths: Sequence[int],
        heads: Sequence[int],
        *,
        window: int,
        patch: int,
        channels: int,
        drop_path: float,
    ) -> None:
        if len(depths) != len(LEVELS) or len(heads) != len(LEVELS):
            raise ConfigError(f"Swin: it has four stages, got depths {tuple(depths)} and heads {tuple(heads)}")
        super().__init__(nn.Sequential(nn.Conv2d(channels, width, patch, patch), _ChannelsLast(), nn.LayerNorm(width)))
        self.in_channels, self.patch = channels, patch
        self.channels = {level: width * 2**i for i, level in enumerate(LEVELS)}
        self.strides = {level: patch * 2**i for i, level in enumerate(LEVELS)}
        number = 0
        for stage, wide in enumerate(self.channels.values()):
            if stage:
                self.append(PatchMerging(wide // 2))
            self.append(nn.Sequential())
            for i in range(depths[stage]):
                attention = WindowAttention(wide, heads[stage], window, shift=window // 2 if i % 2 else 0)
                drop = drop_path * number / max(sum(depths) - 1, 1)
                self[-1].append(WindowBlock(wide, attention, drop_path=drop))  # pyright: ignore[reportCallIssue]
                number += 1

    def forward(self, images: Tensor) -> dict[str, Tensor]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """The pyramid.

        Args:
            images: `(n, channels, h, w)` float, normalised.

        Raises:
            ShapeError: the images have other channels, or are smaller than the largest stride.
        """
        check_images(images, self)
        found: dict[str, Tensor] = {}
        x = pad_to_multiple(images, self.patch)
        for number, layer in enumerate(self):
            x = layer(x)
            if number % 2:
                found[LEVELS[number // 2]] = x.permute(0, 3, 1, 2)  # n h w c → n c h w
        return found


class _ChannelsLast(nn.Module):
    """`(n, c, h, w)` → `(n, h, w, c)`."""

    def forward(self, x: Tensor) -> Tensor:
        return x.permute(0, 2, 3, 1)


class SwinTransformer(nn.Module):
    """Swin transformer without its classifier.

    Method: Liu et al. 2021, arXiv:2103.14030, section 3.1 and the variants of section 3.3, as torchvision has it.
    Images of any size are taken: a side that is no multiple of the patch is filled up with zeros in `features`, and cut
    in `embed` as the published network's first convolution does.

    Shape: images `(n, channels, h, w)` → `c2` … `c5`, strides 4, 8, 16, 32; of `small_input` 1, 2, 4, 8.

    Attributes:
        in_channels: of the images.
        channels: by level, `c2` to `c5`.
        strides: by level, pixels of the input between neighbours.
        embedding: length of `embed`'s vector.

    Args:
        width: channels of the first stage; each next one has twice as many.
        depths: blocks of the four stages.
        heads: of the four stages; must divide their channels.
        window: side of a window.
        norm: must be None: the norms are layer norms.
        channels: of the input.
        small_input: patches of one pixel, for images of 28 to 64 pixels.
        drop_path: share of samples whose branches are left out in training, in the last block; rises from 0 in the
            first (Huang et al. 2016, arXiv:1603.09382, equation 4). The paper trains with 0.2, 0.3 and 0.5.

    Raises:
        ConfigError: a norm is given, there are not four stages, or the heads do not divide the channels.
        RangeError: the share is out of range.
    """

    def __init__(
        self,
        width: int,
        depths: Sequence[int],
        heads: Sequence[int],
        *,
        window: int = 7,
        norm: str | None = None,
        channels: int = 3,
        small_input: bool = False,
        drop_path: float = 0.0,
    ) -> None:
        super().__init__()
        if norm is not None:
            raise ConfigError(f"Swin: its norms are layer norms; leave `norm` out (found {norm!r})")
        self.features = SwinFeatures(
            width,
            depths,
            heads,
            window=window,
            patch=1 if small_input else 4,
            channels=channels,
            drop_path=drop_path,
        )
        self.in_channels = channels
        self.channels, self.strides = self.features.channels, self.features.strides
        self.embedding = self.channels["c5"]
        self.norm = nn.LayerNorm(self.embedding)
        for layer in self.modules():
            if isinstance(layer, nn.Linear):
                nn.init.trunc_normal_(layer.weight, std=0.02)
                if layer.bias is not None:
                    nn.init.zeros_(layer.bias)

    def forward(self, images: Tensor) -> Tensor:
        """The last level, `c5`."""
        return self.features(images)["c5"]

    def embed(self, images: Tensor) -> Tensor:
        """The mean of the normed `c5` over the image, `(n, embedding)`.

        Raises:
            ShapeError: as for `features`.
        """
        check_images(images, self)
        deepest = self.features(whole_patches(images, self.features.patch))["c5"]
        return self.norm(deepest.permute(0, 2, 3, 1)).mean((1, 2))

    def adapt_weights(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Names of torchvision or timm under ours, which are torchvision's.

        The index of offsets, which files of timm lack, is this network's own then.
        """
        if "patch_embed.proj.weight" not in state:
            return dict(state)
        found: dict[str, Tensor] = {}
        for name, value in state.items():
            if name.endswith(("relative_position_index", "attn_mask")):
                continue
            renamed = re.sub(r"^layers\.(\d)\.blocks\.", lambda at: f"features.{2 * int(at[1]) + 1}.", name)
            renamed = re.sub(r"^layers\.(\d)\.downsample\.", lambda at: f"features.{2 * int(at[1])}.", renamed)
            for pattern, target in RENAMED:
                renamed = re.sub(pattern, target, renamed)
            found[renamed] = value
        return found | {name: value for name, value in self.named_buffers() if name.endswith("relative_position_index")}


SWINS: dict[str, Callable[..., SwinTransformer]] = {
    "swin_t": partial(SwinTransformer, 96, (2, 2, 6, 2), (3, 6, 12, 24)),
    "swin_s": partial(SwinTransformer, 96, (2, 2, 18, 2), (3, 6, 12, 24)),
    "swin_b": partial(SwinTransformer, 128, (2, 2, 18, 2), (4, 8, 16, 32)),
}
