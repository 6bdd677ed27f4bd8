"""Where the time and the memory of a run go: steps that wait for data, a process that grows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from clearsight.doctor.rule import Rule
from clearsight.doctor.run.record import RunRecord
from clearsight.doctor.run.smoothing import level, slope
from clearsight.types import Finding

__all__ = ["GrowingMemory", "LoaderBound"]

MIB = 2**20


class LoaderBound(Rule[RunRecord]):
    """Steps wait for the loader, so that a faster model or device would not help.

    Args:
        share: of a step spent waiting, the median over the run, above which it is a warning.
        notice: the same above which it is worth knowing.
        seconds: a step at least this long is worth a warning; shorter ones are toys.
        least: steps to judge by.
    """

    id = "loader-bound"
    source = "PyTorch profiler, input-bound steps"

    def __init__(self, *, share: float = 0.4, notice: float = 0.2, seconds: float = 0.02, least: int = 50) -> None:
        self.share, self.notice, self.seconds, self.least = share, notice, seconds, least

    def lacks(self, evidence: RunRecord) -> str:
        """Times of steps, and how much of them was waiting."""
        if not len(evidence.seconds) or not len(evidence.waiting):
            return "how long steps took and waited for data"
        return "" if len(evidence.waiting) >= self.least else f"the times of {self.least} steps"

    def check(self, evidence: RunRecord) -> Iterable[Finding]:
        """A warning or an info."""
        steps = np.intersect1d(evidence.seconds.steps, evidence.waiting.steps, assume_unique=True)
        whole = evidence.seconds.values[np.isin(evidence.seconds.steps, steps)]
        waited = evidence.waiting.values[np.isin(evidence.waiting.steps, steps)]
        if len(steps) < self.least:
            return
        kept = slice(len(steps) // 10, None)  # the first steps start workers and warm caches
        share = float(np.median(waited[kept] / np.maximum(whole[kept], 1e-9)))
        if share <= self.notice:
            return
        long = float(np.median(whole[kept]))
        grave = share > self.share and long >= self.seconds
        yield Finding(
            id=self.id,
            severity="warning" if grave else "info",
            where="loader",
            explanation=f"Half of the steps spend {share:.0%} or more of their {long * 1e3:.3g} ms waiting for data. "
            "More workers (loader.workers), images kept in memory (loader.cache: ram), or smaller files help; a faster "
            "model does not.",
            evidence={
                "row": "T19",
                "step": int(steps[kept][0]),
                "share": share,
                "seconds": long,
                "threshold": self.share if grave else self.notice,
                "plot": {"curves": ["waiting", "seconds"]},
            },
            remedy=_remedy(evidence.recipe),
            source=self.source,
        )


def _remedy(recipe: Mapping[str, Any]) -> dict[str, Any]:
    loader = recipe.get("loader") or {}
    if loader.get("cache") == "none":
        return {"loader.cache": "ram"}
    workers = loader.get("workers")
    return {"loader.workers": 2 * workers or 2} if isinstance(workers, int) else {}


class GrowingMemory(Rule[RunRecord]):
    """The process grows step by step and would not stop: something keeps what it should drop.

    Args:
        growth: over the rest of the run, or over as many steps again, in shares of what it holds now.
        mib: the same in MiB at least.
        least: measurements to judge by.
    """

    id = "growing-memory"
    source = "PyTorch, Frequently asked questions: my model reports out of memory"

    def __init__(self, *, growth: float = 0.2, mib: float = 200.0, least: int = 10) -> None:
        self.growth, self.mib, self.least = growth, mib, least

    def lacks(self, evidence: RunRecord) -> str:
        """The memory of the process."""
        return "" if len(evidence.memory.finite()) >= self.least else f"{self.least} measurements of the memory"

    def check(self, evidence: RunRecord) -> Iterable[Finding]:
        """A warning; the first 40 % of the run, in which caches fill, do not count."""
        memory = evidence.memory.finite()
        settled = memory.between(memory.steps[0] + 0.4 * (memory.steps[-1] - memory.steps[0]), np.inf)
        if len(settled) < self.least // 2:
            return
        trend = slope(settled)
        ahead = max((evidence.budget or 0) - evidence.steps, evidence.steps)
        now, coming = level(settled, 3), trend.low * ahead
        rising = np.mean(np.diff(settled.values) > 0) if len(settled) > 2 else 0.0
        if trend.rises and rising > 0.5 and coming > self.growth * now and coming > self.mib * MIB:
            yield Finding(
                id=self.id,
                severity="warning",
                where=evidence.name,
                explanation=f"The process holds {now / MIB:,.0f} MiB and grows by {trend.per_step * 1000 / MIB:,.3g} "
                f"MiB in 1,000 steps without levelling off: {coming / MIB:,.0f} MiB more within {ahead:,} steps. "
                "Losses that are added up as tensors keep their graphs (use .item() or .detach()); so do lists "
                "of outputs.",
                evidence={
                    "row": "T19",
                    "step": int(settled.steps[0]),
                    "mib_per_1000_steps": trend.per_step * 1000 / MIB,
                    "mib": now / MIB,
                    "plot": {"curves": ["memory"]},
                },
                source=self.source,
            )
