"""The labels of a run's first batches: whether their order is random."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from clearsight.doctor.rule import Rule
from clearsight.doctor.run.record import RunRecord
from clearsight.types import Finding

if TYPE_CHECKING:
    from clearsight.doctor.data.order import LabelOrder

__all__ = ["UnshuffledBatches", "note_labels"]

BATCHES = 16  # that are looked at
LABELS = 64  # of each
FACT = "first_labels"


class UnshuffledBatches(Rule[RunRecord]):
    """The first batches hold more of one class than chance would put there: the order is not shuffled.

    It is told once the first 16 batches are known, or the first epoch is over; how, see `doctor.data.order.Unshuffled`.
    """

    id = "unshuffled"
    source = "Cliff and Ord 1981, Spatial processes (join counts); cleanlab's non-iid check"

    def lacks(self, evidence: RunRecord) -> str:
        """The labels of enough batches, of one epoch."""
        from clearsight.doctor.data.order import Unshuffled  # SciPy takes its time

        seen = evidence.facts.get(FACT, ())
        if len(seen) < min(BATCHES, evidence.steps_per_epoch or BATCHES):
            return f"the labels of the first {BATCHES} batches"
        return Unshuffled().lacks(_order(evidence))

    def check(self, evidence: RunRecord) -> Iterable[Finding]:
        """At most one finding."""
        from clearsight.doctor.data.order import Unshuffled

        yield from Unshuffled().check(_order(evidence))


def note_labels(facts: dict[str, Any], labels: Tensor | Sequence[int], *, epoch: int | None) -> None:
    """Keep the labels of a batch among the facts, if it is one of the first.

    Args:
        facts: of the run; `first_labels` is a list of batches.
        labels: `(n,)` class ids; of anything else nothing is kept.
        epoch: batches of an epoch, beyond which images come again; None where it is not known.
    """
    kept: list[list[int]] = facts.setdefault(FACT, [])
    if len(kept) >= min(BATCHES, epoch or BATCHES):
        return
    if isinstance(labels, Tensor):
        if labels.ndim != 1 or labels.is_floating_point() or labels.is_complex():
            return
        labels = labels[:LABELS].tolist()
    kept.append([int(label) for label in labels[:LABELS]])


def _order(record: RunRecord) -> LabelOrder:
    from clearsight.doctor.data.order import LabelOrder

    batches = [np.asarray([label for label in batch if label >= 0]) for batch in record.facts[FACT]]
    seen = np.bincount(np.concatenate(batches).astype(np.int64)) if any(map(len, batches)) else np.zeros(0, np.int64)
    counts = np.asarray(record.class_counts, dtype=np.int64)
    known = len(counts) >= len(seen) and bool((counts[: len(seen)] >= seen).all()) and len(counts) > 0
    return LabelOrder(batches=batches, counts=tuple(counts.tolist()) if known else None)
