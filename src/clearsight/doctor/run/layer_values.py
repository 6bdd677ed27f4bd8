"""Reading a `LayerSeries`: which layers count, what held for how long."""

from __future__ import annotations

import numpy as np

from clearsight.doctor.run.record import LayerSeries, RunRecord

__all__ = ["held_since", "last_rows", "measured", "weight_layers"]


def measured(record: RunRecord, measure: str) -> np.ndarray | None:
    """`(t, L)` of a measure; None where it is not there or NaN throughout."""
    if record.layers is None:
        return None
    values = record.layers.values.get(measure)
    return None if values is None or not np.isfinite(values).any() else values


def weight_layers(layers: LayerSeries) -> np.ndarray:
    """`(L,)` bool: layers with weights that mix channels; neither norms nor what is exempt."""
    norms = np.array([any(word in kind for word in ("Norm", "Scale")) for kind in layers.kinds], dtype=bool)
    return ~norms & ~np.asarray(layers.exempt, dtype=bool)


def last_rows(values: np.ndarray, count: int) -> np.ndarray:
    """`(count, L)` the last measurements in which anything was measured; fewer where there are fewer."""
    return values[np.isfinite(values).any(axis=1)][-count:]


def held_since(steps: np.ndarray, holds: np.ndarray, count: int) -> int | None:
    """The step since which something holds without a break up to now, for `count` measurements at least; else None.

    Args:
        steps: `(t,)`.
        holds: `(t,)` bool.
        count: measurements.
    """
    broken = np.flatnonzero(~holds)
    first = int(broken[-1]) + 1 if len(broken) else 0
    return int(steps[first]) if len(holds) - first >= count else None
