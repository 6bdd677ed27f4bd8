"""Dual attention over a feature map: among its positions, and among its channels."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from clearsight.nn.attention import attend
from clearsight.nn.checks import check_divides, check_rank

__all__ = ["ChannelAttention", "PositionAttention"]


class PositionAttention(nn.Module):
    """Each position of a map takes in what it finds at all others: `γ · attention(x) + x`, with γ = 0 at first.

    Scores are plain products of queries and keys, unscaled. Method: Fu et al. 2019 (DANet), arXiv:1809.02983, section
    3.2, equations 1 and 2; parameters are named as in the authors' code. The caller adds the output to that of
    `ChannelAttention` (section 3.4).

    Shape: x `(n, channels, h, w)` → the same. Time grows with `(h w)²`, and memory where PyTorch has no kernel for
    keys and values of different widths (CPUs).

    Args:
        channels: of the map, and of the values.
        reduction: queries and keys have `channels / reduction` channels.

    Raises:
        ConfigError: the reduction does not divide the channels.
    """

    def __init__(self, channels: int, *, reduction: int = 8) -> None:
        super().__init__()
        check_divides(channels, reduction, "PositionAttention: reduction")
        self.query_conv = nn.Conv2d(channels, channels // reduction, 1)
        self.key_conv = nn.Conv2d(channels, channels // reduction, 1)
        self.value_conv = nn.Conv2d(channels, channels, 1)
        self.gamma = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        """The map, and γ times what its positions found."""
        check_rank(x, "PositionAttention: x", "n c h w")
        # n c h w → n 1 hw c
        q, k, v = (conv(x).flatten(2).mT.unsqueeze(1) for conv in (self.query_conv, self.key_conv, self.value_conv))
        # CPUs have no kernel for keys and values of different widths, and its fallback takes up to twice the time.
        out = (q @ k.mT).softmax(-1) @ v if x.device.type == "cpu" else attend(q, k, v, scale=1.0)
        out = out.squeeze(1).mT.unflatten(2, x.shape[2:])  # n 1 hw c → n c h w
        return torch.addcmul(x, self.gamma.to(x.dtype), out.to(x.dtype))


class ChannelAttention(nn.Module):
    """Each channel of a map takes in others: `γ · attention(x) + x`, with γ = 0 at first.

    Method: Fu et al. 2019 (DANet), arXiv:1809.02983, section 3.3, equations 3 and 4, as the authors' code has it, where
    the weights are `softmax(max(E) - E)`, E being the products of channels. This is `softmax(-E)`: a channel takes in
    most of those that are *least* like it. Equation 3 has `softmax(E)`, in which a channel mostly finds itself.

    Energies are sums over all positions, so they are formed in float32 (or float64) under autocast too.

    Shape: x `(n, c, h, w)` → the same, for any c.
    """

    def __init__(self) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        """The map, and γ times what its channels found."""
        check_rank(x, "ChannelAttention: x", "n c h w")
        with torch.autocast(x.device.type, enabled=False):
            rows = x.flatten(2).to(torch.promote_types(x.dtype, torch.float32))  # n c hw
            weights = (-(rows @ rows.mT)).softmax(-1)  # n c c
            # Energies lie far apart, so many weights are denormal numbers; the product with them takes 6 times as long.
            weights = weights.masked_fill(weights < torch.finfo(weights.dtype).tiny, 0.0)
            out = (weights @ rows).unflatten(2, x.shape[2:])
            return torch.addcmul(x, self.gamma.to(x.dtype), out.to(x.dtype))
