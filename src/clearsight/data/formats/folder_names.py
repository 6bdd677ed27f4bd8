"""What folder and list files are called, for the formats that keep no file of their own about it."""

from __future__ import annotations

from pathlib import Path

from clearsight.data.files import read_text
from clearsight.types import Finding

__all__ = ["SPLIT_FOLDERS", "folders_of", "listed_classes"]

SPLIT_FOLDERS = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
}
"""Folder names, in lower case, that name a split."""


def folders_of(path: Path) -> list[Path]:
    """The folders directly below a path, sorted; hidden ones are passed over."""
    if not path.is_dir():
        return []
    return sorted(entry for entry in path.iterdir() if entry.is_dir() and not entry.name.startswith("."))


def listed_classes(root: Path, findings: list[Finding]) -> tuple[str, ...]:
    """Class names in label order from `classes.txt`, one a line; empty where there is none."""
    path = root / "classes.txt"
    if not path.is_file():
        return ()
    return tuple(line.strip() for line in read_text(path, findings).splitlines() if line.strip())
