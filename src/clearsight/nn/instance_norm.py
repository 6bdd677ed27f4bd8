"""Instance normalisation: each channel of each image by itself."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clearsight.errors import ShapeError
from clearsight.nn.checks import check_rank

__all__ = ["InstanceNorm"]


class InstanceNorm(nn.Module):
    """Normalise every channel of every image over its places; the affine step is optional.

    Group norm with c groups, which unlike `nn.InstanceNorm2d` keeps the order of memory.

    Method: Ulyanov et al. 2016, arXiv:1607.08022, equation 4.

    Shape: x `(n, c, h, w)`, or with one or three axes behind c → the same.

    Args:
        channels: c.
        eps: added to the variance.
        affine: whether each channel has a learned scale and shift.
    """

    def __init__(self, channels: int, *, eps: float = 1e-5, affine: bool = False) -> None:
        super().__init__()
        self.channels, self.eps = channels, eps
        self.weight = nn.Parameter(torch.ones(channels)) if affine else None
        self.bias = nn.Parameter(torch.zeros(channels)) if affine else None

    def forward(self, x: Tensor) -> Tensor:
        """Normalise.

        Raises:
            ShapeError: one place, whose value would become 0.
        """
        check_rank(x, "InstanceNorm: x", "n c w", "n c h w", "n c d h w")
        if not torch.compiler.is_compiling() and len(x) and x[0, :1].numel() == 1:
            raise ShapeError(f"InstanceNorm: x: expected more than one value per channel, got {tuple(x.shape)}")
        return F.group_norm(x, self.channels, self.weight, self.bias, self.eps)

    def extra_repr(self) -> str:
        """Channels, eps and whether there is an affine step, for `print(model)`."""
        return f"{self.channels}, eps={self.eps}, affine={self.weight is not None}"
