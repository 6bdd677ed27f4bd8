"""A row of layers that gives a pyramid, for networks whose published names start with `features.`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from torch import Tensor, nn

from clearsight.models.backbones.checks import check_images

__all__ = ["Pyramid"]


class Pyramid(nn.Sequential):
    """Layers in a row; a call gives the outputs of those that end a level, and leaves out what stands behind the last.

    Shape: images `(n, in_channels, h, w)` → one map a level.

    Args:
        layers: in their order.
        ends: by level, the index of the layer that ends it.
        in_channels: of the images.
        strides: by level.
    """

    def __init__(
        self, layers: Iterable[nn.Module], *, ends: Mapping[str, int], in_channels: int, strides: dict[str, int]
    ) -> None:
        super().__init__(*layers)
        self.ends = {index: level for level, index in ends.items()}
        self.in_channels = in_channels
        self.strides = strides

    def forward(self, images: Tensor) -> dict[str, Tensor]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """The levels."""
        check_images(images, self)
        x = images
        levels: dict[str, Tensor] = {}
        for index, layer in enumerate(self):
            x = layer(x)
            if index in self.ends:
                levels[self.ends[index]] = x
                if len(levels) == len(self.ends):
                    break
        return levels
