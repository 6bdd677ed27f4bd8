"""Names of files for findings."""

from __future__ import annotations

from collections.abc import Iterable

from clearsight.data.dataset import Dataset
from clearsight.data.files import printable

__all__ = ["file_names"]


def file_names(dataset: Dataset, rows: Iterable[int]) -> list[str]:
    """Image files of some records, below the data's root where they lie there."""
    folder = dataset.root if dataset.root.is_dir() else dataset.root.parent
    paths = [dataset.records[row].image for row in rows]
    return [printable(path.relative_to(folder) if path.is_relative_to(folder) else path) for path in paths]
