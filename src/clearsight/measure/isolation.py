"""What a count changes around it, and puts back: random numbers, and how PyTorch runs attention."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import RLock
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["isolated"]

_ONE_AT_A_TIME = RLock()  # the switches below are PyTorch's own, and the same for all threads


@contextmanager
def isolated(device: torch.device) -> Iterator[None]:
    """Random numbers that are drawn inside leave no trace, and attention is the same in evaluation and in training.

    PyTorch's fast path, one operation for a whole attention layer in evaluation mode, is off. On the meta device, where
    PyTorch would take attention apart, it stays in one, as on CPUs and GPUs: that keeps less in memory.

    Args:
        device: where the model is.
    """
    with _ONE_AT_A_TIME:
        state, fast, attention = random.getstate(), torch.backends.mha.get_fastpath_enabled(), _attention()
        torch.backends.mha.set_fastpath_enabled(False)
        if device.type == "meta":
            F.scaled_dot_product_attention = _fused_where_possible(attention)
        try:
            with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
                yield
        finally:
            F.scaled_dot_product_attention = attention
            torch.backends.mha.set_fastpath_enabled(fast)
            random.setstate(state)


def _attention() -> Callable[..., Tensor]:
    return F.scaled_dot_product_attention


def _fused_where_possible(attention: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """The attention that PyTorch runs on CPUs, where it would: no dropout, heads of one width, a mask that is given."""

    def attend(
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attn_mask: Tensor | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,  # noqa: FBT001, FBT002
        scale: float | None = None,
        enable_gqa: bool = False,  # noqa: FBT001, FBT002
    ) -> Tensor:
        plain = attn_mask is None or (attn_mask.ndim in (2, 4) and not attn_mask.requires_grad)
        alike = query.ndim == key.ndim == value.ndim == 4 and query.shape[-1] == key.shape[-1] == value.shape[-1]
        if query.device.type != "meta" or not alike or not plain or dropout_p or enable_gqa:
            more: dict[str, Any] = {"scale": scale, "enable_gqa": enable_gqa}
            return attention(query, key, value, attn_mask, dropout_p, is_causal, **more)
        operation = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu  # pyright: ignore
        return operation(query, key, value, 0.0, is_causal, attn_mask=attn_mask)[0]

    return attend
