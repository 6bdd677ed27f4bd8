"""Batch normalisation with the statistics of several batches and the gradient of the last."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx, once_differentiable

from clearsight.errors import ShapeError

__all__ = ["Batch", "Statistics", "accumulate", "measure", "pooled", "window_norm"]


class Statistics(NamedTuple):
    """What is known of one batch or more.

    Attributes:
        mean: `(..., c)`.
        var: `(..., c)`, divided by the number of values, not by one less.
        values: `(...)`, how many each channel had.
    """

    mean: Tensor
    var: Tensor
    values: Tensor


class Batch(NamedTuple):
    """A batch that was measured.

    Attributes:
        normed: `(n, c, h, w)`, `(y - mean) / deviation`.
        statistics: without gradient.
        inverse: `(c,)`, `1 / deviation`, with eps.
    """

    normed: Tensor
    statistics: Statistics
    inverse: Tensor


@torch.no_grad()
def measure(y: Tensor, *, eps: float) -> Batch:
    """Mean, variance and normalised values of a batch, in one pass, as batch norm takes them.

    Args:
        y: `(n, c, h, w)`.
        eps: added to the variance.

    Raises:
        ShapeError: one value a channel, whose variance says nothing.
    """
    count = y.numel() // y.shape[1]
    if not torch.compiler.is_compiling() and count == 1:
        raise ShapeError(f"y: expected more than one value per channel in training, got {tuple(y.shape)}")
    exact = torch.promote_types(y.dtype, torch.float32)
    ones = torch.ones(y.shape[1], dtype=exact, device=y.device)  # their type is that of the statistics
    normed, mean, inverse = torch.native_batch_norm(
        y, ones, torch.zeros_like(ones), None, None, training=True, momentum=0.0, eps=eps
    )
    var = (inverse.square().reciprocal() - eps).clamp(min=0)
    return Batch(normed, Statistics(mean, var, torch.full((), count, device=y.device)), inverse)


def pooled(own: Statistics, past: Statistics) -> Statistics:
    """Statistics of all values together: `E[x]` and `E[x²] - E[x]²`, without the loss of digits of that difference.

    Args:
        own: of one batch.
        past: of t others, `(t, c)` and `(t,)`; a count of 0 leaves one out.

    Returns:
        Of the `1 + t`, equal to those of the batches put together.
    """
    values = torch.cat((own.values.view(1), past.values))
    total = values.sum()
    share = (values.to(own.mean.dtype) / total).unsqueeze(1)
    means = torch.cat((own.mean.unsqueeze(0), past.mean))
    mean = (share * means).sum(dim=0)
    spread = torch.cat((own.var.unsqueeze(0), past.var)) + (means - mean).square()
    return Statistics(mean, (share * spread).sum(dim=0), total)


@torch.no_grad()
def accumulate(norm: nn.BatchNorm2d, window: Statistics) -> None:
    """Take statistics into a norm's running ones: `(1 - momentum) · old + momentum · new`, the unbiased variance.

    Args:
        norm: with running statistics; a momentum of None asks for the plain mean, as in PyTorch.
        window: what the batch was normalised with.
    """
    if norm.running_mean is None or norm.running_var is None or norm.num_batches_tracked is None:
        return
    norm.num_batches_tracked.add_(1)
    old = norm.running_mean, norm.running_var
    unbiased = window.var * (window.values.to(window.var.dtype) / (window.values - 1))
    share = norm.num_batches_tracked.reciprocal().to(old[0].dtype) if norm.momentum is None else norm.momentum
    old[0].lerp_(window.mean.to(old[0].dtype), share)
    old[1].lerp_(unbiased.to(old[1].dtype), share)


def window_norm(
    y: Tensor, batch: Batch, window: Statistics, weight: Tensor | None, bias: Tensor | None, *, eps: float
) -> Tensor:
    """Normalise with the statistics of a window; the gradient runs through this batch's share of them.

    With `s = √(var + eps)` of the window, r the batch's share of the window's values, and means over the batch:
    `out = w (y - mean) / s + b` and `dy = w / s · (g - r · mean(g) - r · x̂ · mean(g x̂))`, which is that of batch norm
    for r = 1. It can be differentiated once.

    Args:
        y: `(n, c, h, w)`.
        batch: y, measured.
        window: statistics that contain it.
        weight: `(c,)` scale, or None.
        bias: `(c,)` shift, or None.
        eps: added to the variance.
    """
    # In terms of the normed batch: y = mean_b + s_b · normed, so (y - mean) / s = (normed - centre) · spread.
    spread = (window.var + eps).rsqrt() / batch.inverse
    centre = (window.mean - batch.statistics.mean) * batch.inverse
    own = batch.statistics
    share = own.values.to(own.mean.dtype) / window.values
    return _WindowNorm.apply(y, weight, bias, batch.normed, centre, spread, batch.inverse, share)  # pyright: ignore


class _WindowNorm(torch.autograd.Function):
    """`window_norm` with its gradient by hand: autograd through means and squares takes five passes more."""

    @staticmethod
    def forward(  # noqa: PLR0913 - what backward needs
        ctx: FunctionCtx,
        y: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        normed: Tensor,
        centre: Tensor,
        spread: Tensor,
        inverse: Tensor,
        share: Tensor,
    ) -> Tensor:
        scale = torch.ones_like(centre) if weight is None else weight.to(centre.dtype)
        ctx.save_for_backward(scale, normed, centre, spread, inverse, share)
        ctx.types = [None if part is None else part.dtype for part in (weight, bias)]  # pyright: ignore
        shift = torch.zeros_like(centre) if bias is None else bias.to(centre.dtype)
        var = spread.square().reciprocal()
        return torch.native_batch_norm(normed, scale, shift, centre, var, training=False, momentum=0.0, eps=0.0)[0]

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, grad: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore
        scale, normed, centre, spread, inverse, share = ctx.saved_tensors  # pyright: ignore[reportAttributeAccessIssue]
        # PyTorch's backward with the window's mean and deviation subtracts whole means; scaled by r they are ours, and
        # what then lacks is (1 - r) of the first term.
        through, d_scale, d_shift = torch.ops.aten.native_batch_norm_backward(
            grad,
            normed,
            scale * share * inverse,
            None,
            None,
            centre,
            spread,
            train=True,
            eps=0.0,
            output_mask=[True, True, True],
        )
        direct = (scale * spread * inverse * (1 - share)).to(grad.dtype)
        dy = through.addcmul_(grad, direct.view(1, -1, 1, 1))
        types = ctx.types  # pyright: ignore[reportAttributeAccessIssue]
        d_weight = None if types[0] is None else d_scale.to(types[0])
        d_bias = None if types[1] is None else d_shift.to(types[1])
        return dy, d_weight, d_bias, None, None, None, None, None
