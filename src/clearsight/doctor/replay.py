"""The step that a NaN or infinity appeared in, saved whole, and run again."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as from_safetensors
from safetensors.torch import save as to_safetensors
from torch import Tensor, nn

from clearsight.doctor.nonfinite import NonFinite, RandomState
from clearsight.doctor.step_keeper import KeptStep, explain_step
from clearsight.errors import CheckpointError, ConfigError, NotFound
from clearsight.types import Targets

__all__ = ["SavedStep", "load_step", "replay_step", "save_step"]

FORMAT = 1
"""Raised when the layout of the files changes."""

_FOLDER, _WEIGHTS, _BATCH, _STATE = "nonfinite", "weights.safetensors", "batch.safetensors", "state.json"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SavedStep:
    """What was saved of a step.

    Args:
        folder: of the files.
        weights: state dict before the update.
        training: modules that were in training mode.
        step: what the forward pass began with.
        found: what was found then; None where it was not looked for.
        facts: plain values about the step.
        recipe: of the run, nested plain values; empty where there is none.
    """

    folder: Path
    weights: dict[str, Tensor]
    training: frozenset[str]
    step: KeptStep
    found: NonFinite | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)
    recipe: Mapping[str, Any] = field(default_factory=dict)


def save_step(
    folder: Path,
    *,
    model: nn.Module,
    step: KeptStep,
    found: NonFinite | None = None,
    facts: Mapping[str, Any] | None = None,
    recipe: Mapping[str, Any] | None = None,
) -> Path:
    """Save all that running a step again takes: tensors and plain values, never code.

    Each file is written beside its place and renamed; the last one, `state.json`, has the checksums of the others.

    Args:
        folder: of the run; `nonfinite/` is made in it, and what was saved there before is replaced.
        model: with the weights of before the update.
        step: as a `StepKeeper` keeps it.
        found: what was found.
        facts: plain JSON values (step, files of the batch).
        recipe: of the run.

    Returns:
        The folder of the files.

    Raises:
        ConfigError: the step holds something else than tensors, `Targets`, plain values, and nests of them.
        CheckpointError: the files cannot be written.
    """
    tensors: dict[str, Tensor] = {}
    content = {
        "format": FORMAT,
        "torch": torch.__version__,
        "training": [name for name, one in model.named_modules() if one.training],
        "args": _pack(list(step.args), "args", tensors),
        "kwargs": _pack(dict(step.kwargs), "kwargs", tensors),
        "gradients": {str(place): _pack(one, f"gradients.{place}", tensors) for place, one in step.gradients.items()},
        "random": [_pack(one, f"random.{name}", tensors) for name, one in step.random_state._asdict().items()],
        "by_loss": step.by_loss,
        "autocast": None if step.autocast is None else [step.autocast[0], str(step.autocast[1]).removeprefix("torch.")],
        "found": None if found is None else found.as_dict(),
        "facts": dict(facts or {}),
        "recipe": dict(recipe or {}),
    }
    weights = {name: _plain(one) for name, one in model.state_dict().items() if isinstance(one, Tensor)}
    files = {_WEIGHTS: to_safetensors(weights), _BATCH: to_safetensors(tensors)}
    content["sha256"] = {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}
    try:
        text = json.dumps(content, indent=1, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"save_step: facts and recipe must be plain JSON values: {error}") from error
    target = Path(folder) / _FOLDER
    try:
        target.mkdir(parents=True, exist_ok=True)
        for name, data in (*files.items(), (_STATE, text.encode())):
            _replace(target / name, data)
    except OSError as error:
        raise CheckpointError(f"{target}: the step could not be saved: {error}; make room or permit writing") from error
    return target


def load_step(folder: Path) -> SavedStep:
    """Read what `save_step` wrote; nothing in the files is ever run.

    Args:
        folder: of the run, or its `nonfinite/`.

    Raises:
        NotFound: there is no such folder, or no step was saved in it.
        CheckpointError: a file is missing, damaged, or of another save or version.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise NotFound(f"{folder}: no such folder; give the folder of a run")
    if not (folder / _STATE).is_file():
        folder = folder / _FOLDER
    if not (folder / _STATE).is_file():
        raise NotFound(f"{folder}: no step was saved here; one is when the loss or a gradient becomes NaN or infinite")
    try:
        content = json.loads((folder / _STATE).read_text(encoding="utf-8"))
        if not isinstance(content, dict) or content.get("format") != FORMAT:
            raise CheckpointError(f"{folder / _STATE}: not of format {FORMAT}; use the version that wrote it")
        weights, tensors = (_read(folder / name, content["sha256"][name]) for name in (_WEIGHTS, _BATCH))
        cpu, cuda = (_unpack(one, tensors) for one in content["random"])
        autocast = content["autocast"]
        step = KeptStep(
            args=tuple(_unpack(content["args"], tensors)),
            kwargs=_unpack(content["kwargs"], tensors),
            by_loss=bool(content["by_loss"]),
            random_state=RandomState(cpu, cuda),
            autocast=None if autocast is None else (autocast[0], getattr(torch, autocast[1])),
            gradients={int(place): _unpack(one, tensors) for place, one in content["gradients"].items()},
        )
        return SavedStep(
            folder=folder,
            weights=weights,
            training=frozenset(content["training"]),
            step=step,
            found=None if content["found"] is None else NonFinite.from_dict(content["found"]),
            facts=content["facts"],
            recipe=content["recipe"],
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError, SafetensorError) as error:
        reason = str(error).split("\n")[0] or type(error).__name__
        raise CheckpointError(f"{folder}: damaged: {reason}; the step cannot be replayed, remove the folder") from error


def replay_step(model: nn.Module, saved: SavedStep) -> NonFinite:
    """Run a saved step again and find what was found then.

    Args:
        model: of the same kind; gets the saved weights and modes.
        saved: what `load_step` gave.

    Returns:
        On the same device with the same version of PyTorch, the same finding, number by number.

    Raises:
        CheckpointError: the weights are another model's, or all is finite now.
    """
    wanted = model.state_dict()
    wrong = sorted(set(wanted) ^ set(saved.weights))
    wrong += [name for name in wanted if name not in wrong and wanted[name].shape != saved.weights[name].shape]
    if wrong:
        some = ", ".join(wrong[:3]) + (", …" if len(wrong) > 3 else "")
        raise CheckpointError(
            f"{saved.folder}: was saved of another model: {len(wrong)} tensors differ ({some}); build the model with "
            "the recipe of that run"
        )
    model.load_state_dict(saved.weights)
    for name, module in model.named_modules():
        module.training = name in saved.training
    device = next((one.device for one in model.parameters()), torch.device("cpu"))
    step = KeptStep(
        args=_moved(saved.step.args, device),
        kwargs=_moved(dict(saved.step.kwargs), device),
        by_loss=saved.step.by_loss,
        random_state=saved.step.random_state,
        autocast=None if saved.step.autocast is None else (device.type, saved.step.autocast[1]),
        gradients={place: one.to(device) for place, one in saved.step.gradients.items()},
    )
    found = explain_step(model, step)
    if found is None:
        raise CheckpointError(
            f"{saved.folder}: all is finite when the step is run again on {device.type} with PyTorch "
            f"{torch.__version__}; replay it on the device and with the version that it was saved with"
        )
    return found


# ------------------------------------------------------------------------------------------------ files
def _replace(path: Path, data: bytes) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise


def _read(path: Path, checksum: str) -> dict[str, Tensor]:
    data = path.read_bytes()
    if hashlib.sha256(data).hexdigest() != checksum:
        raise ValueError(f"{path.name} is not the file that belongs to {_STATE}")
    return from_safetensors(data)


# ------------------------------------------------------------------------------------------------ nests of tensors
def _plain(tensor: Tensor) -> Tensor:
    """A copy of its own on the CPU, as safetensors wants it."""
    return tensor.detach().cpu().as_subclass(Tensor).clone(memory_format=torch.contiguous_format)


def _pack(value: Any, name: str, tensors: dict[str, Tensor]) -> Any:  # noqa: ANN401
    """Plain JSON that stands for a nest; its tensors go to `tensors`."""
    if isinstance(value, Tensor):
        tensors[name] = _plain(value)
        last = value.ndim == 4 and value.is_contiguous(memory_format=torch.channels_last) and not value.is_contiguous()
        return {"kind": "tensor", "name": name, "channels_last": last, "grad": value.requires_grad}
    if value is None or isinstance(value, bool | int | float | str):
        return {"kind": "plain", "value": value}
    if isinstance(value, list | tuple):
        items = [_pack(one, f"{name}.{place}", tensors) for place, one in enumerate(value)]
        return {"kind": "list" if isinstance(value, list) else "tuple", "items": items}
    if isinstance(value, Targets):
        fields = {slot: getattr(value, slot) for slot in Targets.__slots__}
        return {"kind": "targets", "items": {key: _pack(one, f"{name}.{key}", tensors) for key, one in fields.items()}}
    if isinstance(value, dict) and all(isinstance(key, str) for key in value):
        return {"kind": "dict", "items": {key: _pack(one, f"{name}.{key}", tensors) for key, one in value.items()}}
    raise ConfigError(
        f"save_step: {name} is a {type(value).__name__}; expected tensors, Targets, plain values, and lists, tuples "
        "and dicts of them"
    )


def _unpack(packed: dict[str, Any], tensors: Mapping[str, Tensor]) -> Any:  # noqa: ANN401
    kind = packed["kind"]
    if kind == "tensor":
        tensor = tensors[packed["name"]]
        if packed["channels_last"]:
            tensor = tensor.contiguous(memory_format=torch.channels_last)
        return tensor.requires_grad_(packed["grad"])
    if kind == "plain":
        return packed["value"]
    if kind in ("list", "tuple"):
        items = [_unpack(one, tensors) for one in packed["items"]]
        return items if kind == "list" else tuple(items)
    fields = {key: _unpack(one, tensors) for key, one in packed["items"].items()}
    return Targets(**fields) if kind == "targets" else fields


def _moved(value: Any, device: torch.device) -> Any:  # noqa: ANN401
    if isinstance(value, Tensor | Targets):
        return value.to(device)
    if isinstance(value, list | tuple):
        return type(value)(_moved(one, device) for one in value)
    if isinstance(value, dict):
        return {key: _moved(one, device) for key, one in value.items()}
    return value
