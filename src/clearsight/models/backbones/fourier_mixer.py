"""A transformer over patches in which a Fourier transform stands in for attention."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

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
from clearsight.models.backbones.vit import Encoder, patch_conv, patch_grid
from clearsight.nn.fourier import FourierMixing
from clearsight.nn.transformer import Mlp, TransformerBlock

__all__ = ["FOURIER_MIXERS", "FourierMixer"]


class FourierMixer(nn.Module):
    """ViT with `FourierMixing` in place of self-attention: tokens are mixed in l log l time and without weights.

    Method: Lee-Thorp et al. 2022 (FNet), arXiv:2105.03824, section 3.2, over the patches of Dosovitskiy et al. 2021
    (ViT), arXiv:2010.11929. FNet is for text; ours differs in that the norms come before the branches, as in ViT, and
    the transform is divided by the root of its size, for no norm follows the sum; and that there is no class token: the
    mean of all tokens after the last norm is classified.

    Images of any size are taken: sides that are no multiple of the patch are filled up with zeros, and positions
    resized. The pyramid is made of the tokens after the last norm, without parameters (`isotropic_pyramid`).

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
        patch: side of a patch.
        norm: must be None: the norms are layer norms.
        channels: of the input.
        small_input: patches of a quarter of the side, for images of 28 to 64 pixels.
        image_size: side, or height and width, of the images that positions are learned for; None for 224, and 56 of
            `small_input`, which is the same grid.
        dropout: share that is dropped while training, of positions, of the transform and in the MLPs.
        drop_path: share of samples whose branches are left out in training, in the last block; rises from 0 in the
            first (Huang et al. 2016, arXiv:1603.09382, equation 4).

    Raises:
        ConfigError: a norm is given, or the patch does not divide the image size.
        RangeError: a share is out of range.
    """

    def __init__(  # noqa: PLR0913 - each is an option of the network
        self,
        width: int,
        depth: int,
        *,
        patch: int = 16,
        norm: str | None = None,
        channels: int = 3,
        small_input: bool = False,
        image_size: int | tuple[int, int] | None = None,
        dropout: float = 0.0,
        drop_path: float = 0.0,
    ) -> None:
        super().__init__()
        if norm is not None:
            raise ConfigError(f"Fourier mixer: its norms are layer norms; leave `norm` out (found {norm!r})")
        self.in_channels, self.embedding, self.level = channels, width, nearest_level(patch)
        self.patch = quarter_patch(patch, small_input=small_input)
        self.strides = isotropic_strides(self.patch, self.level)
        self.channels = dict.fromkeys(self.strides, width)
        grid = patch_grid(image_size, patch, self.patch)
        self.conv_proj = patch_conv(channels, width, self.patch)
        blocks = [
            TransformerBlock(
                width,
                FourierMixing(ortho=True),
                Mlp(width, dropout=dropout),
                dropout=dropout,
                drop_path=drop_path * i / max(depth - 1, 1),
            )
            for i in range(depth)
        ]
        self.encoder = Encoder(grid, blocks, width, dropout=dropout)

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
        return isotropic_pyramid(tokens.transpose(1, 2).unflatten(2, size), images, self.strides, self.level)

    def forward(self, images: Tensor) -> Tensor:
        """The last level, `c5`."""
        return self.features(images)["c5"]

    def embed(self, images: Tensor) -> Tensor:
        """The mean of the tokens after the last norm, `(n, embedding)`.

        Raises:
            ShapeError: as for `features`.
        """
        return self._encoded(images)[0].mean(1)

    def _encoded(self, images: Tensor) -> tuple[Tensor, tuple[int, int]]:
        """Tokens after the last norm, and rows and columns of the patches."""
        check_images(images, self)
        patches = self.conv_proj(pad_to_multiple(images, self.patch))
        size = (patches.shape[2], patches.shape[3])
        return self.encoder.ln(self.encoder(patches.flatten(2).transpose(1, 2), size)), size

    def adapt_weights(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Own names: no weights are published. Positions of another square grid are resized to this one."""
        place = "encoder.pos_embedding"
        return {name: self.encoder.adapted(x) if name == place else x for name, x in state.items()}


FOURIER_MIXERS: dict[str, Callable[..., FourierMixer]] = {
    "fnet_ti_16": partial(FourierMixer, 192, 12),
    "fnet_s_16": partial(FourierMixer, 384, 12),
    "fnet_b_16": partial(FourierMixer, 768, 12),
}
