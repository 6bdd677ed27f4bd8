"""The progress bar of the doctor's long jobs: how far, how many, how long yet."""

from __future__ import annotations

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

__all__ = ["progress_bar"]


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
