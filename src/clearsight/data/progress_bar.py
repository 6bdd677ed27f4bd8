"""The progress bar of long jobs: how far, how many, how long yet; at once, or when work turns out to be long."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

__all__ = ["late_progress", "progress_bar"]


def progress_bar(text: str, *, shown: bool) -> Progress:
    """A bar on standard error that is gone when it is done.

    Args:
        text: in front of it; `{task.description}` stands for what is being done.
        shown: whether it is wanted; in anything but a terminal it is not drawn all the same.
    """
    console = Console(stderr=True)
    return Progress(
        TextColumn(text),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=not (shown and console.is_terminal),
    )


@contextmanager
def late_progress(title: str, total: int, *, quiet: bool = False, after: float = 2.0) -> Iterator[Callable[[], None]]:
    """Gives a function to call after each of `total` pieces of work; the bar is drawn only when they take long.

    Args:
        title: what is being done.
        total: number of pieces.
        quiet: show nothing.
        after: seconds of work before the bar appears.
    """
    bar = progress_bar(title, shown=not quiet)
    task = bar.add_task(title, total=total)
    begun = time.monotonic()

    def advance() -> None:
        bar.advance(task)
        if not bar.disable and not bar.live.is_started and time.monotonic() - begun > after:
            bar.start()

    try:
        yield advance
    finally:
        if bar.live.is_started:  # stopping what never started prints an empty line
            bar.stop()
