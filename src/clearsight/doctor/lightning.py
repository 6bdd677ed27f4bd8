"""The hooks that Lightning's Trainer calls on a callback, without Lightning."""

from __future__ import annotations

import math
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer

__all__ = ["LightningHooks"]

VAL = ("val_", "val/", "valid_", "valid/", "validation_", "validation/")
TRAIN = ("train_", "train/", "training_", "training/")
ALIASES = {"acc": "accuracy"}


class LightningHooks(ABC):
    """A callback for `Trainer(callbacks=[...])` of `lightning.pytorch` and `pytorch_lightning` alike.

    The Trainer calls hooks by name and asks for no base class, so Lightning need not be installed for what has these.
    Those that are of no use here do nothing. The loss, the optimisers, the plan of the run and logged metrics are found
    by themselves; the state goes into Lightning's checkpoints.
    """

    _began_at: float = math.nan  # end of the last batch, where the wait for the next one begins
    _parts: tuple[float | Tensor, ...] = ()  # losses of the batches accumulated so far
    _updates_seen: int = 0
    _val_names: frozenset[str] = frozenset()
    _known_names: frozenset[str] = frozenset()

    # -------------------------------------------------------------------------------------------- what is told to whom
    @abstractmethod
    def attach(
        self, model: nn.Module, optimizer: Optimizer | Sequence[Optimizer] | None = None, *, step: int | None = None
    ) -> object:
        """The run begins."""

    @abstractmethod
    def plan(
        self,
        *,
        budget: int | None = None,
        steps_per_epoch: int | None = None,
        accumulate: int | None = None,
        clip_norm: float | None = None,
    ) -> None:
        """What the run is told to do."""

    @abstractmethod
    def gradients_ready(self, optimizer: Optimizer) -> None:
        """Gradients are complete and not clipped yet."""

    @abstractmethod
    def waited(self, seconds: float) -> None:
        """Data was waited for."""

    @abstractmethod
    def step(
        self,
        loss: float | Tensor | None = None,
        *,
        metrics: Mapping[str, float | Tensor] | None = None,
        labels: Tensor | Sequence[int] | None = None,
    ) -> None:
        """An optimiser step is done."""

    @abstractmethod
    def trained(self, metrics: Mapping[str, float | Tensor]) -> None:
        """Metrics on training images."""

    @abstractmethod
    def evaluating(self, *, in_train_mode: bool) -> None:
        """A batch of an evaluation is done."""

    @abstractmethod
    def evaluated(self, metrics: Mapping[str, float | Tensor] | None = None) -> None:
        """The model was scored."""

    @abstractmethod
    def detach(self, *, finished: bool = False) -> None:
        """The run is over."""

    @property
    @abstractmethod
    def should_stop(self) -> bool:
        """The run had better end."""

    @abstractmethod
    def state_dict(self) -> dict[str, Any]:
        """Plain values and tensors."""

    @abstractmethod
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take back what `state_dict` gave."""

    # -------------------------------------------------------------------------------------------- hooks of use
    @property
    def state_key(self) -> str:
        """Key of the state in a checkpoint."""
        return type(self).__qualname__

    @property
    def _legacy_state_key(self) -> type:
        return type(self)

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:  # noqa: ANN401 - Lightning is not imported
        """Learn what is planned, and put the hooks in."""
        accumulate = int(trainer.accumulate_grad_batches)
        batches, budget = float(trainer.num_training_batches), float(trainer.estimated_stepping_batches)
        clip = trainer.gradient_clip_val if str(trainer.gradient_clip_algorithm or "norm").endswith("norm") else None
        self.plan(
            budget=int(budget) if math.isfinite(budget) and budget > 0 else None,
            steps_per_epoch=math.ceil(batches / accumulate) if math.isfinite(batches) and batches else None,
            accumulate=accumulate,
            clip_norm=clip or None,
        )
        optimizers = list(trainer.optimizers)
        self._updates_seen = trainer.global_step
        self.attach(pl_module, optimizers, step=trainer.global_step // max(1, len(optimizers)))
        self._began_at = time.perf_counter()

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:  # noqa: ANN401
        """What passed since the last batch was waiting for this one."""
        self.waited(time.perf_counter() - self._began_at)

    def on_before_optimizer_step(self, trainer: Any, pl_module: Any, optimizer: Any) -> None:  # noqa: ANN401
        """Gradients are there, before clipping."""
        self.gradients_ready(optimizer)

    def on_train_batch_end(
        self,
        trainer: Any,  # noqa: ANN401
        pl_module: Any,  # noqa: ANN401
        outputs: Any,  # noqa: ANN401
        batch: Any,  # noqa: ANN401
        batch_idx: int,
    ) -> None:
        """Count a step where an optimiser made one; the loss is that of all batches accumulated for it."""
        loss = outputs.get("loss") if isinstance(outputs, Mapping) else outputs
        if isinstance(loss, Tensor):
            # Lightning divides the loss of automatic optimisation by the number of batches accumulated.
            self._parts += (loss.detach(),)
        if trainer.global_step > self._updates_seen:
            self._updates_seen = trainer.global_step
            parts, self._parts = self._parts, ()
            self.step(sum(parts[1:], parts[0]) if parts else None, labels=_labels(batch))
            self._ask_to_stop(trainer)
        self._began_at = time.perf_counter()

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:  # noqa: ANN401
        """Take what training logged."""
        found = {name: value for name, value in trainer.callback_metrics.items() if name not in self._val_names}
        self.trained({_plain_name(name, TRAIN): value for name, value in found.items() if not name.startswith(VAL)})

    def on_validation_start(self, trainer: Any, pl_module: Any) -> None:  # noqa: ANN401
        """What is logged by now is of training."""
        self._known_names = frozenset(trainer.callback_metrics)

    def on_validation_batch_end(
        self,
        trainer: Any,  # noqa: ANN401
        pl_module: Any,  # noqa: ANN401
        outputs: Any,  # noqa: ANN401
        batch: Any,  # noqa: ANN401
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """See in which mode the model is scored."""
        if not trainer.sanity_checking and trainer.state.fn == "fit":
            self.evaluating(in_train_mode=bool(pl_module.training))

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:  # noqa: ANN401
        """Take what validation logged."""
        if trainer.sanity_checking or trainer.state.fn != "fit":
            return
        logged = trainer.callback_metrics
        new = {name for name in logged if name not in self._known_names and not name.startswith(TRAIN)}
        self._val_names |= new | {name for name in logged if name.startswith(VAL)}
        self.evaluated({_plain_name(name, VAL): value for name, value in logged.items() if name in self._val_names})
        self._ask_to_stop(trainer)
        self._began_at = time.perf_counter()

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:  # noqa: ANN401
        """Take the hooks out."""
        self.detach(finished=True)

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:  # noqa: ANN401
        """Take the hooks out."""
        self.detach()

    def _ask_to_stop(self, trainer: Any) -> None:  # noqa: ANN401
        """Every process sees its own losses; each stops for itself only where it is alone, else with all."""
        if self.should_stop and trainer.world_size == 1:
            trainer.should_stop = True

    # -------------------------------------------------------------------------------------------- hooks of no use
    def _nothing(self, *args: object, **kwargs: object) -> None:
        return None

    setup = teardown = on_fit_start = on_fit_end = _nothing
    on_sanity_check_start = on_sanity_check_end = _nothing
    on_train_epoch_start = on_before_backward = on_after_backward = on_before_zero_grad = _nothing
    on_validation_epoch_start = on_validation_epoch_end = on_validation_batch_start = _nothing
    on_test_start = on_test_end = on_test_epoch_start = on_test_epoch_end = _nothing
    on_test_batch_start = on_test_batch_end = _nothing
    on_predict_start = on_predict_end = on_predict_epoch_start = on_predict_epoch_end = _nothing
    on_predict_batch_start = on_predict_batch_end = _nothing
    on_save_checkpoint = on_load_checkpoint = _nothing


def _labels(batch: object) -> Tensor | None:
    """The class ids of a batch of images and labels; None where it is anything else."""
    if not isinstance(batch, Sequence) or len(batch) != 2 or not isinstance(batch[1], Tensor):
        return None
    return batch[1] if batch[1].ndim == 1 and not batch[1].is_floating_point() else None


def _plain_name(name: str, prefixes: Sequence[str]) -> str:
    """A metric's name without what says where it was measured."""
    for prefix in prefixes:
        name = name.removeprefix(prefix)
    return ALIASES.get(name, name)
