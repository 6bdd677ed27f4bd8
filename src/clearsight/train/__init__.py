"""Training: the loop, and everything that composes a run out of a recipe."""

from clearsight.train.folder import RunFolder
from clearsight.train.observe import Checkpointed, Ended, Evaluated, Observer, Position, Started, Stepped, StopRequest

__all__ = [
    "Checkpointed",
    "Ended",
    "Evaluated",
    "Observer",
    "Position",
    "RunFolder",
    "Started",
    "Stepped",
    "StopRequest",
]
