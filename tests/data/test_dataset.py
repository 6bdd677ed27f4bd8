"""Splits, counts and the fingerprint of a data set."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from clearsight.data.dataset import Dataset
from clearsight.errors import DataError
from clearsight.types import Object, Record, Rle


def make(root: Path) -> Dataset:
    records = []
    for name, split, lists in (("a", "train", ["trainval"]), ("b", "val", ["trainval"]), ("c", None, [])):
        file = root / f"images/{name}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(name.encode() * 10)
        item = Object(label=1, box=(1.0, 2.0, 3.0, 4.0), polygons=[np.eye(3)[:, :2]], where=str(file))
        attributes = {"lists": lists} if lists else {}
        records.append(Record(image=file, size=(5, 6), objects=[item], split=split, attributes=attributes))
    return Dataset(records=records, classes=("cat", "dog"), task="detection", root=root, format="voc")


@pytest.fixture
def data(tmp_path: Path) -> Dataset:
    return make(tmp_path / "one")


def names(data: Dataset) -> list[str]:
    return [record.image.stem for record in data.records]


def test_splits_and_lists(data: Dataset):
    assert data.splits == {"train": 1, "val": 1, None: 1, "trainval": 2}
    assert names(data.split("train")) == ["a"]
    assert names(data.split("trainval")) == ["a", "b"]
    assert names(data.split(("val", "train"))) == ["a", "b"]
    assert len(data.split("val")) == 1


def test_an_unknown_split_is_refused(data: Dataset):
    with pytest.raises(DataError, match=r"no images in split 'tran'; there are: train \(1 images\), .*mean 'train'\?"):
        data.split("tran")
    with pytest.raises(DataError, match="'test'"):
        data.split(("train", "test"))
    unsplit = replace(data, records=[replace(record, split=None, attributes={}) for record in data.records])
    with pytest.raises(DataError, match=r"its files name no splits \(3 images without one\)"):
        unsplit.split("train")


def test_counts_are_of_objects_and_of_image_labels(data: Dataset):
    assert data.counts() == {"cat": 0, "dog": 3}
    labelled = replace(data, records=[Record(image=Path("x"), label=label) for label in (0, 0, 1)])
    assert labelled.counts() == {"cat": 2, "dog": 1}


def test_the_fingerprint_does_not_depend_on_place_or_order(data: Dataset, tmp_path: Path):
    shutil.copytree(tmp_path / "one", tmp_path / "elsewhere/two")
    other = make(tmp_path / "elsewhere/two")
    other.records.reverse()
    assert data.fingerprint() == other.fingerprint()
    assert len(data.fingerprint()) == 64


@pytest.mark.parametrize(
    "change",
    [
        {"classes": ("dog", "cat")},
        {"task": "instance"},
        {"records": {"split": "test"}},
        {"records": {"size": (6, 5)}},
        {"records": {"label": 0}},
        {"records": {"group": "g"}},
        {"records": {"attributes": {"lists": ["train"]}}},
        {"records": {"objects": []}},
        {"objects": {"label": 0}},
        {"objects": {"box": (1.0, 2.0, 3.0, 4.0000000000000009)}},
        {"objects": {"crowd": True}},
        {"objects": {"difficult": True}},
        {"objects": {"attributes": {"pose": "Left"}}},
        {"objects": {"rle": Rle(size=(1, 1), counts=(1,))}},
        {"objects": {"polygons": [np.eye(3)[:, :2] + 1e-12]}},
        {"objects": {"polygons": [np.eye(3)[:1, :2], np.eye(3)[1:, :2]]}},
    ],
)
def test_the_fingerprint_sees_every_change(data: Dataset, change: dict):
    before, first = data.fingerprint(), data.records[0]
    if "records" in change:
        changed = replace(data, records=[replace(first, **change["records"]), *data.records[1:]])
    elif "objects" in change:
        item = replace(first.objects[0], **change["objects"])
        changed = replace(data, records=[replace(first, objects=[item]), *data.records[1:]])
    else:
        changed = replace(data, **change)
    assert changed.fingerprint() != before


def test_the_fingerprint_sees_where_one_ring_ends_and_the_next_begins(data: Dataset):
    points = np.arange(14.0).reshape(7, 2)
    prints = set()
    for cut in (3, 4):
        data.records[0].objects[0].polygons = [points[:cut], points[cut:]]
        prints.add(data.fingerprint())
    assert len(prints) == 2


def test_the_fingerprint_sees_files_grow_and_vanish(data: Dataset):
    before = data.fingerprint()
    data.records[0].image.write_bytes(b"longer than before")
    grown = data.fingerprint()
    data.records[0].image.unlink()
    assert len({before, grown, data.fingerprint()}) == 3


def test_where_a_message_points_is_no_part_of_the_data(data: Dataset):
    before = data.fingerprint()
    data.records[0].objects[0].where = "elsewhere"
    data.records[0].where = "elsewhere"
    assert data.fingerprint() == before
