"""Scans on disk: a file is found again while the data and its files' sizes and times are the same."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from clearsight.data.dataset import Dataset

__all__ = ["cache_key", "load_arrays", "remove_older", "save_arrays"]

_VERSION = 1
"""Of what a scan measures; raised whenever the same file would give other numbers."""

_DAMAGED = (
    OSError,
    ValueError,
    KeyError,
    SyntaxError,
    EOFError,
    MemoryError,
    NotImplementedError,
    zipfile.BadZipFile,
    zlib.error,
)
_ROOT = 16  # digits of a key that name the folder of the data


def cache_key(dataset: Dataset) -> str:
    """Name of a data set's scan: 16 hexadecimal digits of where it lies, and 64 of what it is.

    The latter are of the data's fingerprint, and of the path, size and time of change of every image, in the order of
    the records. A file that is written anew with the same size has another time, so its scan is not found.
    """
    whole = hashlib.sha256(f"{_VERSION} {dataset.fingerprint()}".encode())
    for record in dataset.records:
        try:
            known = record.image.stat()
            state = (known.st_size, known.st_mtime_ns)
        except OSError:
            state = (-1, -1)
        whole.update(json.dumps([os.fsdecode(record.image), *state, len(record.objects)]).encode())
    root = hashlib.sha256(os.fsencode(dataset.root.absolute())).hexdigest()[:_ROOT]
    return f"{root}-{whole.hexdigest()}"


def remove_older(path: Path, *, keep: int = 4) -> None:
    """Remove all but the newest scans of the same folder of data, so that edited data leaves no scan for each edit."""
    try:
        same = sorted(path.parent.glob(f"{path.name[:_ROOT]}-*.npz"), key=lambda file: file.stat().st_mtime_ns)
        for file in same[:-keep]:
            file.unlink(missing_ok=True)
    except OSError:
        return


def load_arrays(path: Path) -> dict[str, np.ndarray] | None:
    """Arrays by name; None where there is no such file, or it is damaged (checksums are compared)."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays.files}
    except _DAMAGED:
        return None


def save_arrays(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write arrays, whole or not at all. A folder that cannot be written is no error: then nothing is kept."""
    part: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=path.stem, suffix=".part")
        part = Path(name)
        with os.fdopen(handle, "wb") as file:
            np.savez(file, **arrays)  # pyright: ignore[reportArgumentType] - its stub takes the names for options
        part.replace(path)
    except OSError:
        if part is not None:
            part.unlink(missing_ok=True)
