"""Layer normalisation over the channels of each pixel."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from clearsight.nn.checks import check_rank

__all__ = ["LayerNorm2d"]


class LayerNorm2d(nn.LayerNorm):
    """Layer norm over c at each place of an image, as ConvNeXt has it; parameters are named as in timm.

    Not what the group norm paper calls layer norm, which is over c, h and w (`GroupNorm` with one group).

    Method: Ba et al. 2016, arXiv:1607.06450, equations 3 and 4; Liu et al. 2022 (ConvNeXt), arXiv:2201.03545.

    Shape: x `(n, c, h, w)` → the same, in channels-last order of memory, in which it is computed.

    Args:
        channels: c.
        eps: added to the variance.
        affine: whether each channel has a learned scale and shift.
    """

    def __init__(self, channels: int, *, eps: float = 1e-6, affine: bool = True) -> None:
        super().__init__(channels, eps=eps, elementwise_affine=affine)

    def forward(self, x: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Normalise each pixel."""
        check_rank(x, "LayerNorm2d: x", "n c h w")
        rows = x.permute(0, 2, 3, 1)  # n h w c
        return F.layer_norm(rows, self.normalized_shape, self.weight, self.bias, self.eps).permute(0, 3, 1, 2)
