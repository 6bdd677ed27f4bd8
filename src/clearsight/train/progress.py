"""What a person sees while a run goes: a bar with the time left, or a line an epoch where there is no terminal."""

from __future__ import annotations

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn

from clearsight.train.observe import Ended, Evaluated, Observer, Started, Stepped

__all__ = ["ProgressReport", "duration"]

SMOOTHING = 0.9
"""Share that the past keeps in the running speed and loss."""
SHOWN = ("map", "map_50", "miou", "dice", "accuracy", "balanced_accuracy", "macro_f1", "loss")


class ProgressReport(Observer):
    """A Rich progress bar on a terminal; elsewhere one line at each evaluation or epoch.

    Args:
        console: where to; None is the error output, so that the standard output stays free for results.
    """

    name = "progress"

    def __init__(self, console: Console | None = None) -> None:
        self.console = Console(stderr=True) if console is None else console
        self._bar: Progress | None = None
        self._task: TaskID | None = None
        self._start: Started | None = None
        self._seconds_a_step: float | None = None
        self._images_a_second = 0.0
        self._loss: float | None = None
        self._metrics = ""
        self._before = (0, 0.0)  # step and elapsed at the last event
        self._epoch = 0

    def on_start(self, event: Started) -> None:
        """Show the bar."""
        self._start = event
        self._before = event.position.step, event.position.elapsed
        self._epoch = event.position.epoch + 1
        if self.console.is_terminal:
            self._bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(bar_width=None),
                TextColumn("{task.percentage:3.0f} %"),
                TextColumn("{task.fields[facts]}"),
                console=self.console,
                transient=False,
            )
            self._task = self._bar.add_task(self._where(), total=1.0, facts="")
            self._bar.start()
        elif event.position.step:
            self.console.print(f"going on after step {event.position.step}", highlight=False)

    def on_step(self, event: Stepped) -> None:
        """Move the bar."""
        step, elapsed = event.position.step, event.position.elapsed
        seconds = (elapsed - self._before[1]) / max(1, step - self._before[0])
        self._before = step, elapsed
        self._seconds_a_step = _smooth(self._seconds_a_step, seconds)
        self._images_a_second = event.images / max(self._seconds_a_step, 1e-9)
        self._loss = _smooth(self._loss, event.loss)
        self._epoch = event.epoch
        if self._bar is not None and self._task is not None:
            done, left = self._share(step, elapsed)
            self._bar.update(self._task, completed=done, description=self._where(), facts=self._facts(left))

    def on_evaluate(self, event: Evaluated) -> None:
        """Show the metrics; the time of scoring is no step's."""
        step, elapsed = event.position.step, event.position.elapsed
        self._before = step, elapsed
        chosen = [name for name in SHOWN if name in event.metrics] or sorted(event.metrics)[:3]
        self._metrics = ", ".join(f"{name} {event.metrics[name]:.3f}" for name in chosen)
        best = " (best)" if event.is_best else ""
        if self._bar is None:
            _, left = self._share(step, elapsed)
            line = f"{self._where()}, {self._facts(left)}{best}"
        else:
            line = f"{self._where()}: {self._metrics}{best}"
        self.console.print(line, highlight=False, soft_wrap=True)

    def on_end(self, event: Ended) -> None:
        """Take the bar away and say how it ended."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None
        word = "failed" if event.failed else "ended"
        took = duration(event.position.elapsed)
        self.console.print(
            f"training {word} after step {event.position.step} and {took}: {event.reason}", highlight=False
        )

    def _where(self) -> str:
        total = self._start.total_epochs if self._start is not None else None
        return f"epoch {self._epoch}/{total}" if total else f"epoch {self._epoch}"

    def _facts(self, left: float | None) -> str:
        parts = [] if self._loss is None else [f"loss {self._loss:.4g}"]
        parts += [self._metrics] if self._metrics else []
        parts += [f"{self._images_a_second:.0f} images/s"] if self._images_a_second else []
        parts += [f"{duration(left)} left"] if left is not None else []
        return ", ".join(parts)

    def _share(self, step: int, elapsed: float) -> tuple[float, float | None]:
        """Share of the run that is done and the seconds that are left."""
        if self._start is None:
            return 0.0, None
        if self._start.minutes is not None:
            whole = 60 * self._start.minutes
            return min(1.0, elapsed / whole), max(0.0, whole - elapsed)
        total = self._start.total_steps or 1
        left = None if self._seconds_a_step is None else (total - step) * self._seconds_a_step
        return step / total, left


def _smooth(before: float | None, now: float) -> float:
    return now if before is None else SMOOTHING * before + (1 - SMOOTHING) * now


def duration(seconds: float) -> str:
    """A time span for people: `8 s`, `3 min 05 s`, `2 h 07 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
