"""Depth of every pixel from one image, on any net that segments."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from clearsight.errors import RangeError, ShapeError
from clearsight.losses.depth import scale_invariant_loss
from clearsight.models.segment.pixel_model import PixelModel, PixelNet
from clearsight.nn.precision import at_least_float32

if TYPE_CHECKING:
    from clearsight.data.normalisation import Statistics

__all__ = ["DepthNet"]

_FARTHEST = 80.0  # of |log depth|: e^80 and e^-80 are still ordinary float32 numbers


class DepthNet(PixelModel):
    """A net of one output channel, taken as the logarithm of depth, with its input's statistics and its loss.

    Method: Eigen et al. 2014, arXiv:1406.2283, section 3.2: dense regression of log-depth with a scale-invariant loss;
    the net is a U-Net, a semantic FPN, … in place of the paper's two stacks.

    Shape: images `(n, c, h, w)` → depths `(n, 1, h, w)`, above 0, in the unit of the depths it was trained on.

    Args:
        net: see `PixelNet`; with one output channel.
        statistics: of the input's channels.
        lam: λ of `losses.depth.scale_invariant_loss`: 1 leaves an image's scale free, 0 holds it as fast as all else.

    Raises:
        RangeError: λ is outside [0, 1].
    """

    def __init__(self, net: PixelNet, *, statistics: Statistics, lam: float = 0.5) -> None:
        super().__init__(net, statistics=statistics)
        if not 0 <= lam <= 1:
            raise RangeError(f"lam: must be in [0, 1], got {lam}")
        self.lam = lam

    def log_depth(self, images: Tensor) -> Tensor:
        """Natural logarithms of depth, `(n, 1, h, w)`, in float32 at least.

        Args:
            images: `(n, c, h, w)` uint8, uint16, or float in [0, 1].

        Raises:
            ShapeError: the net gives other than one channel.
        """
        found = self.net(self.input_norm(images))
        if found.shape[1] != 1:
            raise ShapeError(f"DepthNet: the net gives {found.shape[1]} channels, expected one; make it with one class")
        return at_least_float32(found)

    def forward(self, images: Tensor) -> Tensor:
        """Depth of every pixel, between e⁻⁸⁰ and e⁸⁰.

        Args:
            images: as for `log_depth`.
        """
        return self.log_depth(images).clamp(-_FARTHEST, _FARTHEST).exp()

    def loss(self, images: Tensor, depth: Tensor) -> dict[str, Tensor]:
        """The scale-invariant loss; 0 in an image without any known depth.

        Args:
            images: as for `log_depth`.
            depth: `(n, 1, h, w)` or `(n, h, w)`; pixels of 0, below 0, NaN or inf do not count.

        Raises:
            ShapeError: the depths have another size than the images.
        """
        truth = depth[:, None] if depth.ndim == 3 else depth
        return {"scale_invariant": scale_invariant_loss(self.log_depth(images), truth, lam=self.lam)}

    @torch.no_grad()
    def predict(self, images: Tensor, sizes: Tensor) -> list[Tensor]:
        """Depths of the valid part of each image, `(h, w)`.

        Args:
            images: as for `log_depth`.
            sizes: `(n, 2)` `(height, width)` of the valid part of each image.
        """
        return [each[0, :height, :width] for each, (height, width) in zip(self(images), sizes.tolist(), strict=True)]
