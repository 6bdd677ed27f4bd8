"""One judgement an image, in threads, with a bar on the terminal where it takes long."""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from rich.console import Console
from rich.progress import Progress

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
    start, progress = time.monotonic(), Progress(console=Console(stderr=True), transient=True)
    task, shown = progress.add_task(title, total=len(records)), False
    with ThreadPoolExecutor(threads) as pool, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's, on files that get a finding of ours
        try:
            for done, result in enumerate(pool.map(judge, records), start=1):
                if not shown and time.monotonic() - start > PATIENCE:
                    progress.start()
                    shown = True
                progress.update(task, completed=done)
                yield result
        finally:
            progress.stop()
