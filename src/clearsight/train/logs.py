"""The written record of a run: CSV tables that a resume continues to the same bytes."""

from __future__ import annotations

import csv
import io
import time
from pathlib import Path
from typing import Any

from clearsight.errors import CheckpointError
from clearsight.train.checkpoint import replace_file
from clearsight.train.observe import Checkpointed, Ended, Evaluated, Observer, Started, Stepped

__all__ = ["MetricsLog", "Table", "TimingLog"]

FLUSH_SECONDS = 5.0


class Table:
    """A CSV file that rows are appended to; a column that a later row brings is added to the whole file.

    Rows are buffered and reach the file at `flush`. `state` and `rewind` cut the file back to where it was.

    Args:
        path: the file.
        columns: the first columns, in order; later ones follow in order of appearance.
    """

    def __init__(self, path: Path, columns: tuple[str, ...]) -> None:
        self.path = path
        self.columns = list(columns)
        self.rows = 0
        self._buffer: list[list[str]] = []
        self._flushed = time.monotonic()

    def add(self, row: dict[str, Any]) -> None:
        """Append a row: floats are written with all their digits, NaN and missing values as empty cells."""
        new = [name for name in row if name not in self.columns]
        if new:
            self.flush()
            self.columns += new
            self._write_anew(self._read())
        self._buffer.append([_cell(row.get(name)) for name in self.columns])
        self.rows += 1
        if time.monotonic() - self._flushed > FLUSH_SECONDS:
            self.flush()

    def flush(self) -> None:
        """Hand what is buffered to the operating system.

        Raises:
            CheckpointError: the disk is full or not writable.
        """
        self._flushed = time.monotonic()
        if not self._buffer:
            return
        text = "" if self.path.exists() else _lines([self.columns])
        try:
            with self.path.open("a", newline="", encoding="utf-8") as file:
                file.write(text + _lines(self._buffer))
        except OSError as err:
            raise CheckpointError(
                f"{self.path}: could not be written: {err.strerror}; make room or permit writing, then resume the run "
                "from its last checkpoint"
            ) from err
        self._buffer.clear()

    def state(self) -> dict[str, Any]:
        """How much of the file there is now."""
        return {"rows": self.rows, "columns": list(self.columns)}

    def rewind(self, state: dict[str, Any]) -> None:
        """Cut the file back to the rows and columns that it had at `state`."""
        self._buffer.clear()
        kept = self._read()[: state["rows"]]
        if len(kept) < state["rows"]:
            raise CheckpointError(
                f"{self.path}: has {len(kept)} rows, the checkpoint was written after {state['rows']}; "
                "put the file back, or remove it and start the run anew"
            )
        self.columns, self.rows = list(state["columns"]), state["rows"]
        self._write_anew([row[: len(self.columns)] for row in kept])

    def restart(self) -> None:
        """Begin with an empty file."""
        self._buffer.clear()
        self.rows = 0
        self.path.unlink(missing_ok=True)

    def _read(self) -> list[list[str]]:
        if not self.path.exists():
            return []
        # A kill can leave half a line at the end; it has no line feed and lies after the checkpoint.
        text = self.path.read_text(encoding="utf-8")
        return list(csv.reader(io.StringIO(text[: text.rfind("\n") + 1])))[1:]

    def _write_anew(self, rows: list[list[str]]) -> None:
        if not rows:
            self.path.unlink(missing_ok=True)
            return
        width = len(self.columns)
        text = _lines([self.columns, *([*row, *[""] * (width - len(row))] for row in rows)])
        replace_file(self.path, lambda file: file.write(text.encode()))


def _lines(rows: list[list[str]]) -> str:
    file = io.StringIO()
    csv.writer(file, lineterminator="\n").writerows(rows)
    return file.getvalue()


def _cell(value: object) -> str:
    if value is None or value != value:  # NaN alone differs from itself
        return ""
    return repr(float(value)) if isinstance(value, float) else str(value)


class MetricsLog(Observer):
    """`metrics.csv`: a row with split `train` for each step and one with split `val` for each evaluation.

    Columns: step and epoch (both from 1), split, loss, lr, grad_norm, `loss_<term>` for each term when there are
    several, and every metric of the evaluation. Nothing in it depends on the clock (unless the run is limited by it).

    Args:
        path: the file.
    """

    name = "metrics"

    def __init__(self, path: Path) -> None:
        self.table = Table(path, ("step", "epoch", "split", "loss", "lr", "grad_norm"))
        self._goes_on = False

    def on_start(self, event: Started) -> None:
        """A fresh run begins with an empty file."""
        if not self._goes_on:
            self.table.restart()

    def on_step(self, event: Stepped) -> None:
        """Add a row."""
        row: dict[str, Any] = {"step": event.position.step, "epoch": event.epoch, "split": "train", "loss": event.loss}
        row |= {"lr": event.lr, "grad_norm": event.grad_norm}
        if len(event.terms) > 1:
            row |= {f"loss_{name.removeprefix('loss_')}": value for name, value in event.terms.items()}
        self.table.add(row)

    def on_evaluate(self, event: Evaluated) -> None:
        """Add a row and make it readable at once."""
        self.table.add({"step": event.position.step, "epoch": event.epoch, "split": "val", **event.metrics})
        self.table.flush()

    def on_checkpoint(self, event: Checkpointed) -> None:
        """What the checkpoint counts on is in the file."""
        self.table.flush()

    def on_end(self, event: Ended) -> None:
        """Write the rest."""
        self.table.flush()

    def state_dict(self) -> dict[str, Any]:
        """How long the file is."""
        return self.table.state()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Cut the file back to the checkpoint."""
        self.table.rewind(state)
        self._goes_on = True


class TimingLog(Observer):
    """`timing.csv`: once in a while the seconds since the run's beginning and the images a second.

    Args:
        path: the file.
        every: seconds between rows.
    """

    name = "timing"

    def __init__(self, path: Path, *, every: float = 2.0) -> None:
        self.table = Table(path, ("step", "epoch", "seconds", "images_per_second"))
        self.every = every
        self._goes_on = False
        self._since, self._images = 0.0, 0

    def on_start(self, event: Started) -> None:
        """Begin the clock."""
        if not self._goes_on:
            self.table.restart()
        self._since, self._images = event.position.elapsed, 0

    def on_step(self, event: Stepped) -> None:
        """Count images; add a row when it is time."""
        self._images += event.images
        elapsed = event.position.elapsed
        if elapsed - self._since >= self.every:
            rate = self._images / (elapsed - self._since)
            self.table.add(
                {
                    "step": event.position.step,
                    "epoch": event.epoch,
                    "seconds": round(elapsed, 3),
                    "images_per_second": round(rate, 2),
                }
            )
            self._since, self._images = elapsed, 0

    def on_evaluate(self, event: Evaluated) -> None:
        """Scoring is not counted as training time."""
        self._since, self._images = event.position.elapsed, 0

    def on_checkpoint(self, event: Checkpointed) -> None:
        """What the checkpoint counts on is in the file."""
        self.table.flush()

    def on_end(self, event: Ended) -> None:
        """Write the rest."""
        self.table.flush()

    def state_dict(self) -> dict[str, Any]:
        """How long the file is."""
        return self.table.state()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Cut the file back to the checkpoint."""
        self.table.rewind(state)
        self._goes_on = True
