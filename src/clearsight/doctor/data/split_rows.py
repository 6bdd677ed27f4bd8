"""Where the records of a split lie in a scan."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from clearsight.data.dataset import Dataset
from clearsight.doctor.data.evidence import DataEvidence

__all__ = ["split_rows"]


def split_rows(evidence: DataEvidence, part: Dataset | None) -> NDArray[np.int64]:
    """Rows of `evidence.scan` that hold the readable images of a split.

    Args:
        evidence: whose `dataset` was scanned.
        part: some of its records, or copies of them; None has none.

    Returns:
        Ascending positions.
    """
    rows: dict[object, int] = {}
    for row, record in enumerate(evidence.dataset.records):
        rows[record.image] = rows[record.image, record.split] = row
    found = {rows.get((r.image, r.split), rows.get(r.image, -1)) for r in ([] if part is None else part.records)}
    at = np.array(sorted(found - {-1}), np.int64)
    return at[evidence.scan.readable[at]]
