"""Stops a run that no longer improves."""

from __future__ import annotations

from typing import Any

from clearsight.train.observe import Evaluated, Observer, StopRequest

__all__ = ["EarlyStop"]


class EarlyStop(Observer):
    """Asks to stop after `patience` evaluations in a row that were not better than the best by more than `min_delta`.

    Args:
        patience: evaluations without improvement.
        min_delta: smallest improvement that counts, in the metric's unit.
    """

    name = "early_stop"

    def __init__(self, *, patience: int, min_delta: float = 0.0) -> None:
        self.patience = patience
        self.min_delta = min_delta
        self.best: float | None = None
        self.waited = 0

    def on_evaluate(self, event: Evaluated) -> StopRequest | None:
        """Compare with the best so far; NaN is no improvement."""
        if self.best is None or event.score > self.best + self.min_delta or self.best != self.best:
            self.best, self.waited = event.score, 0
            return None
        self.waited += 1
        if self.waited < self.patience:
            return None
        return StopRequest(
            f"{event.monitor} has not improved by more than {self.min_delta:g} in {self.waited} evaluations "
            f"(best {abs(self.best):.4g}, epoch {event.epoch})"
        )

    def state_dict(self) -> dict[str, Any]:
        """The best score and how long ago it was."""
        return {"best": self.best, "waited": self.waited}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take back what `state_dict` gave."""
        self.best, self.waited = state["best"], state["waited"]
