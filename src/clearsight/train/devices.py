"""Where and how a run computes: device, processes, precision, repeatable algorithms."""

from __future__ import annotations

import atexit
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch

from clearsight.errors import ConfigError
from clearsight.recipe.schema import TrainerConfig

if TYPE_CHECKING:
    from lightning_fabric import Fabric

__all__ = ["cpu_has_bf16", "make_fabric", "repeatable", "resolve_precision"]

SHARDED = ("fsdp", "deepspeed", "xla", "model_parallel")


def make_fabric(trainer: TrainerConfig) -> Fabric:
    """Lightning Fabric set up and launched as the recipe says.

    Under `torchrun` and SLURM the numbers of processes and machines come from the launcher; `trainer.devices` and
    `trainer.nodes` are for runs that start their own processes.

    Raises:
        ConfigError: the accelerator, device count or strategy cannot be had here.
    """
    from lightning_fabric import Fabric

    if any(name in trainer.strategy for name in SHARDED):
        raise ConfigError(
            f"trainer.strategy: found {trainer.strategy!r}, which splits the weights over processes; averaged weights "
            "and exact checkpoints need whole ones, so use 'auto' or 'ddp'"
        )
    devices, nodes = _launched_with() or (trainer.devices, trainer.nodes)
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS repeats its sums only with a fixed workspace
    speaker = logging.getLogger("lightning_fabric")
    level = speaker.level
    speaker.setLevel(logging.WARNING)  # what it says of precision and processes stands in the recipe
    try:
        accelerator = trainer.accelerator
        if accelerator == "auto":
            accelerator = "cuda" if torch.cuda.is_available() else "mps" if _has_mps() else "cpu"
        fabric = Fabric(
            accelerator=accelerator,
            devices=devices,
            num_nodes=nodes,
            strategy=trainer.strategy,
            precision=cast("Any", resolve_precision(trainer.precision, accelerator)),
        )
        fabric.launch()
    except (ValueError, RuntimeError, TypeError) as err:  # Fabric's own messages name the setting
        raise ConfigError(
            f"trainer: accelerator={trainer.accelerator!r}, devices={devices!r}, nodes={nodes}, strategy="
            f"{trainer.strategy!r}, precision={trainer.precision!r} cannot be had here: {err}"
        ) from err
    finally:
        speaker.setLevel(level)
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        atexit.unregister(_leave_group)
        atexit.register(_leave_group)
    return fabric


def _leave_group() -> None:
    """Join the threads of the process group: those of gloo, left alone, now and then abort a process that is done."""
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def _launched_with() -> tuple[int, int] | None:
    """(processes a machine, machines) as torchrun or SLURM's srun started us; None for a plain process."""
    env = os.environ
    if "TORCHELASTIC_RUN_ID" in env:
        local = int(env["LOCAL_WORLD_SIZE"])
        return local, int(env["WORLD_SIZE"]) // local
    # Set for the tasks that srun starts, and not in the batch script around it, where nobody else would ever join us.
    tasks = int(env.get("SLURM_STEP_NUM_TASKS", "1"))
    if tasks > 1:
        nodes = int(env.get("SLURM_STEP_NUM_NODES", "1"))
        return tasks // nodes, nodes
    return None


def resolve_precision(precision: str, accelerator: str) -> str:
    """Turn `auto` into `bf16-mixed` where the device multiplies bf16 natively, else into `32-true`.

    bf16 keeps the range of float32, so it needs no loss scaling; where it is emulated it is slower than float32. fp16
    is for GPUs: on a CPU `16-mixed` means `auto`, so that runs of a GPU can be scored anywhere.

    Args:
        precision: as in the recipe.
        accelerator: `cpu`, `cuda` (or `gpu`) or `mps`.
    """
    if precision != "auto" and not (precision == "16-mixed" and accelerator == "cpu"):
        return precision
    if accelerator in ("cuda", "gpu"):
        native = torch.cuda.is_available() and torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        native = accelerator == "cpu" and cpu_has_bf16()
    return "bf16-mixed" if native else "32-true"


def cpu_has_bf16(cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    """Whether the processor multiplies bf16 natively (AVX512-BF16, AMX-BF16 or ARM BF16), as the kernel reports it.

    Args:
        cpuinfo: the kernel's file of processor flags; where it does not exist (macOS, Windows) the answer is False.
    """
    if not cpuinfo.is_file():
        return False
    for line in cpuinfo.read_text(errors="replace").splitlines():
        name, _, flags = line.partition(":")
        if name.strip() in ("flags", "Features"):
            return not {"avx512_bf16", "amx_bf16", "bf16"}.isdisjoint(flags.split())
    return False


def _has_mps() -> bool:
    return torch.backends.mps.is_available()


@contextmanager
def repeatable(*, enabled: bool) -> Iterator[None]:
    """Inside, only algorithms that give the same bits each time (or a warning where there is none); restored after.

    Args:
        enabled: False lets cuDNN choose the fastest algorithm by trying.
    """
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    fill = torch.utils.deterministic.fill_uninitialized_memory  # pyright: ignore[reportAttributeAccessIssue]
    cudnn = torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic
    torch.use_deterministic_algorithms(enabled, warn_only=True)
    # Filling every fresh buffer with NaN costs time and guards against a fault that tests look for, not runs.
    torch.utils.deterministic.fill_uninitialized_memory = False  # pyright: ignore[reportAttributeAccessIssue]
    torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic = not enabled, enabled
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])
        torch.utils.deterministic.fill_uninitialized_memory = fill  # pyright: ignore[reportAttributeAccessIssue]
        torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic = cudnn
