"""Where the records of a split lie in a scan, and which of them are copies of another."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from clearsight.data.dataset import Dataset
from clearsight.doctor.data.evidence import DataEvidence

__all__ = ["distinct_rows", "split_rows"]


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


def distinct_rows(evidence: DataEvidence, rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """One row of each set of files with equal bytes: a picture that is listed many times is one picture.

    Args:
        evidence: whose scan is asked.
        rows: of readable images.

    Returns:
        Those that come first, in their order.
    """
    digests = np.array(evidence.scan.md5)[rows]
    return rows[np.sort(np.unique(digests, return_index=True)[1])]
