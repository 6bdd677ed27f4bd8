"""What rules on data look at: the records with their splits, what the recipe does with them, and one look at each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from torch import nn

from clearsight.data.dataset import Dataset
from clearsight.data.normalisation import Statistics
from clearsight.doctor.data.scan import Scan, scan_dataset
from clearsight.recipe.schema import Recipe

__all__ = ["DataEvidence"]


@dataclass(kw_only=True, eq=False)
class DataEvidence:
    """A data set before anything is trained on it. Rules change none of it.

    Args:
        dataset: all records, each with its split.
        train: the records that are trained on; None where there are none.
        val: the records that are validated on.
        test: the records that are kept for the end.
        recipe: what would be trained; None when only data is at hand.
        model: for strides, receptive fields and anchors; None when there is none.
        statistics: what the recipe would normalise with; None when unknown.
        changes: name → a random change of training images that no recipe describes, as a loop of one's own makes it:
            it takes an image `(h, w, c)` uint8 and gives a changed copy, of any size.
        progress: show a bar while images are read.
    """

    dataset: Dataset
    train: Dataset | None
    val: Dataset | None
    test: Dataset | None
    recipe: Recipe | None = None
    model: nn.Module | None = None
    statistics: Statistics | None = None
    changes: Mapping[str, Callable[[np.ndarray], np.ndarray]] = field(default_factory=dict)
    progress: bool = False

    @property
    def splits(self) -> dict[str, Dataset | None]:
        """`train`, `val` and `test`; None for those that there are not."""
        return {"train": self.train, "val": self.val, "test": self.test}

    @cached_property
    def scan(self) -> Scan:
        """What one look at each image of `dataset` tells; read on first use, kept on disk."""
        return scan_dataset(self.dataset, progress=self.progress)
