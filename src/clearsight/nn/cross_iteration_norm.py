"""Batch normalisation over the last iterations, whose statistics are carried over to the weights of today."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.grad import conv2d_weight

from clearsight.errors import ConfigError
from clearsight.nn.checks import check_rank
from clearsight.nn.window_norm import Batch, Statistics, accumulate, measure, pooled, window_norm

__all__ = ["CrossIterationBatchNorm", "patch_mean"]

_HISTORY = ("past_mean", "past_var", "past_count", "past_mean_slope", "past_var_slope", "past_var_scale", "steps")


class CrossIterationBatchNorm(nn.BatchNorm2d):
    """Batch normalisation of a convolution's output with the statistics of the last iterations (CBN).

    For batches too small to have statistics of their own. The convolution's weights θ have changed since an earlier
    iteration, so its statistics are those of other features. They are carried over to first order: `μ(θ) ≈ μ(θ') +
    ∂μ/∂θ · (θ - θ')`, and alike `q = E[y²]`, with the derivatives by this layer's weights only. The gradient runs
    through the statistics of this iteration only. In evaluation mode it is batch norm.

    Method: Yao et al. 2021, arXiv:2002.05712, equations 5 to 13, with the guard `max(q, μ²)` on each iteration. As y is
    linear in θ, `∂μ/∂θ` is the mean patch of the input, the same for every output channel, and the expansion of μ is
    exact; `∂q/∂θ = 2 mean(y · patch)` is what one more convolution's weight gradient takes: no graph is walked. The
    variance `q - μ²` is carried over in place of q, by `∂σ²/∂θ = ∂q/∂θ - 2 μ ∂μ/∂θ`: the same numbers with more
    digits. Earlier weights need not be kept: the mean patch times the new weights is the new mean, and `∂σ²/∂θ · θ' =
    2 σ²`, for the variance is a square in θ. Differs: batches of other sizes count by their number of values, and
    running statistics take in those of the window, which training normalises with.

    Shape: y `(n, c, h, w)` → the same. An empty batch changes nothing. It can be differentiated once.

    State: besides batch norm's own, a ring of `t = window - 1` iterations: `past_mean`, `past_var` `(t, c)` and
    `past_count` `(t,)` as measured, the derivatives `past_mean_slope` `(t, groups, j)` and `past_var_slope` `(c, t, j)`
    times `past_var_scale` `(t, c)`, by the j weights of an output channel in the order `kh kw c_in`; and `steps`,
    iterations in training. It takes t times the memory of the weights, and all of it is in the state dict, so that a
    resumed run goes on bit by bit. Weights of an ordinary batch norm load too, without history. On several processes
    each has its own: let DDP not broadcast buffers.

    Args:
        convolution: the one before; only shapes are taken from it here. Each call in training is given it and its
            input, which `conv_norm` sees to.
        window: iterations, this one included; k in the paper.
        burn_in: iterations at first that are normalised alone, as by batch norm, while weights change much. The paper
            takes a quarter of the run on ImageNet.
        eps: added to the variance.
        momentum: share of an iteration in the running statistics.
        affine: whether each channel has a learned scale and shift.

    Raises:
        ConfigError: the window is below 2, the burn-in below 0, or the convolution pads with other than zeros or has a
            bias, which the norm would take away again.
    """

    past_mean: Tensor
    past_var: Tensor
    past_count: Tensor
    past_mean_slope: Tensor
    past_var_slope: Tensor
    past_var_scale: Tensor
    steps: Tensor

    def __init__(
        self,
        convolution: nn.Conv2d,
        *,
        window: int = 8,
        burn_in: int = 1000,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
    ) -> None:
        _check(convolution, window, burn_in)
        channels, past = convolution.out_channels, window - 1
        super().__init__(channels, eps, momentum, affine)
        self.window, self.burn_in = window, burn_in
        weights = convolution.weight[0].numel()
        self.register_buffer("past_mean", torch.zeros(past, channels))
        self.register_buffer("past_var", torch.zeros(past, channels))
        self.register_buffer("past_count", torch.zeros(past, dtype=torch.int64))
        self.register_buffer("past_mean_slope", torch.zeros(past, convolution.groups, weights))
        self.register_buffer("past_var_slope", torch.zeros(channels, past, weights))  # read a channel at a time
        self.register_buffer("past_var_scale", torch.zeros(past, channels))
        self.register_buffer("steps", torch.tensor(0))
        self.register_load_state_dict_pre_hook(_without_history)

    def reset_running_stats(self) -> None:
        """Forget the history too."""
        super().reset_running_stats()
        if "past_count" in self._buffers:
            self.past_count.zero_()

    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, y: Tensor, convolution: nn.Conv2d | None = None, x: Tensor | None = None
    ) -> Tensor:
        """Normalise; in training, remember this iteration.

        Args:
            y: `(n, c, h, w)`, `convolution(x)`.
            convolution: the one before; only training asks for it.
            x: its input `(n, in_channels, h', w')`; only training asks for it.

        Raises:
            ConfigError: training without the convolution or its input.
        """
        check_rank(y, "CrossIterationBatchNorm: y", "n c h w")
        if not self.training or y.numel() == 0:
            return functional.batch_norm(
                y, self.running_mean, self.running_var, self.weight, self.bias, training=False, eps=self.eps
            )
        if convolution is None or x is None:
            raise ConfigError(
                "CrossIterationBatchNorm: training needs the convolution before it and its input; call "
                "conv_norm(convolution, norm, x), or norm(convolution(x), convolution, x)"
            )
        batch = measure(y, eps=self.eps)
        window = pooled(batch.statistics, self._carried_over(convolution))
        self._remember(batch, convolution, x.detach())
        accumulate(self, window)
        return window_norm(y, batch, window, self.weight, self.bias, eps=self.eps)

    @torch.no_grad()
    def _carried_over(self, convolution: nn.Conv2d) -> Statistics:
        """What the statistics of the past iterations would be under these weights."""
        rows = _in_rows(convolution.weight).to(self.past_mean.dtype)  # c j
        groups = rows.unflatten(0, (convolution.groups, -1))  # g c/g j
        with torch.autocast(rows.device.type, enabled=False):
            mean = (groups @ self.past_mean_slope.permute(1, 2, 0)).flatten(0, 1).mT  # t c
            product = (self.past_var_slope @ rows.unsqueeze(2)).squeeze(2).mT * self.past_var_scale  # t c
        # σ² + slope · (θ - θ') - moved², with slope · θ' = 2 σ²; below 0 is where the guard takes μ² for q.
        var = product - self.past_var - (mean - self.past_mean).square()
        active = self.steps >= self.burn_in
        return Statistics(mean, var.clamp(min=0), self.past_count * active)

    @torch.no_grad()
    def _remember(self, batch: Batch, convolution: nn.Conv2d, x: Tensor) -> None:
        """Write this iteration over the oldest one."""
        own, normed = batch.statistics, batch.normed
        values = normed.numel() // normed.shape[1]
        # Sums of products over a batch overflow float16: half of the division goes before.
        part = values**-0.5 if normed.dtype == torch.float16 else 1.0
        slope = conv2d_weight(
            x.to(normed.dtype),
            convolution.weight.shape,  # pyright: ignore[reportArgumentType]
            normed if part == 1 else normed * part,
            convolution.stride,  # pyright: ignore[reportArgumentType]
            convolution.padding,  # pyright: ignore[reportArgumentType]
            convolution.dilation,  # pyright: ignore[reportArgumentType]
            convolution.groups,
        )
        mean_slope = patch_mean(x, convolution, (normed.shape[2], normed.shape[3]))
        place = (self.steps % (self.window - 1)).view(1)
        for kept, new in (
            (self.past_mean, own.mean.unsqueeze(0)),
            (self.past_var, own.var.unsqueeze(0)),
            (self.past_count, own.values.view(1)),
            (self.past_mean_slope, mean_slope.unsqueeze(0)),
            (self.past_var_scale, (2 / (values * part) / batch.inverse).unsqueeze(0)),
        ):
            kept.index_copy_(0, place, new.to(kept.dtype))
        rows = _in_rows(slope).unsqueeze(1)
        self.past_var_slope.index_copy_(1, place, rows.to(self.past_var_slope.dtype))
        self.steps.add_(1)

    def extra_repr(self) -> str:
        """Batch norm's, window and burn-in, for `print(model)`."""
        return f"{super().extra_repr()}, window={self.window}, burn_in={self.burn_in}"


@torch.no_grad()
def patch_mean(x: Tensor, convolution: nn.Conv2d, out: tuple[int, int]) -> Tensor:
    """The mean over a batch of what a convolution multiplies each of its weights with: `∂μ/∂θ`.

    Row i, column j of the kernel meets every row of the image that lies `i · dilation - padding` after a multiple of
    the stride, and so for columns: two small products with matrices of 0 and 1.

    Args:
        x: `(n, in_channels, h, w)`.
        convolution: its input is x; padded with zeros.
        out: height and width of its output.

    Returns:
        `(groups, j)` float, for the `j = kh · kw · in_channels / groups` weights of each output channel, in this order.
    """
    exact = torch.promote_types(x.dtype, torch.float32)
    layout = (0, 2, 3, 1) if x.is_contiguous(memory_format=torch.channels_last) else (0, 1, 2, 3)
    total = x.permute(layout).sum(dim=0, dtype=exact)  # in the order of memory: otherwise ten times as slow on CPUs
    total = total.permute(2, 0, 1) if layout[-1] == 1 else total  # c h w
    taps = [
        _taps(
            x.shape[2 + k], out[k], convolution.kernel_size[k], convolution.stride[k], padding, convolution.dilation[k]
        )
        for k, padding in enumerate(_padding(convolution))
    ]
    rows, columns = (hit.to(total) for hit in taps)  # h kh, w kw
    with torch.autocast(x.device.type, enabled=False):
        sums = rows.mT @ (total @ columns)  # c kh kw
    grouped = sums.unflatten(0, (convolution.groups, -1)).permute(0, 2, 3, 1)  # g kh kw c/g
    return grouped.flatten(1) / (len(x) * out[0] * out[1])


def _taps(size: int, out: int, kernel: int, stride: int, padding: int, dilation: int) -> Tensor:
    """`(size, kernel)`: which pixels along one axis each of the kernel's places meets."""
    ahead = torch.arange(size).unsqueeze(1) - (torch.arange(kernel) * dilation - padding)
    return (ahead >= 0) & (ahead < out * stride) & (ahead % stride == 0)


def _padding(convolution: nn.Conv2d) -> tuple[int, int]:
    padding = convolution.padding
    return (0, 0) if isinstance(padding, str) else (padding[0], padding[1])


def _in_rows(weight: Tensor) -> Tensor:
    """`(c, c_in, kh, kw)` as `(c, j)`, in the order `kh kw c_in`: no copy where weights are channels-last."""
    return weight.permute(0, 2, 3, 1).flatten(1)


def _check(convolution: nn.Conv2d, window: int, burn_in: int) -> None:
    if window < 2:
        raise ConfigError(f"window: must be at least 2 iterations, got {window}; 1 is batch normalisation")
    if burn_in < 0:
        raise ConfigError(f"burn_in: must be at least 0 iterations, got {burn_in}")
    if convolution.bias is not None:
        raise ConfigError("convolution: has a bias, which the norm would take away again; make it with bias=False")
    if convolution.padding_mode != "zeros" or isinstance(convolution.padding, str):
        raise ConfigError(
            f"convolution: expected zero padding by numbers, found padding={convolution.padding!r} and "
            f"padding_mode={convolution.padding_mode!r}"
        )


def _without_history(module: nn.Module, state_dict: dict[str, Tensor], prefix: str, *_: object) -> None:
    """Weights of an ordinary batch norm load too; there is then no history."""
    if all(prefix + name not in state_dict for name in _HISTORY):
        state_dict.update({prefix + name: torch.zeros_like(module.get_buffer(name)) for name in _HISTORY})
