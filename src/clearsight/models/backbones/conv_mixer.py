"""ConvMixer: patches, then depthwise and pointwise convolutions at one resolution; timm's names and numbers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

from torch import Tensor, nn

from clearsight.models.backbones.checks import check_images
from clearsight.models.backbones.isotropic import (
    isotropic_pyramid,
    isotropic_strides,
    nearest_level,
    pad_to_multiple,
    quarter_patch,
)
from clearsight.nn.activation import activation as make_activation
from clearsight.nn.conv_mixer import ConvMixerBlock
from clearsight.nn.norm import norm as make_norm

__all__ = ["CONV_MIXERS", "ConvMixer"]


class ConvMixer(nn.Module):
    """ConvMixer without its classifier.

    Method: Trockman and Kolter 2022, Patches Are All You Need?, arXiv:2201.09792, section 2, as timm has it. A side
    that is no multiple of the patch is filled up with zeros in `features`, and cut in `embed` as the published
    network's first convolution does. The pyramid is made of the last block's output, without
    parameters (`isotropic_pyramid`).

    Shape: images `(n, channels, h, w)` → levels to `c5`. Of patches of 7 and 14 `c3` … `c5` with strides 7, 14, 28:
    there is no `c2`. Of `small_input` `c2` … `c5` with strides 1, 2, 4, 8.

    Attributes:
        in_channels: of the images.
        channels: by level, all `width`.
        strides: by level, pixels of the input between neighbours.
        embedding: `width`.

    Args:
        width: channels.
        depth: blocks.
        kernel: of the depthwise convolutions, odd.
        patch: side of a patch.
        activation: a name of `nn.activation`.
        norm: a name of `nn.norm`; None for batch norm.
        channels: of the input.
        small_input: patches of a quarter of the side, rounded (4 of 14, 2 of 7), for images of 28 to 64 pixels.

    Raises:
        ConfigError: the kernel is even, a patch below 1, or a name unknown.
    """

    def __init__(
        self,
        width: int,
        depth: int,
        *,
        kernel: int = 9,
        patch: int = 7,
        activation: str = "gelu",
        norm: str | None = None,
        channels: int = 3,
        small_input: bool = False,
    ) -> None:
        super().__init__()
        norm = norm or "batch"
        self.in_channels, self.embedding, self.level = channels, width, nearest_level(patch)
        self.patch = quarter_patch(patch, small_input=small_input)
        self.strides = isotropic_strides(self.patch, self.level)
        self.channels = dict.fromkeys(self.strides, width)
        patches = nn.Conv2d(channels, width, self.patch, self.patch)
        self.stem = nn.Sequential(patches, make_activation(activation), make_norm(norm, width))
        self.blocks = nn.Sequential(
            *[ConvMixerBlock(width, kernel, norm=norm, activation=activation) for _ in range(depth)]
        )

    def features(self, images: Tensor) -> dict[str, Tensor]:
        """The pyramid.

        Args:
            images: `(n, channels, h, w)` float, normalised.

        Returns:
            Levels to `c5`, each `(n, width, ceil(h / strides[level]), ceil(w / strides[level]))`.

        Raises:
            ShapeError: the images have other channels, or are smaller than the largest stride.
        """
        check_images(images, self)
        x = self.blocks(self.stem(pad_to_multiple(images, self.patch)))
        return isotropic_pyramid(x, images, self.strides, self.level)

    def forward(self, images: Tensor) -> Tensor:
        """The last level, `c5`."""
        return self.features(images)["c5"]

    def embed(self, images: Tensor) -> Tensor:
        """The mean of the last block's output over the image, `(n, embedding)`.

        Raises:
            ShapeError: as for `features`.
        """
        check_images(images, self)
        return self.blocks(self.stem(images)).mean(dim=(2, 3))

    def adapt_weights(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Names of timm, which are ours, the last layer's too."""
        return dict(state)


CONV_MIXERS: dict[str, Callable[..., ConvMixer]] = {
    "convmixer_768_32": partial(ConvMixer, 768, 32, kernel=7, activation="relu"),
    "convmixer_1024_20_ks9_p14": partial(ConvMixer, 1024, 20, patch=14),
    "convmixer_1536_20": partial(ConvMixer, 1536, 20),
}
