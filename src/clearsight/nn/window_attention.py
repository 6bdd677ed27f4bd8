"""Attention within windows of a feature map, plain or shifted, with a bias by relative position."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clearsight.errors import ConfigError
from clearsight.nn.checks import check_divides, check_dropped, check_positive, check_rank
from clearsight.nn.dropout import dropout as make_dropout

__all__ = ["WindowAttention", "relative_position_index", "shift_mask", "window_partition", "window_reverse"]

Pair = tuple[int, int]


def window_partition(x: Tensor, window: Pair) -> Tensor:
    """Cut a map into windows.

    Args:
        x: `(n, h, w, c)`; the window divides height and width.
        window: its height and width.

    Returns:
        `(n · windows, window height · window width, c)`; windows and their pixels in reading order.
    """
    n, height, width, channels = x.shape
    down, across = height // window[0], width // window[1]
    x = x.view(n, down, window[0], across, window[1], channels).transpose(2, 3)
    return x.reshape(n * down * across, window[0] * window[1], channels)


def window_reverse(windows: Tensor, window: Pair, size: Pair) -> Tensor:
    """Join the windows of `window_partition` to a map again.

    Args:
        windows: `(n · windows, window height · window width, c)`.
        window: its height and width.
        size: height and width of the map.

    Returns:
        `(n, h, w, c)`.
    """
    down, across = size[0] // window[0], size[1] // window[1]
    n, channels = windows.shape[0] // (down * across), windows.shape[-1]
    x = windows.view(n, down, across, *window, channels).transpose(2, 3)
    return x.reshape(n, *size, channels)


def relative_position_index(window: Pair) -> Tensor:
    """Which row of a bias table stands for each pair of pixels of a window: one for each offset of key and query.

    Args:
        window: its height a and width b.

    Returns:
        `(a b · a b)` int64 in [0, (2a - 1)(2b - 1)), flat as torchvision keeps it; query by query.
    """
    (a, b), pixels = window, torch.arange(window[0] * window[1])
    row, column = pixels // b, pixels % b
    down = row[:, None] - row + a - 1
    across = column[:, None] - column + b - 1
    return (down * (2 * b - 1) + across).flatten()


def shift_mask(size: Pair, window: Pair, shift: Pair, *, device: torch.device | None = None) -> Tensor:
    """What to add to the scores in windows of a shifted map, where pixels from opposite edges meet in a window.

    `-inf` rather than torchvision's -100: weights are then exactly 0, not the denormal numbers that slow the products
    with them by a factor.

    Args:
        size: height and width of the map, multiples of the window's.
        window: its height and width.
        shift: by how many pixels the map was rolled up and left; 0 on an axis joins its whole side.
        device: of the mask.

    Returns:
        `(windows, pixels, pixels)` float32: 0 where query and key are of one piece, else -inf.
    """
    # After the roll the last `shift` rows are those that came over the edge, likewise the columns.
    rolled_down = torch.arange(size[0], device=device) >= size[0] - shift[0]
    rolled_across = torch.arange(size[1], device=device) >= size[1] - shift[1]
    pieces = 2 * rolled_down[:, None].int() + rolled_across.int()  # h w
    pieces = window_partition(pieces[None, :, :, None], window).squeeze(-1)  # windows pixels
    apart = pieces[:, :, None] != pieces[:, None]
    return torch.zeros(apart.shape, device=device).masked_fill(apart, -math.inf)


class WindowAttention(nn.Module):
    """Self-attention of each window's pixels, with a learned bias for each offset between two of them.

    A map whose sides the window does not divide is padded with zeros below and on the right; padding takes part in the
    attention and is cut off after it. With a shift the map is rolled first, so that windows lie across the borders of
    those without, and pixels that only the roll brought together do not see each other; on an axis that one window
    covers the shift is left out.

    Method: Liu et al. 2021 (Swin), arXiv:2103.14030, section 3.2, equations 2 and 4. Names of parameters and buffer,
    and what is computed, are those of torchvision's `ShiftedWindowAttention`; bias and mask go into
    `scaled_dot_product_attention` as one. Compile it with `dynamic=False` where maps change in size: PyTorch takes
    minutes over windows of a symbolic one, torchvision's too.

    Shape: x `(n, h, w, channels)`, channels in the last dimension → the same.

    Args:
        channels: of each pixel.
        heads: must divide the channels.
        window: side, or height and width.
        shift: of rows and columns, or of both; usually half the window, or 0.
        bias: whether queries, keys and values have one.
        dropout: share of the attention weights that is dropped while training, in [0, 1).
        out_dropout: share of the outputs that is dropped while training, in [0, 1).

    Raises:
        ConfigError: the heads do not divide the channels, or a shift is not in [0, window).
        RangeError: a dropout is out of range.
    """

    relative_position_index: Tensor

    def __init__(
        self,
        channels: int,
        heads: int,
        window: int | Pair = 7,
        *,
        shift: int | Pair = 0,
        bias: bool = True,
        dropout: float = 0.0,
        out_dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.window, self.shift = _pair(window), _pair(shift)
        check_divides(channels, heads, "WindowAttention: heads")
        for side, step in zip(self.window, self.shift, strict=True):
            check_positive(side, "WindowAttention: window")
            if not 0 <= step < side:
                raise ConfigError(f"WindowAttention: shift: must be in [0, {side}), the window's side, got {step}")
        check_dropped(dropout, "dropout")
        self.heads, self.dropout = heads, dropout
        self.qkv = nn.Linear(channels, 3 * channels, bias=bias)
        self.proj = nn.Linear(channels, channels)
        self.out_dropout = make_dropout("dropout", out_dropout)
        offsets = (2 * self.window[0] - 1) * (2 * self.window[1] - 1)
        self.relative_position_bias_table = nn.Parameter(nn.init.trunc_normal_(torch.empty(offsets, heads), std=0.02))
        self.register_buffer("relative_position_index", relative_position_index(self.window))
        # The mask of the last map: (its padded size and device, mask). One attribute, so that threads may share it.
        self._held: tuple[tuple[Pair, torch.device], Tensor] | None = None

    def forward(self, x: Tensor) -> Tensor:
        """The map, each pixel with what its window holds for it.

        Raises:
            ShapeError: x has another rank.
        """
        check_rank(x, "WindowAttention: x", "n h w c")
        n, height, width, _ = x.shape
        below, right = -height % self.window[0], -width % self.window[1]
        if below or right:
            x = F.pad(x, (0, 0, 0, right, 0, below))
        size = (height + below, width + right)
        rows, columns = (
            0 if side >= whole else step for step, side, whole in zip(self.shift, self.window, size, strict=True)
        )
        if rows or columns:
            x = x.roll((-rows, -columns), (1, 2))
        x = self._attend(window_partition(x, self.window), n, size, (rows, columns))
        if rows or columns:
            x = x.roll((rows, columns), (1, 2))
        if below or right:
            x = x[:, :height, :width]
        return self.out_dropout(self.proj(x))

    def _attend(self, windows: Tensor, n: int, size: Pair, shift: Pair) -> Tensor:
        """Attention in windows of `(n · windows, pixels, c)`, joined to a map."""
        count, pixels, channels = windows.shape
        width = channels // self.heads
        qkv = self.qkv(windows)
        bias = self._bias(pixels)  # heads pixels pixels
        if any(shift):
            # A mask for each window, the same for each image: windows and heads share a dimension, so that it need not
            # be repeated n times.
            each = (size[0] // self.window[0]) * (size[1] // self.window[1])
            bias = (bias + self._mask(size, shift, windows.device)[:, None]).flatten(0, 1)
            qkv = qkv.view(n, each, pixels, 3, self.heads, width).permute(3, 0, 1, 4, 2, 5).flatten(2, 3)
        else:
            qkv = qkv.view(count, pixels, 3, self.heads, width).permute(2, 0, 3, 1, 4)
            if bias.requires_grad:
                qkv = qkv.contiguous()  # no kernel of CPUs trains a bias, and its fallback would copy all three singly
        q, k, v = qkv.unbind()
        out = F.scaled_dot_product_attention(
            q, k, v, attn_mask=bias[None].to(q.dtype), dropout_p=self.dropout if self.training else 0.0
        )
        # From heads first to the map in one copy.
        down, across = size[0] // self.window[0], size[1] // self.window[1]
        out = out.reshape(n, down, across, self.heads, *self.window, width)
        return out.permute(0, 1, 4, 2, 5, 3, 6).reshape(n, *size, channels)

    def _bias(self, pixels: int) -> Tensor:
        """The table's rows in their places, `(heads, pixels, pixels)`."""
        rows = F.embedding(self.relative_position_index, self.relative_position_bias_table)
        return rows.view(pixels, pixels, self.heads).permute(2, 0, 1)

    def _mask(self, size: Pair, shift: Pair, device: torch.device) -> Tensor:
        """The mask of this size, made when the size changes."""
        if torch.compiler.is_compiling():
            return shift_mask(size, self.window, shift, device=device)
        held = self._held
        if held is None or held[0] != (size, device):
            with torch.inference_mode(mode=False):  # what a prediction made must serve the next training step
                held = self._held = ((size, device), shift_mask(size, self.window, shift, device=device))
        return held[1]

    def extra_repr(self) -> str:
        """Heads, window and shift, for `print(model)`."""
        return f"heads={self.heads}, window={self.window}, shift={self.shift}, dropout={self.dropout:g}"


def _pair(size: int | Pair) -> Pair:
    return (size, size) if isinstance(size, int) else size
