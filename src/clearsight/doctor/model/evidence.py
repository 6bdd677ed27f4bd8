"""What rules on a model look at: the model, a real batch, and how a loss comes of the two."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer

from clearsight.doctor.model.flow import Flow, follow

__all__ = ["ModelEvidence"]


@dataclass(kw_only=True, eq=False)
class ModelEvidence:
    """A model before its first step. Rules leave it as they found it: weights, buffers, modes, gradients, random state.

    Args:
        model: as it will be trained.
        images: `(n, c, h, w)` a real batch as the model takes it, augmented as in training.
        targets: of the batch, of whatever kind `loss` takes.
        loss: `(model, images, targets) → scalar` of one training step.
        take: `(targets, indices) → targets` of some of the images.
        forward: `(model, images) → outputs`, any nest of tensors; None calls the model.
        task: `classification`, `detection`, `semantic`, `instance`; None when unknown.
        classes: number of classes; None when unknown.
        class_counts: training labels of each class, in label order; empty when unknown.
        optimizer: the optimiser, where there is one yet.
        recipe: nested plain values; empty for a model without one.
    """

    model: nn.Module
    images: Tensor
    targets: Any
    loss: Callable[[nn.Module, Tensor, Any], Tensor]
    take: Callable[[Any, Sequence[int]], Any]
    forward: Callable[[nn.Module, Tensor], Any] | None = None
    task: str | None = None
    classes: int | None = None
    class_counts: tuple[int, ...] = ()
    optimizer: Optimizer | None = None
    recipe: Mapping[str, Any] = field(default_factory=dict)

    @cached_property
    def flow(self) -> Flow:
        """Which module feeds which, followed through one loss of the batch."""
        return follow(self)
