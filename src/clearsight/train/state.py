"""Everything that changes while a run goes, in one place: what a checkpoint holds and a resume puts back."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, cast

import torch
from torch import nn
from torch.optim import Optimizer

from clearsight.errors import CheckpointError, ConfigError
from clearsight.recipe.schema import OptimizerConfig, ScheduleConfig, TrainerConfig
from clearsight.train.average import Ema, Swa
from clearsight.train.checkpoint import check_same_model, load_checkpoint
from clearsight.train.observe import Observers, Position, StopRequest
from clearsight.train.optimise import build_optimizer
from clearsight.train.random_state import random_state, seed_streams, set_random_state
from clearsight.train.schedule import Schedule
from clearsight.train.step import LossModule
from clearsight.types import Batch

if TYPE_CHECKING:
    from lightning_fabric import Fabric

__all__ = ["Best", "RunState", "Settings", "SizedBatches", "differences"]

CHANGEABLE = (
    "trainer.epochs",
    "trainer.steps",
    "trainer.minutes",
    "trainer.checkpoint_steps",
    "loader.workers",
    "loader.cache",
    "loader.eval_batch_size",
    "data.root",
    "watch.enabled",
    "watch.every",
    "watch.stop",
    "name",
    "description",
)
"""What may differ between a checkpoint and the recipe that resumes it: how long, where, and how fast."""


class SizedBatches(Protocol):
    """What the loop needs of a loader; `data.loader.Loader` is one."""

    def __len__(self) -> int:
        """Batches of one epoch that this process gets."""
        ...

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """An iterator over the batches of an epoch, from batch number `start` on; the same ones at each call."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What decides a run besides its model and data.

    Args:
        optimizer: the update rule.
        schedule: the rate over the run.
        trainer: length, precision, averaging, clipping, checkpoints.
        monitor: metric that picks the best weights; larger is better, but for those of `loop.LOWER_IS_BETTER`.
        identity: plain values that a checkpoint must share with the run that resumes it, such as the recipe.
    """

    optimizer: OptimizerConfig
    schedule: ScheduleConfig
    trainer: TrainerConfig
    monitor: str = "map"
    identity: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Best:
    """The best evaluation so far: its score (larger is better), its metrics, and when it was."""

    score: float
    metrics: dict[str, float]
    epoch: int
    step: int


class RunState:
    """Model, optimiser, schedule, average and position of a run, placed on the device.

    Args:
        fabric: launched.
        model: has `loss`; it is moved to the device and trained in place.
        settings: see `Settings`.
        observers: their states are part of the checkpoint.
    """

    def __init__(self, fabric: Fabric, model: nn.Module, settings: Settings, observers: Observers) -> None:
        trainer = settings.trainer
        self.fabric = fabric
        self.settings = settings
        self.observers = observers
        self.model = model
        # Not for lbfgs: PyTorch's flattens gradients as if they were laid out channels-first.
        if trainer.channels_last and settings.optimizer.name != "lbfgs":
            model.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        if trainer.sync_batch_norm and fabric.world_size > 1:
            model = _synchronised(model, fabric)
        self.module = fabric.setup_module(LossModule(model))
        fused = getattr(fabric.strategy.precision, "scaler", None) is None
        optimizer = build_optimizer(model, settings.optimizer, fused=fused)
        self.optimizer = cast("Optimizer", fabric.setup_optimizers(optimizer))
        self.schedule = Schedule(settings.schedule)
        self.average = _average_of(model, trainer)
        if trainer.compile:  # after the average was copied: it runs rarely and is not worth compiling
            model.forward = torch.compile(model.forward)
        self.position = Position()
        self.best: Best | None = None
        self.evaluated_step = -1
        model.train()
        seed_streams(trainer.seed, rank=fabric.global_rank)

    @property
    def scored_model(self) -> nn.Module:
        """The weights that are scored and kept: averaged ones where averaging is on."""
        average = self.average
        return self.model if average is None or (isinstance(average, Swa) and not average.updates) else average.model

    def payload(self) -> dict[str, Any]:
        """What a checkpoint holds; to be called in every process, because each has random streams of its own."""
        random_states: list[Any] = [random_state()]
        if self.fabric.world_size > 1:
            random_states = [None] * self.fabric.world_size
            torch.distributed.all_gather_object(random_states, random_state())
        stop = self.observers.stop
        return {
            "identity": dict(self.settings.identity),
            "model": self.model.state_dict(),
            "average": None if self.average is None else self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "precision": self.fabric.strategy.precision.state_dict(),
            "position": asdict(self.position),
            "random": random_states,
            "observers": self.observers.state_dict(),
            "best": None if self.best is None else asdict(self.best),
            "evaluated_step": self.evaluated_step,
            "stop": None if stop is None else stop.reason,
        }

    def restore(self, path: Path) -> None:
        """Put everything back to what a checkpoint says.

        Raises:
            CheckpointError: the file is missing or damaged, or is of another model or recipe; says what differs.
        """
        saved = load_checkpoint(path)
        check_same_model(path, saved["model"], self.model.state_dict())
        changed = differences(saved["identity"], self.settings.identity)
        if changed:
            raise CheckpointError(
                f"{path}: is a checkpoint of another recipe or other data: {'; '.join(changed)}; resume with the "
                f"recipe that wrote it, or start a new run. Only these may change: {', '.join(CHANGEABLE)}"
            )
        if (saved["average"] is None) != (self.average is None):
            raise CheckpointError(f"{path}: weights are averaged in only one of checkpoint and run; see trainer.ema")
        if len(saved["random"]) != self.fabric.world_size:
            raise CheckpointError(
                f"{path}: written by {len(saved['random'])} processes, found {self.fabric.world_size}: each has random "
                "streams of its own; resume with as many"
            )
        self.model.load_state_dict(saved["model"])
        if self.average is not None:
            self.average.load_state_dict(saved["average"])
        self.optimizer.load_state_dict(saved["optimizer"])
        self.schedule.load_state_dict(saved["schedule"])
        self.fabric.strategy.precision.load_state_dict(saved["precision"])
        self.position = Position(**saved["position"])
        self.best = None if saved["best"] is None else Best(**saved["best"])
        self.evaluated_step = saved["evaluated_step"]
        self.observers.load_state_dict(saved["observers"])
        self.observers.stop = None if saved["stop"] is None else StopRequest(saved["stop"])
        set_random_state(saved["random"][self.fabric.global_rank])


def _synchronised(model: nn.Module, fabric: Fabric) -> nn.Module:
    """The model with batch norms that look at the images of all processes; parameters and names stay."""
    if fabric.device.type == "cpu":
        raise ConfigError(
            "trainer.sync_batch_norm: PyTorch synchronises batch norms on GPUs only, and this run is on CPUs; set it "
            "to false, or use model.norm=group, which looks at each image alone"
        )
    return nn.SyncBatchNorm.convert_sync_batchnorm(model)


def _average_of(model: nn.Module, trainer: TrainerConfig) -> Ema | Swa | None:
    """The average that a recipe asks for."""
    if trainer.swa_at < 1:
        return Swa(model)
    return Ema(model, trainer.ema) if trainer.ema > 0 else None


def differences(saved: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[str]:
    """Keys whose values differ, dotted, as `key: saved → wanted`; those of `CHANGEABLE` are left out."""
    before, now = dict(_flat(saved)), dict(_flat(wanted))
    keys = [key for key in {**before, **now} if before.get(key) != now.get(key)]
    return [f"{key}: {before.get(key)!r} → {now.get(key)!r}" for key in keys if not _changeable(key)]


def _changeable(key: str) -> bool:
    return key.removeprefix("recipe.") in CHANGEABLE


def _flat(values: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    pairs: list[tuple[str, Any]] = []
    for key, value in values.items():
        if isinstance(value, Mapping):
            pairs += _flat(value, f"{prefix}{key}.")
        else:
            pairs.append((prefix + key, list(value) if isinstance(value, tuple) else value))
    return pairs
