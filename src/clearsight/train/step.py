"""One optimiser step: forward, backward over the accumulated batches, clipping, update."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn
from torch.optim import LBFGS, Optimizer

from clearsight.recipe.schema import TrainerConfig
from clearsight.train.spoiled import StepMemory, spoiled
from clearsight.types import Batch

if TYPE_CHECKING:
    from lightning_fabric import Fabric

__all__ = ["LossModule", "Measured", "Stepper"]


class _Held:
    """Carries a batch past Fabric, which casts the floats of all it can look into: in bf16, pixel 301 becomes 302."""

    __slots__ = ("batch",)

    def __init__(self, batch: Batch) -> None:
        self.batch = batch


class LossModule(nn.Module):
    """A model whose `forward` is its `loss`, so that the hooks of DDP and autocast see the call.

    Args:
        model: has `loss(images, targets) -> dict[str, Tensor]`.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, held: _Held) -> dict[str, Tensor]:
        """The loss terms of a batch, each a scalar."""
        return cast("dict[str, Tensor]", self.model.loss(held.batch.images, held.batch.targets))  # pyright: ignore[reportCallIssue]


@dataclass(frozen=True, slots=True)
class Measured:
    """What a step measured, still on the device.

    Args:
        names: of the loss terms.
        values: `(len(names) + 1,)` float32: the terms, averaged over batches and processes, and the gradient's norm.
    """

    names: tuple[str, ...]
    values: Tensor


class Stepper:
    """Makes optimiser steps.

    Args:
        fabric: launched.
        module: a `LossModule`, set up by Fabric.
        optimizer: set up by Fabric.
        trainer: for clipping and the memory format.
        memory: told of each batch before it goes through the model; None keeps nothing.
    """

    def __init__(
        self,
        fabric: Fabric,
        module: nn.Module,
        optimizer: Optimizer,
        trainer: TrainerConfig,
        memory: StepMemory | None = None,
    ) -> None:
        self.fabric = fabric
        self.memory = memory
        self.scaled = getattr(fabric.strategy.precision, "scaler", None) is not None
        self.module = module
        self.optimizer = optimizer
        self.trainer = trainer
        self.parameters = [p for p in module.parameters() if p.requires_grad]
        self._measured: Measured | None = None

    def __call__(self, batches: Sequence[Batch]) -> Measured:
        """Step once on the mean loss of the batches; their number may differ from step to step.

        Where the loss or its gradient is not finite, the weights stay as they are (on a GPU that is known too late).
        """
        on_device = [self.to_device(batch) for batch in batches]

        def gradients() -> Tensor:
            return self._gradients(on_device)

        if isinstance(self.optimizer, LBFGS):  # evaluates the same batches several times
            self.optimizer.step(gradients)
        else:
            gradients()
            if self._measured is None or self.scaled or not spoiled(self._measured.values):
                self.optimizer.step()
        if self._measured is None:
            raise RuntimeError("the optimiser did not evaluate the loss")
        return self._measured

    def to_device(self, batch: Batch) -> Batch:
        """The batch on the device, its images in the memory format of training."""
        batch = batch.to(self.fabric.device, non_blocking=True)
        if self.trainer.channels_last and batch.images.ndim == 4:
            batch.images = batch.images.contiguous(memory_format=torch.channels_last)
        return batch

    def _gradients(self, batches: Sequence[Batch]) -> Tensor:
        """Leave the clipped gradient of the mean loss in the parameters; returns the mean loss."""
        self.optimizer.zero_grad(set_to_none=True)
        if self.memory is not None:
            self.memory.begin()
        total: Tensor | None = None
        names: tuple[str, ...] = ()
        for number, batch in enumerate(batches):
            more = number < len(batches) - 1
            if self.memory is not None:
                self.memory.keep(batch)
            with self.fabric.no_backward_sync(self.module, enabled=more):  # pyright: ignore[reportArgumentType]
                terms: dict[str, Tensor] = self.module(_Held(batch))
                names = tuple(terms)
                values = torch.stack([term.float() for term in terms.values()])
                self.fabric.backward(values.sum() / len(batches))
            share = values.detach() / len(batches)
            total = share if total is None else total + share
        if total is None:
            raise ValueError("a step needs at least one batch, found none")
        norm = self._clip()
        if self.fabric.world_size > 1:
            total = cast("Tensor", self.fabric.all_reduce(total, reduce_op="mean"))
        self._measured = Measured(names, torch.cat([total, norm.detach().float().reshape(1)]))
        return total.sum()

    def _clip(self) -> Tensor:
        """Unscale (fp16), clip by norm and then by value; returns the norm before clipping."""
        raw = getattr(self.optimizer, "optimizer", self.optimizer)
        self.fabric.strategy.precision.unscale_gradients(raw)
        gradients = [p.grad for p in self.parameters if p.grad is not None]
        norm = torch.nn.utils.get_total_norm(gradients)
        if self.trainer.clip_norm is not None:
            torch.nn.utils.clip_grads_with_norm_(self.parameters, self.trainer.clip_norm, norm)
        if self.trainer.clip_value is not None:
            torch.nn.utils.clip_grad_value_(self.parameters, self.trainer.clip_value)
        return norm
