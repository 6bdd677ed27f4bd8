"""One judgement an image, in threads, with a bar on the terminal where it takes long."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from clearsight.data.progress_bar import late_progress
from clearsight.types import Record

__all__ = ["PATIENCE", "in_threads"]

PATIENCE = 2.0
"""Seconds after which a progress bar is shown."""

Judged = TypeVar("Judged")


def in_threads(
    judge: Callable[[Record], Judged], records: Sequence[Record], *, workers: int, title: str
) -> Iterator[Judged]:
    """What `judge` says of each record, in the order of the records.

    Args:
        judge: called in several threads at once.
        records: what to judge.
        workers: threads; 0 takes one a core, at most 16.
        title: beside the bar.
    """
    threads = workers or min(16, os.cpu_count() or 1)
    with (
        ThreadPoolExecutor(threads) as pool,
        warnings.catch_warnings(),
        late_progress(title, len(records), after=PATIENCE) as advance,
    ):
        warnings.simplefilter("ignore")  # Pillow's, on files that get a finding of ours
        for result in pool.map(judge, records):
            advance()
            yield result
