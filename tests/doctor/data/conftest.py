"""Evidence of real files: pictures written to disk, read by the real scan."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from clearsight.data.dataset import Dataset
from clearsight.data.normalisation import Statistics
from clearsight.doctor.data.evidence import DataEvidence
from clearsight.recipe.schema import Recipe
from clearsight.types import Record

EvidenceOf = Callable[..., DataEvidence]


def splits_of(dataset: Dataset) -> dict[str, Dataset | None]:
    """The arguments `train`, `val` and `test` of evidence."""
    return {name: dataset.split(name) if name in dataset.splits else None for name in ("train", "val", "test")}


@pytest.fixture
def evidence_of(tmp_path: Path) -> EvidenceOf:
    """Evidence of pictures (each `(h, w)` or `(h, w, 3)` uint8) or of records without files worth reading."""

    def make(
        records: Sequence[Record],
        images: Sequence[np.ndarray] = (),
        *,
        classes: tuple[str, ...] = ("a", "b"),
        task: str = "classification",
        recipe: Recipe | None = None,
        statistics: Statistics | None = None,
    ) -> DataEvidence:
        for number, (record, image) in enumerate(zip(records, images, strict=False)):
            record.image = tmp_path / f"{number}.png"
            Image.fromarray(image).save(record.image, compress_level=0)
        dataset = Dataset(records=list(records), classes=classes, task=task, root=tmp_path, format="test")
        return DataEvidence(dataset=dataset, recipe=recipe, statistics=statistics, **splits_of(dataset))

    return make


@pytest.fixture
def read_evidence() -> Callable[[Dataset], DataEvidence]:
    """Evidence of a data set as it is."""
    return lambda dataset: DataEvidence(dataset=dataset, **splits_of(dataset))
