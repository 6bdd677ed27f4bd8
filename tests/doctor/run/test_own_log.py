"""What a run's folder says, and what it still says when files are missing or damaged."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from clearsight.doctor.run.own_log import read_own_log
from clearsight.errors import DataError

METRICS = """step,epoch,split,loss,lr,grad_norm,loss_class,loss_box,map
1,1,train,2.0,0.1,5.0,1.5,0.5,
2,1,train,,0.1,,,,
2,1,val,,,,,,0.25
3,2,train,1.0,0.05,4.0,0.75,0.25,
4,2,train,0.5,0.05,3.0,0.25,0.25,
4,2,val,,,,,,0.5
"""
RECIPE = """name: cells
task: detection
trainer: {epochs: 10, accumulate: 2, clip_norm: 10.0}
loader: {batch_size: 8}
optimizer: {lr: 0.1}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A run of two epochs, the second step of which has no loss."""
    (tmp_path / "metrics.csv").write_text(METRICS)
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    facts = {"data": {"classes": ["a", "b"], "counts": {"train": {"a": 30, "b": 3}}}}
    (tmp_path / "environment.json").write_text(json.dumps(facts))
    (tmp_path / "timing.csv").write_text("step,epoch,seconds,images_per_second\n1,1,2.0,8\n3,2,5.0,8\n4,2,7.5,8\n")
    return tmp_path


def test_everything_that_is_there(folder: Path) -> None:
    read = read_own_log(folder)
    record = read.record
    assert read.notes == ()
    assert (record.name, record.origin, record.task) == ("cells", "clearsight", "detection")
    assert (record.classes, record.class_counts) == (("a", "b"), (30, 3))
    assert (record.steps_per_epoch, record.budget) == (2, 20)
    assert (record.batch_size, record.accumulate, record.clip_norm) == (16, 2, 10.0)
    np.testing.assert_array_equal(record.loss.values, [2.0, np.nan, 1.0, 0.5])
    assert record.grad_norm.steps.tolist() == [1, 3, 4]
    assert record.terms["loss_box"].values.tolist() == [0.5, 0.25, 0.25]
    assert record.val["map"].steps.tolist() == [2, 4]
    assert "loss" not in record.val
    assert record.seconds.values.tolist() == [1.5, 2.5]
    assert record.recipe["optimizer"] == {"lr": 0.1}
    assert not record.finished


@pytest.mark.parametrize("missing", ["recipe.yaml", "environment.json", "metrics.csv", "timing.csv"])
def test_each_file_may_be_missing(folder: Path, missing: str) -> None:
    (folder / missing).unlink()
    notes = read_own_log(folder).notes
    assert any(missing in note for note in notes) == (missing != "timing.csv")


@pytest.mark.parametrize("damaged", ["recipe.yaml", "environment.json", "timing.csv"])
def test_a_damaged_file_is_told_and_the_rest_is_read(folder: Path, damaged: str) -> None:
    (folder / damaged).write_bytes(b"{ [ \xff\x00")
    read = read_own_log(folder)
    assert any(damaged in note for note in read.notes)
    assert len(read.record.loss) == 4


def test_a_kill_in_the_middle_of_a_line(folder: Path) -> None:
    (folder / "metrics.csv").write_text(METRICS[:-5])
    read = read_own_log(folder)
    assert read.record.val["map"].steps.tolist() == [2]
    assert any("half-written" in note for note in read.notes)


def test_what_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nothing of a run is here"):
        read_own_log(tmp_path)
    (tmp_path / "metrics.csv").write_text("a,b\n1,2\n")
    with pytest.raises(DataError, match="columns step, split, loss are missing"):
        read_own_log(tmp_path)
    (tmp_path / "metrics.csv").write_text('step,split,loss\n1,"train,2\n3,4,5,6,7\n')
    with pytest.raises(DataError, match="damaged"):
        read_own_log(tmp_path)
