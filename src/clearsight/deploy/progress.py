"""A progress bar that appears only when work takes long enough to ask for one."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

__all__ = ["late_progress"]


@contextmanager
def late_progress(title: str, total: int, *, quiet: bool = False, after: float = 2.0) -> Iterator[Callable[[], None]]:
    """Gives a function to call after each of `total` pieces of work; the bar is drawn on stderr, in terminals only.

    Args:
        title: what is being done.
        total: number of pieces.
        quiet: show nothing.
        after: seconds of work before the bar appears.
    """
    console = Console(stderr=True)
    hidden = quiet or not console.is_terminal
    bar = Progress(
        TextColumn(title),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=hidden,
    )
    task = bar.add_task(title, total=total)
    begun = time.monotonic()

    def advance() -> None:
        bar.advance(task)
        if not hidden and not bar.live.is_started and time.monotonic() - begun > after:
            bar.start()

    try:
        yield advance
    finally:
        if bar.live.is_started:  # stopping what never started prints an empty line
            bar.stop()
