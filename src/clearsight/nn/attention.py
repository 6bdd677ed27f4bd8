"""Attention of tokens to tokens: the product itself, and its multi-head layers."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clearsight.errors import ConfigError
from clearsight.nn.checks import check_divides, check_dropped, check_rank

__all__ = ["CrossAttention", "SelfAttention", "attend"]


def attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    mask: Tensor | None = None,
    keep: Tensor | None = None,
    dropout: float = 0.0,
    scale: float | None = None,
) -> Tensor:
    """Scaled dot-product attention: `softmax(scale · q kᵀ + mask) v`.

    A bool mask is True where a query *may look* at a key, as in PyTorch's function of the name and the other way round
    than in `nn.MultiheadAttention`. A key that is masked has a weight of exactly 0 and no gradient; its value must be
    finite all the same. A query that may look at no key, or has none, gives zeros and a gradient of 0, in exported
    graphs too.

    Method: Vaswani et al. 2017, arXiv:1706.03762, section 3.2.1, equation 1, by
    `torch.nn.functional.scaled_dot_product_attention`, which keeps no (queries, keys) matrix where it has a kernel.

    Args:
        q: queries, `(n, heads, queries, d)`.
        k: keys, `(n, heads, keys, d)`.
        v: values, `(n, heads, keys, e)`.
        mask: `(queries, keys)`, or four dimensions that broadcast to `(n, heads, queries, keys)`; bool, or float to be
            added to the scores, where `-inf` shuts a key out.
        keep: `(n, keys)` bool, True at real keys and False at padding; together with `mask`, both must allow a key.
        dropout: share of the weights that is dropped; given by the caller only while training.
        scale: factor of the scores, `1 / √d` by default.

    Returns:
        `(n, heads, queries, e)`.

    Raises:
        ShapeError: a tensor has another rank.
        ConfigError: a mask is of whole numbers.
    """
    for x, what in ((q, "attend: q"), (k, "attend: k"), (v, "attend: v")):
        check_rank(x, what, "n heads l d")
    mask = _merged(mask, keep, q.dtype)
    out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=dropout, scale=scale)
    if mask is not None and torch.compiler.is_exporting():
        # Runtimes give a query without a key NaN, or the mean of all values, where PyTorch gives 0.
        allowed = mask if mask.dtype == torch.bool else mask > -math.inf
        out = out.masked_fill(~allowed.any(-1, keepdim=True), 0.0)
    return out


def _merged(mask: Tensor | None, keep: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    """One mask that says both, bool or of the queries' type."""
    if mask is not None:
        check_rank(mask, "attend: mask", "queries keys", "n heads queries keys")
        if not (mask.dtype == torch.bool or mask.is_floating_point()):
            raise ConfigError(f"attend: mask: must be bool (True: may look) or float (added), got {mask.dtype}")
        mask = mask if mask.dtype == torch.bool else mask.to(dtype)
    if keep is None:
        return mask
    check_rank(keep, "attend: keep", "n keys")
    if keep.dtype != torch.bool:
        raise ConfigError(f"attend: keep: must be bool (True: a real key), got {keep.dtype}")
    keep = keep[:, None, None]  # n 1 1 keys
    if mask is None:
        return keep
    return mask & keep if mask.dtype == torch.bool else mask.masked_fill(~keep, -math.inf)


class _MultiHead(nn.Module):
    """What both layers have: heads, dropout of the weights, and the projection at the end."""

    in_proj_bias: nn.Parameter | None

    def __init__(self, channels: int, heads: int, *, bias: bool, dropout: float) -> None:
        super().__init__()
        check_divides(channels, heads, f"{type(self).__name__}: heads")
        check_dropped(dropout, "dropout")
        self.channels, self.heads, self.dropout = channels, heads, dropout
        self.register_parameter("in_proj_bias", nn.Parameter(torch.zeros(3 * channels)) if bias else None)
        self.out_proj = nn.Linear(channels, channels, bias=bias)
        if bias:
            nn.init.zeros_(self.out_proj.bias)

    def _attended(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, keep: Tensor | None) -> Tensor:
        """Attention of `(n, heads, l, d)`, its heads joined and projected."""
        out = attend(q, k, v, mask=mask, keep=keep, dropout=self.dropout if self.training else 0.0)
        return self.out_proj(out.transpose(1, 2).flatten(2))  # n h l d → n l c

    def extra_repr(self) -> str:
        """Channels, heads and dropout, for `print(model)`."""
        return f"{self.channels}, heads={self.heads}, dropout={self.dropout:g}"


class SelfAttention(_MultiHead):
    """Each token takes in what it finds in the others, in several heads at once.

    Without positions added to x the tokens are a set: permuted, they give the same, permuted. Method: Vaswani et al.
    2017, arXiv:1706.03762, section 3.2.2. Parameters are named and initialised as in `nn.MultiheadAttention`, so that
    weights of torchvision's ViT load.

    Shape: x `(n, l, channels)` → the same.

    Args:
        channels: of each token.
        heads: must divide the channels.
        bias: whether the four projections have one.
        dropout: share of the attention weights that is dropped while training, in [0, 1).

    Raises:
        ConfigError: the heads do not divide the channels; the message names the divisors.
        RangeError: the dropout is out of range.
    """

    def __init__(self, channels: int, heads: int, *, bias: bool = True, dropout: float = 0.0) -> None:
        super().__init__(channels, heads, bias=bias, dropout=dropout)
        self.in_proj_weight = nn.Parameter(nn.init.xavier_uniform_(torch.empty(3 * channels, channels)))

    def forward(self, x: Tensor, *, mask: Tensor | None = None, keep: Tensor | None = None) -> Tensor:
        """The tokens' sums of values.

        Args:
            x: `(n, l, channels)`.
            mask: `(l, l)` or four dimensions, as `attend` takes it.
            keep: `(n, l)` bool, False at padding; padding still looks at others, and its rows mean nothing.

        Raises:
            ShapeError: x or a mask has another rank.
        """
        check_rank(x, "SelfAttention: x", "n l c")
        qkv = F.linear(x, self.in_proj_weight, self.in_proj_bias).unflatten(-1, (3, self.heads, -1))
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind()  # n l 3 h d → three of n h l d
        return self._attended(q, k, v, mask, keep)


class CrossAttention(_MultiHead):
    """Tokens of one kind take in what they find in tokens of another: two modalities, or queries and an image.

    Method: Vaswani et al. 2017, arXiv:1706.03762, section 3.2.2. Parameters are named and initialised as in
    `nn.MultiheadAttention`, of the same widths (one `in_proj_weight`) or of others (`q_proj_weight`, `k_proj_weight`,
    `v_proj_weight`).

    Shape: x `(n, l, channels)`, keys `(n, m, key_channels)`, values `(n, m, value_channels)` → `(n, l, channels)`.

    Args:
        channels: of the tokens that look, and of the output.
        heads: must divide the channels.
        key_channels: of the tokens that are looked at; as `channels` by default.
        value_channels: of what is taken from them; as `key_channels` by default.
        bias: whether the four projections have one.
        dropout: share of the attention weights that is dropped while training, in [0, 1).

    Raises:
        ConfigError: the heads do not divide the channels; the message names the divisors.
        RangeError: the dropout is out of range.
    """

    def __init__(
        self,
        channels: int,
        heads: int,
        *,
        key_channels: int | None = None,
        value_channels: int | None = None,
        bias: bool = True,
        dropout: float = 0.0,
    ) -> None:
        super().__init__(channels, heads, bias=bias, dropout=dropout)
        keys = channels if key_channels is None else key_channels
        values = keys if value_channels is None else value_channels
        self.one_width = keys == values == channels
        if self.one_width:
            self.in_proj_weight = nn.Parameter(nn.init.xavier_uniform_(torch.empty(3 * channels, channels)))
        else:
            self.q_proj_weight = nn.Parameter(nn.init.xavier_uniform_(torch.empty(channels, channels)))
            self.k_proj_weight = nn.Parameter(nn.init.xavier_uniform_(torch.empty(channels, keys)))
            self.v_proj_weight = nn.Parameter(nn.init.xavier_uniform_(torch.empty(channels, values)))

    def forward(
        self,
        x: Tensor,
        keys: Tensor,
        values: Tensor | None = None,
        *,
        mask: Tensor | None = None,
        keep: Tensor | None = None,
    ) -> Tensor:
        """The sums of values that the tokens of x asked for.

        Args:
            x: `(n, l, channels)`.
            keys: `(n, m, key_channels)`.
            values: `(n, m, value_channels)`; the keys by default (others where positions are added to keys alone).
            mask: `(l, m)` or four dimensions, as `attend` takes it.
            keep: `(n, m)` bool, False at padding of keys and values.

        Raises:
            ShapeError: a tensor has another rank.
        """
        values = keys if values is None else values
        for tokens, what in ((x, "x"), (keys, "keys"), (values, "values")):
            check_rank(tokens, f"CrossAttention: {what}", "n l c")
        if self.one_width:
            weights = self.in_proj_weight.chunk(3)
        else:
            weights = (self.q_proj_weight, self.k_proj_weight, self.v_proj_weight)
        biases = (None, None, None) if self.in_proj_bias is None else self.in_proj_bias.chunk(3)
        q, k, v = (
            F.linear(tokens, weight, bias).unflatten(-1, (self.heads, -1)).transpose(1, 2)  # n l c → n h l d
            for tokens, weight, bias in zip((x, keys, values), weights, biases, strict=True)
        )
        return self._attended(q, k, v, mask, keep)
