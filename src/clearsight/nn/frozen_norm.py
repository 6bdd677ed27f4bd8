"""Batch normalisation that never changes."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from clearsight.nn.checks import check_rank

__all__ = ["FrozenBatchNorm"]


class FrozenBatchNorm(nn.Module):
    """Batch normalisation whose statistics and affine terms never change: y = (x - mean) / sqrt(var + eps) * w + b.

    All four are buffers, named as in `nn.BatchNorm2d`, so that trained weights load; `.train()` has no effect.

    Shape: x `(n, c, h, w)`, or with one or three axes behind c → the same.

    Args:
        channels: c.
        eps: added to the variance.
    """

    weight: Tensor
    bias: Tensor
    running_mean: Tensor
    running_var: Tensor

    def __init__(self, channels: int, *, eps: float = 1e-5) -> None:
        super().__init__()
        self.eps = eps
        self.register_buffer("weight", torch.ones(channels))
        self.register_buffer("bias", torch.zeros(channels))
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))
        self.register_load_state_dict_pre_hook(_drop_counter)

    def forward(self, x: Tensor) -> Tensor:
        """Scale and shift each channel."""
        check_rank(x, "FrozenBatchNorm: x", "n c w", "n c h w", "n c d h w")
        scale = self.weight * (self.running_var + self.eps).rsqrt()
        shift = self.bias - self.running_mean * scale
        channels = (1, -1, *[1] * (x.ndim - 2))
        return x * scale.to(x.dtype).view(channels) + shift.to(x.dtype).view(channels)

    def extra_repr(self) -> str:
        """Channels and eps, for `print(model)`."""
        return f"{len(self.weight)}, eps={self.eps}"


def _drop_counter(_: nn.Module, state_dict: dict[str, Tensor], prefix: str, *__: object) -> None:
    state_dict.pop(prefix + "num_batches_tracked", None)  # BatchNorm2d's counter; nothing is counted here
