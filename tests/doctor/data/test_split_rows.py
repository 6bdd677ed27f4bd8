"""Rows of a split in a scan, and one row of each file."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from clearsight.doctor.data.split_rows import distinct_rows, split_rows
from clearsight.types import Record


def test_rows_of_a_split_and_one_of_each_file(evidence_of) -> None:
    pictures = [np.full((5, 5), value, np.uint8) for value in (10, 20, 10, 30, 20, 10)]
    splits = ["train", "train", "train", "val", "train", "val"]
    evidence = evidence_of([Record(image=Path("x"), label=0, split=split) for split in splits], pictures)
    train, val = split_rows(evidence, evidence.train), split_rows(evidence, evidence.val)
    assert (train.tolist(), val.tolist()) == ([0, 1, 2, 4], [3, 5])
    assert distinct_rows(evidence, train).tolist() == [0, 1]
    assert distinct_rows(evidence, val).tolist() == [3, 5]
    assert split_rows(evidence, None).tolist() == []
    assert distinct_rows(evidence, split_rows(evidence, None)).tolist() == []
