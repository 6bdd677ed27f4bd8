"""Signals that end a run politely: the current step is finished and a checkpoint written."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, Self

__all__ = ["Interrupted", "Interruption"]

SIGNALS = ("SIGTERM", "SIGINT", "SIGUSR1")
"""What SLURM sends before it takes a machine away, Ctrl-C, and what `sbatch --signal=USR1@90` asks for."""


class Interrupted(BaseException):
    """Raised inside `Interruption.at_once` when a signal comes; no error, and no `except Exception` catches it."""


class Interruption:
    """While entered, the first signal of `SIGNALS` is noted in `signal` instead of ending the process.

    A second Ctrl-C ends the process as usual. Outside the main thread Python cannot listen to signals, so there nothing
    is noted.
    """

    def __init__(self) -> None:
        self.signal: str | None = None
        self._at_once = False
        self._process = os.getpid()
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for name in SIGNALS:
                number = getattr(signal, name, None)
                if number is not None:
                    self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        self._before.clear()

    def _note(self, number: int, frame: FrameType | None) -> None:
        del frame
        if os.getpid() != self._process:  # a forked loader worker: its parent decides when it ends
            return
        if self.signal is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.signal = signal.Signals(number).name
        if self._at_once:
            self._at_once = False
            raise Interrupted

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """Inside, a signal raises `Interrupted`: for work that can be done again from the start, such as scoring."""
        self._at_once = True
        try:
            if self.signal is not None:
                raise Interrupted
            yield
        finally:
            self._at_once = False
