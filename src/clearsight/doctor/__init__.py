"""What is wrong with data, a model or a run, how one can tell, and what to do about it."""

from __future__ import annotations

from clearsight.doctor.step_keeper import StepKeeper
from clearsight.doctor.watch import Watch

__all__ = ["StepKeeper", "Watch"]
