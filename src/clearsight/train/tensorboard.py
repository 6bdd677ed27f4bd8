"""TensorBoard event files."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from clearsight.errors import CheckpointError
from clearsight.train.observe import Checkpointed, Ended, Evaluated, Observer, Started, Stepped

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

__all__ = ["TensorBoardLog"]


class TensorBoardLog(Observer):
    """Losses, rate and metrics as TensorBoard scalars: `train/loss`, `train/lr`, `val/map`, ….

    After a resume the steps beyond the checkpoint are marked as purged, so that curves have no second branch.

    Args:
        folder: of the event files.
        every: steps between points of the training curves.
    """

    name = "tensorboard"

    def __init__(self, folder: Path, *, every: int = 1) -> None:
        self.folder = folder
        self.every = every
        self._writer: SummaryWriter | None = None

    def on_start(self, event: Started) -> None:
        """Open a file."""
        with warnings.catch_warnings():
            # TensorBoard's generated protocol code and its use of NumPy warn about themselves on import.
            warnings.simplefilter("ignore", DeprecationWarning)
            from torch.utils.tensorboard import SummaryWriter
        step = event.position.step
        self._writer = SummaryWriter(str(self.folder), purge_step=step + 1 if step else None)

    def on_step(self, event: Stepped) -> None:
        """Add the step's points."""
        step = event.position.step
        if self._writer is None or step % self.every:
            return
        self._writer.add_scalar("train/loss", event.loss, step)
        for name, value in event.terms.items() if len(event.terms) > 1 else ():
            self._writer.add_scalar(f"train/{name}", value, step)
        self._writer.add_scalar("train/lr", event.lr, step)
        self._writer.add_scalar("train/grad_norm", event.grad_norm, step)

    def on_evaluate(self, event: Evaluated) -> None:
        """Add the evaluation's points."""
        if self._writer is not None:
            for name, value in event.metrics.items():
                self._writer.add_scalar(f"val/{name}", value, event.position.step)

    def on_checkpoint(self, event: Checkpointed) -> None:
        """Write what is buffered."""
        if self._writer is not None:
            try:
                self._writer.flush()
            except OSError as err:
                raise CheckpointError(
                    f"{self.folder}: could not be written: {err.strerror}; make room or permit writing, then resume "
                    "the run from its last checkpoint"
                ) from err

    def on_end(self, event: Ended) -> None:
        """Close the file."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None
