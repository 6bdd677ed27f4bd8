"""Scores of a classifier."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from clearsight.metrics.scores import Scores

__all__ = ["score_classification"]


def score_classification(
    probs: Tensor,
    labels: Tensor,
    classes: Sequence[str],
    *,
    bootstrap: int = 0,
    seed: int = 0,
    paths: Sequence[Path | str] | None = None,
    worst: int = 24,
) -> Scores:
    """All figures of a classifier on one split.

    Args:
        probs: `(n, k)` float, each row sums to one.
        labels: `(n,)` int64.
        classes: k class names in label order.
        bootstrap: resamples of the images for the intervals; 0 gives none.
        seed: of the resamples.
        paths: image files, one a row, for the worst images; None leaves their paths empty.
        worst: number of worst images to list.

    Returns:
        Scores, NaN where a figure does not exist.
    """
    raise NotImplementedError
