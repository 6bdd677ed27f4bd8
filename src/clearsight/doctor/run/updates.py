"""Weights that do not move although they should, or that grow without end."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from clearsight.doctor.rule import Rule
from clearsight.doctor.run.layer_values import held_since, last_rows, measured
from clearsight.doctor.run.record import RunRecord
from clearsight.types import Finding

__all__ = ["NotUpdated", "WeightDrift"]


class NotUpdated(Rule[RunRecord]):
    """Layers that get a gradient and are never changed: the optimiser does not know them.

    Args:
        count: measurements in a row.
        growth: of a layer's weights, beyond which steps may be lost in them.
    """

    id = "not-updated"
    source = "Jiang et al. 2025, TrainCheck, OSDI 2025"

    def __init__(self, *, count: int = 3, growth: float = 5.0) -> None:
        self.count, self.growth = count, growth

    def lacks(self, evidence: RunRecord) -> str:
        """Gradients and updates by layer."""
        known = measured(evidence, "grad_norm") is not None and measured(evidence, "update_ratio") is not None
        return "" if known else "gradients and updates by layer"

    def check(self, evidence: RunRecord) -> Iterable[Finding]:
        """An error for all layers together, at the first of them."""
        norms, moved, layers = measured(evidence, "grad_norm"), measured(evidence, "update_ratio"), evidence.layers
        if norms is None or moved is None or layers is None:
            return
        both = np.isfinite(moved).any(axis=1) & np.isfinite(norms).any(axis=1)
        rates = (
            np.interp(layers.steps, evidence.lr.steps, evidence.lr.values) if len(evidence.lr) else np.ones(len(norms))
        )
        both &= rates > 0  # the first step of a warm-up from zero moves nothing
        norms, moved, steps = norms[both], moved[both], layers.steps[both]
        if len(moved) < self.count:
            return
        still = (moved == 0) & (norms > 0)
        moving = moved > 0
        # Weights that moved and blew up are known to the optimiser: they have grown too large for its steps.
        at = np.flatnonzero(still[-self.count :].all(axis=0) & ~(moving.any(axis=0) & self._grown(evidence)))
        if not len(at) or not moving[-self.count :].any():
            return
        names = [layers.names[column] for column in at]
        since = held_since(steps, still[:, at[0]], 1)
        yield Finding(
            id=self.id,
            severity="error",
            where=names[0],
            explanation=f"{len(names)} layers get a gradient and never change, {names[0]} first: their parameters are "
            "not among those of the optimiser, or were replaced after it was made. Give the optimiser "
            "model.parameters() after the model is complete.",
            evidence={
                "row": "S6",
                "step": since if since is not None else int(steps[-1]),
                "layers": names[:20],
                "count": len(names),
                "plot": {"layers": "update_ratio", "names": names[:20]},
            },
            source=self.source,
        )

    def _grown(self, record: RunRecord) -> np.ndarray:
        """`(L,)` bool: layers whose weights have grown many times since the first measurement."""
        sizes = measured(record, "weight_norm")
        if sizes is None or record.layers is None:
            return np.zeros(0 if record.layers is None else len(record.layers.names), dtype=bool)
        sizes = last_rows(sizes, len(sizes))
        return np.isfinite(sizes[0]) & (sizes[-1] > self.growth * sizes[0])


class WeightDrift(Rule[RunRecord]):
    """A layer's weights have grown many times: without decay, or under a rate that is too high, they go on so.

    Args:
        factor: growth of the norm since the first measurement.
        count: measurements at least.
    """

    id = "weights-grow"
    source = "van Laarhoven 2017, arXiv:1706.05350"

    def __init__(self, *, factor: float = 10.0, count: int = 5) -> None:
        self.factor, self.count = factor, count

    def lacks(self, evidence: RunRecord) -> str:
        """Norms of weights."""
        return "" if measured(evidence, "weight_norm") is not None else "norms of weights"

    def check(self, evidence: RunRecord) -> Iterable[Finding]:
        """An info; layers that began at zero are left out."""
        values, layers = measured(evidence, "weight_norm"), evidence.layers
        if values is None or layers is None:
            return
        rows = last_rows(values, len(values))
        if len(rows) < self.count:
            return
        sizes = layers.values.get("parameters")
        roots = (
            np.sqrt(last_rows(sizes, 1)[0]) if sizes is not None and np.isfinite(sizes).any() else np.ones(len(rows[0]))
        )
        begun = np.isfinite(rows[0]) & (rows[0] > 1e-3 * roots)
        growth = np.where(begun, rows[-1] / np.where(begun, rows[0], 1), 0)
        worst = int(np.nanargmax(growth))
        if not growth[worst] > self.factor:
            return
        yield Finding(
            id=self.id,
            severity="info",
            where=layers.names[worst],
            explanation=f"The weights of {layers.names[worst]} have grown {growth[worst]:.3g} times since the "
            "beginning. In front of a norm that makes the effective rate smaller and smaller; elsewhere outputs grow "
            "with them. Weight decay, or a lower rate, holds them.",
            evidence={
                "row": "T8",
                "step": int(layers.steps[-1]),
                "growth": float(growth[worst]),
                "threshold": self.factor,
                "plot": {"layers": "weight_norm", "names": [layers.names[worst]]},
            },
            source=self.source,
        )
