"""Knows when a model is updated: hooks on its optimiser, which is found where it is not given."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.optimizer import register_optimizer_step_pre_hook
from torch.utils.hooks import RemovableHandle

from clearsight.doctor.run.hook import Hook

__all__ = ["OptimizerHooks", "bare_optimizer", "first_momentum", "loss_scale"]

WRAPPERS = ("LightningOptimizer", "_FabricOptimizer", "AcceleratedOptimizer")  # optimisers by inheritance


class _Listener(Protocol):
    def before_update(self, optimizer: Optimizer) -> None: ...

    def after_update(self) -> None: ...


class OptimizerHooks:
    """Tells a listener of every update of a model: gradients are complete before, weights are new after.

    Where the optimiser gets a closure, `before_update` comes behind its first evaluation. Several optimisers make one
    update together; it ends with the last one's step.

    Args:
        model: whose parameters are updated.
        listener: told `before_update` once an update, and `after_update`.
        optimizers: whose steps count; with none, the first one that steps and has parameters of the model is taken.
    """

    def __init__(self, model: nn.Module, listener: _Listener, optimizers: Sequence[Optimizer] = ()) -> None:
        self.model = model
        self.optimizers: list[Optimizer] = []
        self._listener = listener
        self._noted = False
        self._handles: list[RemovableHandle] = []
        for optimizer in optimizers:
            self._bind(bare_optimizer(optimizer))
        if not optimizers:
            self._handles.append(register_optimizer_step_pre_hook(Hook(self._find)))

    def detach(self) -> None:
        """Take all hooks out."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    def note(self, optimizer: Optimizer) -> None:
        """The gradients are complete; what comes later in the same update is not passed on."""
        if not self._noted:
            self._noted = True
            self._listener.before_update(bare_optimizer(optimizer))

    def left_out(self) -> list[str]:
        """Names of the trainable parameters that no optimiser has; empty while none is known."""
        had = {id(p) for optimizer in self.optimizers for group in optimizer.param_groups for p in group["params"]}
        names = [name for name, p in self.model.named_parameters() if p.requires_grad and id(p) not in had]
        return names if self.optimizers else []

    def _bind(self, optimizer: Optimizer) -> None:
        self.optimizers.append(optimizer)
        self._handles.append(optimizer.register_step_pre_hook(Hook(self._before)))
        self._handles.append(optimizer.register_step_post_hook(Hook(self._after)))

    def _find(self, optimizer: Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """At any optimiser's step, as long as the model's own is not known; its own hooks are called right after."""
        if not self.optimizers:
            ours = {id(p) for p in self.model.parameters()}
            if any(id(p) in ours for group in optimizer.param_groups for p in group["params"]):
                self._bind(optimizer)

    def _before(
        self, optimizer: Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        closure = args[1] if len(args) > 1 else kwargs.get("closure")
        if not callable(closure):
            self.note(optimizer)
            return None

        def evaluate() -> object:
            loss = closure()
            self.note(optimizer)
            return loss

        if len(args) > 1:
            return (args[0], evaluate, *args[2:]), kwargs
        return args, {**kwargs, "closure": evaluate}

    def _after(self, optimizer: Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if optimizer is self.optimizers[-1]:
            self._noted = False
            self._listener.after_update()


def bare_optimizer(optimizer: Optimizer) -> Optimizer:
    """The optimiser inside those that trainers wrap around it."""
    inner: object = optimizer
    while not isinstance(inner, Optimizer) or type(inner).__name__ in WRAPPERS:
        inner = getattr(inner, "optimizer", None)
        if inner is None:
            return optimizer
    return inner


def first_momentum(optimizer: Optimizer) -> float | None:
    """Share of the step before that goes on in the next one, of the first group; None where the method has no such."""
    group = optimizer.param_groups[0]
    found = group["betas"][0] if group.get("betas") else group.get("momentum")
    return float(found) if isinstance(found, float | int | Tensor) else None


def loss_scale(optimizer: Optimizer) -> Tensor | None:
    """What gradients are multiplied by while the optimiser steps, where it unscales them itself."""
    scale = getattr(optimizer, "grad_scale", None)
    return scale if isinstance(scale, Tensor) else None
