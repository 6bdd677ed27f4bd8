"""YOLO: real data through it and back, and the faults of labels and images."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from clearsight.data.formats import coco, voc, yolo

LINE = "0 0.5 0.5 0.25 0.5\n"


def label(file: Path, text: str = LINE) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    return file


@pytest.fixture
def root(tmp_path: Path, photo) -> Path:
    for name in ("a", "b"):
        photo(tmp_path / f"images/train/{name}.jpg")
        label(tmp_path / f"labels/train/{name}.txt")
    (tmp_path / "data.yaml").write_text("train: images/train\nnames: [cat, dog]\n")
    return tmp_path


@pytest.mark.real
def test_boxes_of_voc_come_back_exactly(shared_data: Path, tmp_path: Path):
    data = voc.read(shared_data / "bccd")
    assert {finding.severity for finding in yolo.write(data, tmp_path)} == {"info", "warning"}
    back = yolo.read(tmp_path)
    assert back.findings == []
    assert (back.classes, back.splits, back.counts()) == (data.classes, data.splits, data.counts())
    theirs = {record.image.name: record for record in back.records}
    for record in data.records:
        other = theirs[record.image.name]
        mine = [(item.label, item.box) for item in record.objects]
        assert mine == [(item.label, item.box) for item in other.objects]
        assert (record.size, record.split) == (other.size, other.split)


@pytest.mark.real
def test_polygons_of_coco_come_back_to_a_billionth_of_a_pixel(shared_data: Path, tmp_path: Path):
    data = coco.read(shared_data / "fruits")
    yolo.write(data, tmp_path / "yolo")
    through = yolo.read(tmp_path / "yolo")
    assert through.task == "instance"
    coco.write(through, tmp_path / "coco")
    back = {record.image.name: record for record in coco.read(tmp_path / "coco").records}
    for record in data.records:
        for mine, its in zip(record.objects, back[record.image.name].objects, strict=True):
            assert mine.label == its.label
            for ring, other in zip(mine.polygons, its.polygons, strict=True):
                np.testing.assert_allclose(ring, other, rtol=0, atol=1e-9)


@pytest.mark.real
def test_what_was_read_is_written_to_the_letter(shared_data: Path, tmp_path: Path, same):
    yolo.write(coco.read(shared_data / "fruits"), tmp_path / "one")
    data = yolo.read(tmp_path / "one")
    assert yolo.write(data, tmp_path / "two") == []
    files = sorted(path.relative_to(tmp_path / "one") for path in (tmp_path / "one").rglob("*.*"))
    assert len(files) == 18 + 18 + 1
    for file in files:
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()
    same(data, yolo.read(tmp_path / "two"))


def test_six_decimals_as_most_tools_write_them_come_back_to_the_letter(root: Path, tmp_path: Path):
    text = "0 0.123457 0.333333 0.1 0.25\n1 0.1 0.2 0.300001 0.2 0.25 0.987654\n"
    label(root / "labels/train/a.txt", text)
    yolo.write(yolo.read(root), tmp_path / "out")
    assert (tmp_path / "out/labels/train/a.txt").read_text() == text


@pytest.mark.parametrize("path", [".", "data.yaml"])
def test_a_small_set(root: Path, path: str):
    data = yolo.read(root / path)
    assert yolo.sniff(root / path)
    assert data.findings == []
    assert (data.task, data.splits, data.counts()) == ("detection", {"train": 2}, {"cat": 2, "dog": 0})
    item = data.records[0].objects[0]
    assert item.box == (15.0, 7.5, 25.0, 22.5)
    assert item.where == f"{root / 'labels/train/a.txt'}:1"


def test_an_empty_label_file_means_that_nothing_is_there(root: Path):
    label(root / "labels/train/a.txt", "\n")
    data = yolo.read(root)
    assert [len(record.objects) for record in data.records] == [0, 1]
    assert data.findings == []


def test_an_image_without_label_is_background(root: Path, only):
    (root / "labels/train/a.txt").unlink()
    data = yolo.read(root)
    assert [len(record.objects) for record in data.records] == [0, 1]
    finding = only(data.findings, "image-without-label")
    assert (finding.severity, finding.action) == ("info", "kept without objects")
    assert finding.where.endswith("a.jpg")


def test_no_label_at_all_is_an_error(root: Path, only):
    (root / "labels").rename(root / "annotations")
    data = yolo.read(root)
    finding = only(data.findings, "image-without-label")
    assert finding.severity == "error"
    assert "none of 2 images has a label file" in finding.explanation
    assert len(data) == 0


def test_a_label_without_image(root: Path, only):
    (root / "images/train/a.jpg").unlink()
    data = yolo.read(root)
    assert len(data) == 1
    finding = only(data.findings, "missing-image")
    assert finding.where == str(root / "labels/train/a.txt")
    assert "no image of any split" in finding.explanation


def test_a_truncated_header_costs_its_image(root: Path):
    (root / "images/train/a.jpg").write_bytes(b"\xff\xd8\xff\xe0")
    data = yolo.read(root)
    assert len(data) == 1
    assert [finding.severity for finding in data.findings] == ["error"]
    assert str(root / "images/train/a.jpg") in data.findings[0].where


def test_classes_that_are_asked_for(root: Path, only):
    label(root / "labels/train/b.txt", "1 0.5 0.5 0.1 0.1\n")
    data = yolo.read(root, classes=("DOG",))
    assert data.counts() == {"DOG": 1}
    assert "'cat' is not one of 'DOG'" in only(data.findings, "unknown-class").explanation
    assert "'dog' differs from 'DOG'" in only(data.findings, "class-case-mismatch").explanation


def test_classes_that_nothing_names(root: Path, only):
    (root / "data.yaml").unlink()
    label(root / "labels/train/b.txt", "2 0.5 0.5 0.1 0.1\n")
    data = yolo.read(root)
    assert data.classes == ("class_0", "class_1", "class_2")
    assert "numbers up to 2" in only(data.findings, "unnamed-classes").explanation


def test_numbers_that_skip_come_back(root: Path, tmp_path: Path, only):
    (root / "data.yaml").write_text("train: images/train\nnames: {0: cat, 4: dog}\n")
    label(root / "labels/train/b.txt", "4 0.5 0.5 0.1 0.1\n")
    data = yolo.read(root)
    assert data.counts() == {"cat": 1, "dog": 1}
    assert only(data.findings, "id-gap").severity == "info"
    assert yolo.write(data, tmp_path / "out") == []
    assert (tmp_path / "out/labels/train/b.txt").read_text().startswith("4 ")
    assert yolo.read(tmp_path / "out").attributes == {"class_ids": [0, 4]}


def test_key_points_are_passed_over_and_told(root: Path, only):
    (root / "data.yaml").write_text("train: images/train\nnames: [cat]\nkpt_shape: [1, 3]\n")
    for name in "ab":
        label(root / f"labels/train/{name}.txt", "0 0.5 0.5 0.25 0.5 0.1 0.1 2\n")
    data = yolo.read(root)
    assert data.records[0].objects[0].box == (15.0, 7.5, 25.0, 22.5)
    assert "key points" in only(data.findings, "unsupported-annotation").explanation


def test_an_image_in_two_splits(root: Path, only):
    (root / "data.yaml").write_text("train: images/train\nval: images/train\nnames: [cat]\n")
    data = yolo.read(root)
    assert len(data) == 2
    assert data.splits == {"train": 2, "val": 2}
    leaks = [finding for finding in data.findings if finding.id == "leak"]
    assert "in train and val" in leaks[0].explanation
    assert len(leaks) == 2


def test_a_name_that_is_not_utf8(root: Path, only):
    os.rename(root / "images/train/a.jpg", os.fsencode(root / "images/train") + b"/a\xe9.jpg")  # noqa: PTH104
    data = yolo.read(root)
    assert len(data) == 1
    assert only(data.findings, "encoding-name").where.endswith(r"a\xe9.jpg")


def test_other_text_is_not_yolo(tmp_path: Path, photo):
    photo(tmp_path / "a.png")
    (tmp_path / "classes.txt").write_text("0 0 0 0 0\n")
    (tmp_path / "notes.md").write_text("hello")
    (tmp_path / "a.txt").write_text("0 0.5 0.5 0.1\n")
    (tmp_path / "b.txt").write_text("hello world\n")
    assert not yolo.sniff(tmp_path)
    (tmp_path / "a.txt").write_text(LINE)
    assert yolo.sniff(tmp_path)
