"""Units that say nothing any more: dead behind a ReLU, saturated in a sigmoid or tanh."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from clearsight.doctor.rule import Rule
from clearsight.doctor.run.layer_values import held_since, last_rows, measured
from clearsight.doctor.run.rates import slower
from clearsight.doctor.run.record import RunRecord
from clearsight.doctor.run.signals import done, starting_loss, training_loss
from clearsight.doctor.run.smoothing import level
from clearsight.types import Finding

__all__ = ["DeadUnits", "SaturatedUnits"]


class DeadUnits(Rule[RunRecord]):
    """Channels behind a ReLU that no image wakes: their weights get no gradient and never change again.

    Zeros are no sign of it: half of the values behind a healthy ReLU are zero, each for some images only. Nor do nets
    with units to spare miss half of them: between `share` and `lost` it is a warning only where most of the loss is
    still there after a third of the run.

    Args:
        share: of a layer's units above which it is a warning where the loss stays; healthy nets have 0 to 0.14.
        lost: share above which it is a warning in any case.
        notice: share above which it is worth knowing.
        count: measurements in a row.
        left: share of the starting loss.
        wait: share of the budget after which the loss is looked at.
    """

    id = "dead-units"
    source = "Amazon SageMaker Debugger, DeadRelu; Lu et al. 2019, arXiv:1903.06733"

    def __init__(
        self,
        *,
        share: float = 0.5,
        lost: float = 0.8,
        notice: float = 0.3,
        count: int = 2,
        left: float = 0.5,
        wait: float = 1 / 3,
    ) -> None:
        self.share, self.lost, self.notice, self.count = share, lost, notice, count
        self.left, self.wait = left, wait

    def lacks(self, evidence: RunRecord) -> str:
        """Activity of units."""
        return "" if measured(evidence, "inactive") is not None else "the activity of units behind ReLUs"

    def check(self, evidence: RunRecord) -> Iterable[Finding]:
        """One finding for all layers, at the worst of them."""
        values, layers = measured(evidence, "inactive"), evidence.layers
        if values is None or layers is None:
            return
        recent = last_rows(values, self.count)
        if len(recent) < self.count:
            return
        lowest = np.nanmin(np.where(np.isfinite(recent), recent, np.inf), axis=0)
        lowest = np.where(np.isfinite(lowest), lowest, -1.0)
        concerned = np.flatnonzero(lowest > self.notice)
        if not len(concerned):
            return
        worst = int(concerned[np.argmax(lowest[concerned])])
        far = done(evidence)
        if self.share < lowest[worst] <= self.lost and far is not None and far < self.wait:
            return  # whether it costs is not known yet
        grave = bool(lowest[worst] > self.lost or (lowest[worst] > self.share and self._costs(evidence)))
        names = [layers.names[at] for at in concerned[np.argsort(-lowest[concerned], kind="stable")]]
        rows = np.flatnonzero(np.isfinite(values[:, worst]))
        since = held_since(layers.steps[rows], values[rows, worst] > (self.share if grave else self.notice), 1)
        yield Finding(
            id=self.id,
            severity="warning" if grave else "info",
            where=layers.names[worst],
            explanation=f"{lowest[worst]:.0%} of the units of {layers.names[worst]} give zero for every image (healthy "
            f"nets: at most 14 %){_more(names)}. They will not come back: lower the learning rate or warm up, use a "
            "leaky ReLU, or start with He's initialisation and biases of zero.",
            evidence={
                "row": "T4",
                "step": since if since is not None else int(layers.steps[-1]),
                "share": float(lowest[worst]),
                "threshold": self.share if grave else self.notice,
                "layers": names[:20],
                "count": len(names),
                "plot": {"layers": "inactive", "names": names[:20]},
            },
            remedy=slower(evidence, 1 / 3),
            source=self.source,
        )

    def _costs(self, record: RunRecord) -> bool:
        """Whether the loss is still high; not where none is known."""
        loss = training_loss(record)
        return level(loss, max(5, len(loss) // 5)) > self.left * starting_loss(record)


class SaturatedUnits(Rule[RunRecord]):
    """Sigmoids or tanhs that stand in their flat part, where the gradient is nearly zero.

    Args:
        share: of the pre-activations beyond ±5 (sigmoid) or ±3 (tanh).
        layers: share of the layers with such functions that must be concerned for a warning; a single one may be a
            gate that is meant to be open or shut.
        count: measurements in a row.
    """

    id = "saturated-units"
    source = "Wardat et al. 2022, DeepDiagnosis, ICSE 2022; Glorot and Bengio 2010"

    def __init__(self, *, share: float = 0.5, layers: float = 0.5, count: int = 3) -> None:
        self.share, self.layers, self.count = share, layers, count

    def lacks(self, evidence: RunRecord) -> str:
        """Pre-activations of sigmoids or tanhs."""
        return "" if measured(evidence, "saturated") is not None else "pre-activations of sigmoids or tanhs"

    def check(self, evidence: RunRecord) -> Iterable[Finding]:
        """One finding for all layers, at the first of them."""
        values, layers = measured(evidence, "saturated"), evidence.layers
        if values is None or layers is None:
            return
        recent = last_rows(values, self.count)
        if len(recent) < self.count:
            return
        known = np.isfinite(recent).all(axis=0)
        flat = known & (np.where(known, recent, 0).min(axis=0) > self.share)
        if not flat.any():
            return
        names = [layers.names[at] for at in np.flatnonzero(flat)]
        grave = flat.sum() >= self.layers * known.sum() and flat.sum() > 1
        first = int(np.flatnonzero(flat)[0])
        rows = np.flatnonzero(np.isfinite(values[:, first]))
        since = held_since(layers.steps[rows], values[rows, first] > self.share, 1)
        share = float(recent[-1, first])
        yield Finding(
            id=self.id,
            severity="warning" if grave else "info",
            where=names[0],
            explanation=f"{share:.0%} of what goes into the {layers.activations[first] or 'sigmoid or tanh'} behind "
            f"{names[0]} lies in its flat part{_more(names)}: hardly any gradient passes. Start with smaller weights "
            "(Xavier), normalise in between, or use ReLU.",
            evidence={
                "row": "T5",
                "step": since if since is not None else int(layers.steps[-1]),
                "share": share,
                "threshold": self.share,
                "layers": names[:20],
                "count": len(names),
                "plot": {"layers": "saturated", "names": names[:20]},
            },
            source=self.source,
        )


def _more(names: list[str]) -> str:
    return f", and {len(names) - 1} more layers are concerned" if len(names) > 1 else ""
