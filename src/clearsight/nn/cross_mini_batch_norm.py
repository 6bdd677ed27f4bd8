"""Batch normalisation over the mini-batches of one batch whose gradients are accumulated."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from clearsight.nn.checks import check_positive, check_rank
from clearsight.nn.window_norm import Statistics, accumulate, measure, pooled, window_norm

__all__ = ["CrossMiniBatchNorm", "start_batch"]


class CrossMiniBatchNorm(nn.BatchNorm2d):
    """Batch normalisation with the statistics of the mini-batches of this batch so far (CmBN).

    Where the gradients of several mini-batches make one step, their weights are the same, so their statistics can be
    pooled as they are: the last mini-batch is normalised with those of the whole batch. The gradient runs through the
    statistics of the mini-batch at hand only. In evaluation mode it is batch norm.

    Method: Bochkovskiy et al. 2020 (YOLOv4), arXiv:2004.10934, section 3.3 and figure 4. Mini-batches of other sizes
    count by their number of values. Running statistics take in what each mini-batch was normalised with.

    Shape: x `(n, c, h, w)` → the same. An empty mini-batch changes nothing.

    State: besides batch norm's own, `batch_mean` and `batch_var` `(c,)` and `batch_count` of the batch so far, and
    `steps`, the mini-batches of it.

    Args:
        channels: c.
        window: mini-batches in a batch; where some batches have less, call `start_batch` at each start.
        eps: added to the variance.
        momentum: share of a mini-batch in the running statistics.
        affine: whether each channel has a learned scale and shift.

    Raises:
        ConfigError: the window is below 1.
    """

    batch_mean: Tensor
    batch_var: Tensor
    batch_count: Tensor
    steps: Tensor

    def __init__(
        self, channels: int, *, window: int = 4, eps: float = 1e-5, momentum: float | None = 0.1, affine: bool = True
    ) -> None:
        super().__init__(channels, eps, momentum, affine)
        check_positive(window, "CrossMiniBatchNorm: window")
        self.window = window
        self.register_buffer("batch_mean", torch.zeros(channels))
        self.register_buffer("batch_var", torch.zeros(channels))
        self.register_buffer("batch_count", torch.tensor(0))
        self.register_buffer("steps", torch.tensor(0))
        self.register_load_state_dict_pre_hook(_without_batch)

    def reset_running_stats(self) -> None:
        """Forget the batch too."""
        super().reset_running_stats()
        if "batch_count" in self._buffers:
            self.batch_count.zero_()
            self.steps.zero_()

    def forward(self, x: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Normalise; in training, take the mini-batch into the batch and that into the running statistics."""
        check_rank(x, "CrossMiniBatchNorm: x", "n c h w")
        if not self.training or x.numel() == 0:
            return functional.batch_norm(
                x, self.running_mean, self.running_var, self.weight, self.bias, training=False, eps=self.eps
            )
        batch = measure(x, eps=self.eps)
        with torch.no_grad():
            before = self.batch_count * (self.steps % self.window != 0)
            exact = batch.statistics.mean.dtype
            past = Statistics(self.batch_mean.to(exact)[None], self.batch_var.to(exact)[None], before.view(1))
            so_far = pooled(batch.statistics, past)
            self.batch_mean.copy_(so_far.mean)
            self.batch_var.copy_(so_far.var)
            self.batch_count.copy_(so_far.values)
            self.steps.copy_(self.steps % self.window + 1)
        accumulate(self, so_far)
        return window_norm(x, batch, so_far, self.weight, self.bias, eps=self.eps)

    def extra_repr(self) -> str:
        """Batch norm's, and the window, for `print(model)`."""
        return f"{super().extra_repr()}, window={self.window}"


def start_batch(model: nn.Module) -> None:
    """The next mini-batch is the first of a batch, for every `CrossMiniBatchNorm` inside a model.

    Args:
        model: changed in place.
    """
    for layer in model.modules():
        if isinstance(layer, CrossMiniBatchNorm):
            layer.steps.zero_()


def _without_batch(module: nn.Module, state_dict: dict[str, Tensor], prefix: str, *_: object) -> None:
    """Weights of an ordinary batch norm load too; the batch is then a new one."""
    own = ("batch_mean", "batch_var", "batch_count", "steps")
    if all(prefix + name not in state_dict for name in own):
        state_dict.update({prefix + name: torch.zeros_like(module.get_buffer(name)) for name in own})
