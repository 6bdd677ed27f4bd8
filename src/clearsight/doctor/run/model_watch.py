"""Looks at a model from one update to the next: its layers at some, its gradient's norm and its mode at all."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from clearsight.doctor.run.hook import Hook
from clearsight.doctor.run.layer_measures import total_norm
from clearsight.doctor.run.layer_plan import modes_matter, untouched_statistics
from clearsight.doctor.run.layer_probe import LayerProbe
from clearsight.doctor.run.optimizer_hooks import OptimizerHooks, first_momentum, loss_scale
from clearsight.doctor.run.telemetry import LayerNote

__all__ = ["Measurement", "ModelWatch"]

EARLY = (1, 2, 4, 8, 16, 32)  # updates measured besides every `every`-th
COSINES = 4  # between gradients behind backward and at the step, of the last measured steps, that are kept
FEWEST = 3  # checks for gradients left over, of which a share is told
CLIPPED = 1.001  # given over measured norm from which on gradients were clipped in between

Measurement = tuple[int, list[LayerNote], dict[str, np.ndarray]]  # update, layers, measure → (layers,)


class ModelWatch:
    """Sees each update of a model by its optimiser's hooks, and measures the layers in some.

    Args:
        model: as it is called in training.
        optimizers: whose steps are updates; none finds the model's own at its first step.
        every: updates between measurements of the layers.
        facts: what is found out about the run is put here.
        entry: the module that is called in each step, where that is not the model but something around it.

    Attributes:
        done: updates so far.
        norm: of the last update's gradient, where it was measured.
        lr: of the last update.
        norm_wanted: measure it.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizers: Sequence[Optimizer],
        *,
        every: int,
        facts: dict[str, Any],
        entry: nn.Module | None = None,
    ) -> None:
        self._probe = LayerProbe(model)
        self._root = self._probe.root
        self._every, self._facts = every, facts
        self._row: tuple[int, dict[str, np.ndarray]] | None = None
        self._moved = False
        self._parameters = list(self._root.parameters())
        self.updates = OptimizerHooks(self._root, self, optimizers)
        self.done = 0
        self.norm: Tensor | None = None
        self.lr: float | Tensor | None = None
        self.norm_wanted = True
        self.forget_passes()
        self._root_hook = None
        if self._probe.hidden:
            facts["outputs_not_measured"] = self._probe.hidden
        else:
            self._root_hook = (entry or self._root).register_forward_pre_hook(Hook(self._forward_begins))

    def begin(self, done: int, notes: Sequence[LayerNote]) -> None:
        """Go on behind an update.

        Args:
            done: updates so far.
            notes: what was known of the layers then.
        """
        self.done, self._row = done, None
        if [note.name for note in notes] == [layer.name for layer in self._probe.layers]:
            for note, layer in zip(notes, self._probe.layers, strict=True):
                layer.activation, layer.turn = note.activation, note.turn
        self._probe.disarm()
        self._arm_if_due()

    def detach(self) -> None:
        """Take every hook out of the model and the optimiser."""
        self._probe.disarm()
        self.updates.detach()
        if self._root_hook is not None:
            self._root_hook.remove()

    def catch_up(self, steps: int) -> None:
        """Count as the loop does: mixed precision skips updates, and not every optimiser is one of torch's."""
        if not self._moved:
            self._probe.disarm()
            self.done = steps
            self._arm_if_due()
        self._moved = False

    @property
    def measured_at(self) -> float:
        """The update whose measurement waits to be fetched; infinity where none does."""
        return math.inf if self._row is None else self._row[0]

    def measurement(self, *, norm: float = math.nan) -> Measurement | None:
        """The layers as last measured, once; None where there is nothing new.

        Args:
            norm: of the gradient before clipping, as the loop says; layers get the size that they had then.
        """
        if self._row is None:
            return None
        (done, row), self._row = self._row, None
        measured = float(np.sqrt(np.nansum(row["grad_norm"] ** 2)))
        if math.isfinite(norm) and norm > CLIPPED * measured > 0:
            row["grad_norm"] = row["grad_norm"] * (norm / measured)
        self._note_gradients(done)
        if left_out := self.updates.left_out():
            self._facts["not_in_optimizer"] = left_out
        notes = [
            LayerNote(layer.name, type(layer.module).__name__, layer.activation, layer.exempt, layer.turn)
            for layer in self._probe.layers
        ]
        return done, notes, row

    def _note_gradients(self, done: int) -> None:
        """What the last steps say of where gradients came from."""
        checks, facts = self._probe.leftovers, self._facts
        if checks:
            facts["gradient_before_backward"] = sum(checks) / max(len(checks), FEWEST)
            if checks[-1]:
                facts.setdefault("gradient_left_since", done)
            else:
                facts.pop("gradient_left_since", None)
        if self._probe.origin.cosine is not None:
            known = [*facts.get("gradient_cosines", ()), round(self._probe.origin.cosine, 3)]
            facts["gradient_cosines"] = known[-COSINES:]

    # -------------------------------------------------------------------------------------------- the optimiser's hooks
    def before_update(self, optimizer: Optimizer) -> None:
        """Gradients are complete."""
        lr = optimizer.param_groups[0].get("lr")
        self.lr = lr.detach().clone() if isinstance(lr, Tensor) else lr
        scale, momentum = loss_scale(optimizer), first_momentum(optimizer) if self._probe.armed else None
        if momentum is not None:  # of one that goes up and down the lowest
            self._facts["momentum"] = min(momentum, self._facts.get("momentum", momentum))
        with torch.no_grad():
            if self.norm_wanted:
                if self._probe.armed:  # parameters may come and go; to look for them at every step takes long
                    self._parameters = list(self._root.parameters())
                norm = total_norm([p.grad for p in self._parameters if p.grad is not None])
                self.norm = norm if scale is None or norm is None else norm / scale.to(norm.device)
            self._probe.before_update(scale)
        if not self._root.training and "train_in_eval_mode" not in self._facts:
            matter = modes_matter(self._root)
            self._facts["train_in_eval_mode"] = [name for name, _ in matter]
            self._facts["untouched_statistics"] = any(untouched_statistics(module) for _, module in matter)

    def after_update(self) -> None:
        """The weights are new."""
        self.done += 1
        self._moved = True
        self.forget_passes()
        if self._probe.armed:
            row = self._probe.after_update()
            self._row = self._row if row is None else (self.done, row)
        self._arm_if_due()

    def _arm_if_due(self) -> None:
        coming = self.done + 1
        if coming in EARLY or coming % self._every == 0:
            self._probe.arm()

    # -------------------------------------------------------------------------------------------- the model's mode
    def forget_passes(self) -> None:
        """What is called from here on belongs together."""
        self._with_gradients_in_train = self._without = self._without_in_train = 0

    def evaluating(self, *, in_train_mode: bool) -> None:
        """The model was called in an evaluation."""
        self._without += 1
        self._without_in_train += in_train_mode

    def judge_mode(self, *, alone: bool) -> None:
        """The model was scored: see whether every pass since the last update was in train mode.

        Args:
            alone: passes with gradients can be told from training: no batches are accumulated.
        """
        in_train = self._without_in_train == self._without if self._without else alone and self._with_gradients_in_train
        names = [name for name, _ in modes_matter(self._root)] if in_train else []
        if names:
            self._facts["eval_in_train_mode"] = names
        self.forget_passes()

    def _forward_begins(self, module: nn.Module, args: object) -> None:
        if torch.compiler.is_compiling():
            return
        if torch.is_grad_enabled():
            self._with_gradients_in_train += module.training
        else:
            self.evaluating(in_train_mode=module.training)
