"""Checkpoints: one file with everything a run needs to go on as if nothing had happened, written atomically.

A checkpoint holds tensors and plain values only, and is loaded with `weights_only`: reading one never runs code.
"""

from __future__ import annotations

import contextlib
import errno
import os
import pickle
import shutil
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor

from clearsight.errors import CheckpointError

__all__ = [
    "check_same_model",
    "load_checkpoint",
    "model_differences",
    "remove_leftovers",
    "replace_file",
    "save_checkpoint",
    "share_file",
]

FORMAT = 1
"""Raised when the layout of the file changes."""


def save_checkpoint(path: Path, payload: Mapping[str, Any]) -> Path:
    """Write a checkpoint so that `path` holds either the old or the new one, whole, whatever happens meanwhile.

    The bytes go to a temporary file in the same folder, are synced to the disk and renamed; then the folder is synced.

    Args:
        path: where to; the folder exists.
        payload: tensors and plain values.

    Returns:
        `path`.

    Raises:
        CheckpointError: the disk is full or not writable; the checkpoint that was there before is untouched.
    """
    content = {"format": FORMAT, **payload}
    return replace_file(path, lambda file: torch.save(content, file))


def replace_file(path: Path, write: Callable[[IO[bytes]], object]) -> Path:
    """Let `write` fill a temporary file beside `path`, sync it and rename it to `path`; see `save_checkpoint`."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        _sync_folder(path.parent)
    except (OSError, RuntimeError) as err:  # torch's writer turns a full disk into a RuntimeError
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise CheckpointError(_could_not_write(path, err)) from err
    return path


def share_file(source: Path, target: Path) -> None:
    """Make `target` hold what `source` holds, atomically: a hard link where the file system has them, else a copy."""
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        with contextlib.suppress(OSError):
            temporary.unlink()
        try:
            os.link(source, temporary)
        except OSError:
            shutil.copyfile(source, temporary)
        temporary.replace(target)
        _sync_folder(target.parent)
    except OSError as err:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise CheckpointError(_could_not_write(target, err)) from err


def remove_leftovers(*folders: Path) -> None:
    """Remove half-written files that killed processes left in these folders."""
    for folder in folders:
        for leftover in folder.glob(".*.tmp"):
            leftover.unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    """Make a rename durable; Windows cannot open folders and needs no such call."""
    if os.name == "nt":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _could_not_write(path: Path, err: Exception) -> str:
    kept = f"the previous {path.name} is untouched" if path.exists() else "there was none before"
    free = shutil.disk_usage(path.parent).free / 2**20 if path.parent.exists() else 0.0
    if isinstance(err, OSError):
        full = err.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    else:
        full = "unexpected pos" in str(err) or "write" in str(err)  # torch's writer, of a file that does not grow
    reason = "the disk or the quota is full" if full else str(err).split("\n")[0]
    return (
        f"{path}: could not be written: {reason} ({free:.1f} MiB free); {kept}; make room or permit writing, "
        "then resume the run"
    )


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint onto the CPU, without running anything that is in it.

    Args:
        path: a file that `save_checkpoint` wrote.

    Returns:
        The payload.

    Raises:
        CheckpointError: missing, damaged (each member's checksum is compared), not a checkpoint, of another version, or
            with anything but tensors and plain values in it.
    """
    if not path.is_file():
        raise CheckpointError(f"{path}: no such checkpoint; give the folder of a run, or start the run without resume")
    try:
        with zipfile.ZipFile(path) as archive:  # torch.load does not compare checksums
            bad = archive.testzip()
        if bad is not None:
            raise CheckpointError(_damaged(path, f"the checksum of its part {bad!r} is wrong"))
        payload = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as err:
        raise CheckpointError(
            f"{path}: holds something else than tensors and plain values, so it was not read: a clearsight checkpoint "
            "never does, and reading other objects can run code; do not use this file"
        ) from err
    except (OSError, RuntimeError, ValueError, EOFError, KeyError, zipfile.BadZipFile) as err:
        if isinstance(err, CheckpointError):
            raise
        raise CheckpointError(_damaged(path, str(err).split("\n")[0] or type(err).__name__)) from err
    found = payload.get("format") if isinstance(payload, dict) else None
    if found != FORMAT:
        raise CheckpointError(
            f"{path}: expected a clearsight checkpoint of format {FORMAT}, found {_kind(payload)}; "
            "use the version of clearsight that wrote it, or start anew"
        )
    return payload


def _kind(payload: object) -> str:
    if isinstance(payload, dict) and "format" in payload:
        return f"format {payload['format']!r}"
    return f"a {type(payload).__name__} without a format"


def _damaged(path: Path, reason: str) -> str:
    others = sorted(p.name for p in path.parent.glob("*.ckpt") if p != path)
    instead = f"try {' or '.join(others)} of the same folder in its place" if others else "start the run anew"
    return f"{path}: damaged or not a checkpoint: {reason}; {instead}"


def model_differences(saved: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> list[str]:
    """How saved weights differ from a model's, in words; empty when they fit."""
    missing = [name for name in wanted if name not in saved]
    unexpected = [name for name in saved if name not in wanted]
    reshaped = [
        f"{name} is {tuple(saved[name].shape)} in the file and {tuple(wanted[name].shape)} in the model"
        for name in wanted
        if name in saved and saved[name].shape != wanted[name].shape
    ]
    lines = []
    if missing:
        lines.append(f"{len(missing)} tensors of the model are not in the file ({_some(missing)})")
    if unexpected:
        lines.append(f"{len(unexpected)} tensors of the file are not in the model ({_some(unexpected)})")
    if reshaped:
        lines.append(f"{len(reshaped)} tensors have another shape ({_some(reshaped)})")
    return lines


def check_same_model(path: Path, saved: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> None:
    """Raise CheckpointError, saying what differs, unless the saved weights fit the model."""
    lines = model_differences(saved, wanted)
    if lines:
        raise CheckpointError(
            f"{path}: is a checkpoint of another model: {'; '.join(lines)}; resume with the recipe that wrote it, "
            "or start a new run (load weights into another model with model.weights)"
        )


def _some(names: list[str], limit: int = 3) -> str:
    return ", ".join(names[:limit]) + (", …" if len(names) > limit else "")
