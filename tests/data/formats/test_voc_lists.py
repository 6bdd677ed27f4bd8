"""Lists of names: splits, overlapping lists, and the faults that lists have."""

from __future__ import annotations

from pathlib import Path

import pytest

from clearsight.data.formats import voc
from clearsight.errors import DataError


@pytest.fixture
def root(tmp_path: Path, photo) -> Path:
    for name in ("a", "b", "c"):
        photo(tmp_path / f"JPEGImages/{name}.jpg")
        file = tmp_path / f"Annotations/{name}.xml"
        file.parent.mkdir(exist_ok=True)
        file.write_text(f"<annotation><filename>{name}.jpg</filename></annotation>")
    (tmp_path / "ImageSets/Main").mkdir(parents=True)
    return tmp_path


def listed(root: Path, **lists: str):
    for name, text in lists.items():
        (root / f"ImageSets/Main/{name}.txt").write_text(text)
    data = voc.read(root)
    return data, {record.image.stem: record for record in data.records}


def test_unions_stay_lists_of_their_own(root: Path):
    data, records = listed(root, train="a\n", val="b\n", trainval="a\nb\n", test="c\n")
    assert {name: record.split for name, record in records.items()} == {"a": "train", "b": "val", "c": "test"}
    assert records["a"].attributes["lists"] == ["trainval"]
    assert data.splits == {"train": 1, "val": 1, "test": 1, "trainval": 2}
    assert [record.image.stem for record in data.split("trainval").records] == ["a", "b"]
    assert data.split("trainval").splits == {"train": 1, "val": 1, "trainval": 2}


def test_without_train_and_val_the_union_is_the_split(root: Path):
    _, records = listed(root, trainval="a\nb\n", test="c\n")
    assert [records[name].split for name in "abc"] == ["trainval", "trainval", "test"]


def test_the_shortest_list_is_the_split(root: Path):
    _, records = listed(root, everything="a\nb\nc\n", fold1="a\n")
    assert records["a"].split == "fold1"
    assert records["a"].attributes["lists"] == ["everything"]
    assert records["b"].split == "everything"


def test_names_with_suffix_folder_or_other_case(root: Path):
    _, records = listed(root, train="a.jpg\nJPEGImages\\B.jpg\n")
    assert [records[name].split for name in "abc"] == ["train", "train", None]


def test_an_unknown_split_names_those_there_are(root: Path):
    data, _ = listed(root, train="a\n", val="b\n")
    with pytest.raises(
        DataError, match=r"no images in split 'vall'; there are: train \(1 images\), val \(1 images\).*'val'"
    ):
        data.split("vall")


def test_an_empty_list(root: Path, only):
    data, _ = listed(root, train="a\n", val="\n")
    assert "the list of split 'val' is empty" in only(data.findings, "empty-split").explanation
    with pytest.raises(DataError, match="no images in split 'val'"):
        data.split("val")


def test_a_name_with_neither_image_nor_annotation(root: Path, only):
    data, _ = listed(root, train="a\nghost\n")
    finding = only(data.findings, "missing-image")
    assert finding.where.endswith("train.txt:2")
    assert "neither an image nor an annotation" in finding.explanation


def test_a_listed_image_without_annotation_is_an_error(root: Path, only):
    (root / "Annotations/a.xml").unlink()
    data, _ = listed(root, train="a\nb\n")
    finding = only(data.findings, "image-without-label")
    assert (finding.severity, finding.where[-11:]) == ("error", "train.txt:1")
    assert len(data) == 2


def test_a_broken_annotation_is_told_once(root: Path):
    (root / "Annotations/a.xml").write_text("<annotation>")
    data, _ = listed(root, train="a\nb\n")
    assert [finding.id for finding in data.findings] == ["unreadable-annotation"]


def test_a_name_listed_twice(root: Path, only):
    data, records = listed(root, train="a\nA\n")
    assert only(data.findings, "duplicate-file-name").where.endswith("train.txt:2")
    assert "lists" not in records["a"].attributes


def test_an_image_in_train_and_in_test(root: Path, only):
    data, records = listed(root, train="a\nb\n", test="a\n")
    assert "in train and test" in only(data.findings, "leak").explanation
    assert records["a"].split == "train"
    assert len(data.split("test")) == 1


def test_lists_of_presence_are_passed_over(root: Path, only):
    data, _ = listed(root, train="a\n", cat_train="a  1\nb -1\n")
    assert only(data.findings, "unsupported-file").severity == "info"
    assert data.splits == {"train": 1, None: 2}
