"""Transformer blocks: tokens exchange what they know, then each thinks for itself."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from clearsight.errors import ConfigError
from clearsight.nn.activation import activation as make_activation
from clearsight.nn.attention import SelfAttention
from clearsight.nn.checks import check_positive, check_rank
from clearsight.nn.dropout import DropPath
from clearsight.nn.dropout import dropout as make_dropout
from clearsight.nn.window_attention import WindowAttention

__all__ = ["LayerScale", "Mlp", "TransformerBlock", "WindowBlock"]


class Mlp(nn.Sequential):
    """Two linear layers with an activation between, over the last dimension.

    Weights are named (`0`, `3`) and initialised as in torchvision's ViT and Swin: Glorot's even distribution, biases
    near 0.

    Shape: x `(…, channels)` → the same.

    Args:
        channels: of input and output.
        hidden: between; four times the channels by default.
        activation: a name of `nn.activation`.
        dropout: share that is dropped after each layer while training, in [0, 1).

    Raises:
        ConfigError: the activation is unknown, or a width below 1.
        RangeError: the dropout is out of range.
    """

    def __init__(
        self, channels: int, hidden: int | None = None, *, activation: str = "gelu", dropout: float = 0.0
    ) -> None:
        hidden = 4 * channels if hidden is None else hidden
        check_positive(hidden, "Mlp: hidden")
        super().__init__(
            nn.Linear(channels, hidden),
            make_activation(activation),
            make_dropout("dropout", dropout),
            nn.Linear(hidden, channels),
            make_dropout("dropout", dropout),
        )
        for layer in self:
            if isinstance(layer, nn.Linear):
                nn.init.xavier_uniform_(layer.weight)
                nn.init.normal_(layer.bias, std=1e-6)


class LayerScale(nn.Module):
    """A learned factor for each channel of a residual branch, small at first.

    Method: Touvron et al. 2021 (CaiT), arXiv:2103.17239, section 2.1. The factor is named as in timm.

    Shape: x `(…, channels)` → the same.

    Args:
        channels: of the last dimension.
        start: value of all factors at first.
    """

    def __init__(self, channels: int, start: float = 1e-5) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.full((channels,), start))

    def forward(self, x: Tensor) -> Tensor:
        """Each channel by its factor."""
        return x * self.gamma.to(x.dtype)


class TransformerBlock(nn.Module):
    """Mixing of tokens and an MLP, each a residual branch with a layer norm before or after.

    With the norm first (`norm_first`): `x + m(ln(x))` for both branches, as in ViT (Dosovitskiy et al. 2021,
    arXiv:2010.11929, equations 2 and 3). Else `ln(x + m(x))`, as in Vaswani et al. 2017, arXiv:1706.03762, section 3.1.
    The parts are named as in torchvision's ViT, so that its weights load; those of `layer_scale` and `drop_path` as in
    timm.

    Shape: x `(n, l, channels)` → the same.

    Args:
        channels: of each token.
        mixer: maps `(n, l, channels)` to the same: `SelfAttention`, `FourierMixing`, or a layer of one's own.
        mlp: maps `(n, l, channels)` to the same; `Mlp(channels)` by default.
        norm_first: whether norms stand before the branches rather than after the sums.
        dropout: share of the mixer's output that is dropped while training; mixer and MLP have their own besides.
        drop_path: share of samples whose branch is left out while training.
        layer_scale: first value of the branches' learned factors, or None for branches without.
        eps: of the norms.

    Raises:
        RangeError: a share is out of range.
    """

    def __init__(
        self,
        channels: int,
        mixer: nn.Module,
        mlp: nn.Module | None = None,
        *,
        norm_first: bool = True,
        dropout: float = 0.0,
        drop_path: float = 0.0,
        layer_scale: float | None = None,
        eps: float = 1e-6,
    ) -> None:
        super().__init__()
        self.norm_first = norm_first
        self.ln_1 = nn.LayerNorm(channels, eps=eps)
        self.self_attention = mixer
        self.dropout = make_dropout("dropout", dropout)
        self.ln_2 = nn.LayerNorm(channels, eps=eps)
        self.mlp = Mlp(channels) if mlp is None else mlp
        self.ls1 = nn.Identity() if layer_scale is None else LayerScale(channels, layer_scale)
        self.ls2 = nn.Identity() if layer_scale is None else LayerScale(channels, layer_scale)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor, *, mask: Tensor | None = None, keep: Tensor | None = None) -> Tensor:
        """The tokens after both branches.

        Args:
            x: `(n, l, channels)`.
            mask: who may look at whom, as `attend` takes it.
            keep: `(n, l)` bool, False at padding.

        Raises:
            ShapeError: x has another rank.
            ConfigError: a mask is given to a mixer that is no `SelfAttention`.
        """
        check_rank(x, "TransformerBlock: x", "n l c")
        if self.norm_first:
            x = x + self.drop_path(self.ls1(self._mixed(self.ln_1(x), mask, keep)))
            return x + self.drop_path(self.ls2(self.mlp(self.ln_2(x))))
        x = self.ln_1(x + self.drop_path(self.ls1(self._mixed(x, mask, keep))))
        return self.ln_2(x + self.drop_path(self.ls2(self.mlp(x))))

    def _mixed(self, x: Tensor, mask: Tensor | None, keep: Tensor | None) -> Tensor:
        if isinstance(self.self_attention, SelfAttention):
            return self.dropout(self.self_attention(x, mask=mask, keep=keep))
        if mask is not None or keep is not None:
            kind = type(self.self_attention).__name__
            raise ConfigError(f"TransformerBlock: {kind} mixes all tokens; a mask needs SelfAttention")
        return self.dropout(self.self_attention(x))


class WindowBlock(nn.Module):
    """Attention in windows and an MLP, each a residual branch with a layer norm before it.

    Method: Liu et al. 2021 (Swin), arXiv:2103.14030, equation 3; blocks without a shift and with one take turns. The
    parts are named as in torchvision's Swin, so that its weights load.

    Shape: x `(n, h, w, channels)`, channels in the last dimension → the same.

    Args:
        channels: of each pixel.
        attention: the windows.
        mlp: maps `(…, channels)` to the same; `Mlp(channels)` by default.
        drop_path: share of samples whose branch is left out while training.
        eps: of the norms.

    Raises:
        RangeError: the share is out of range.
    """

    def __init__(
        self,
        channels: int,
        attention: WindowAttention,
        mlp: nn.Module | None = None,
        *,
        drop_path: float = 0.0,
        eps: float = 1e-5,
    ) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(channels, eps=eps)
        self.attn = attention
        self.norm2 = nn.LayerNorm(channels, eps=eps)
        self.mlp = Mlp(channels) if mlp is None else mlp
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        """The map after both branches."""
        check_rank(x, "WindowBlock: x", "n h w c")
        x = x + self.drop_path(self.attn(self.norm1(x)))
        return x + self.drop_path(self.mlp(self.norm2(x)))
