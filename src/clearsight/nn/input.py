"""From pixels as they travel (uint8, uint16) to what a network wants, on the device."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from clearsight.errors import ShapeError

if TYPE_CHECKING:
    from clearsight.data.normalisation import Statistics

__all__ = ["InputNorm"]


class InputNorm(nn.Module):
    """Scale pixels to [0, 1], subtract the mean and divide by the deviation of each channel.

    Integer images are divided by the statistics' `scale` first; floating-point images are taken to be in [0, 1].
    The statistics are buffers, so that weights carry them. Memory format is kept.

    Shape: images `(n, c, h, w)` uint8, uint16 or float → `(n, c, h, w)` float32 (float64 stays float64).

    Args:
        statistics: `mean` and `std` (one a channel, in units of the scaled pixels) and `scale`.

    Raises:
        ShapeError: the images' channels are not those of the statistics.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, statistics: Statistics) -> None:
        super().__init__()
        self.scale = float(statistics.scale)
        self.register_buffer("mean", torch.tensor(statistics.mean, dtype=torch.float32))
        self.register_buffer("std", torch.tensor(statistics.std, dtype=torch.float32))

    def forward(self, images: Tensor) -> Tensor:
        """Normalise."""
        if images.shape[1] != len(self.mean):
            raise ShapeError(
                f"images: expected (n, {len(self.mean)}, h, w), got {tuple(images.shape)}; "
                "set data.channels to the number of channels of the images"
            )
        scale = 1.0 if images.is_floating_point() else self.scale
        x = images if images.dtype == torch.float64 else images.float()
        # one multiplication and one addition a pixel instead of two divisions and a subtraction
        factor = 1 / (self.std.to(x.dtype) * scale)
        shift = -self.mean.to(x.dtype) / self.std.to(x.dtype)
        return torch.addcmul(shift.view(1, -1, 1, 1), x, factor.view(1, -1, 1, 1))

    def extra_repr(self) -> str:
        """Channels and scale, for `print(model)`."""
        return f"{len(self.mean)}, scale={self.scale:g}"
