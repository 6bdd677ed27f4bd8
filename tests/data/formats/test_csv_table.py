"""CSV tables: classification, detection, splits, and every fault with its line."""

from __future__ import annotations

import pytest

from clearsight.data.formats.csv_table import read, sniff
from clearsight.errors import DataError


@pytest.fixture
def folder(tmp_path, photo):
    for name in ("a.jpg", "b.JPG", "images/c.png"):
        photo(tmp_path / name)
    return tmp_path


def test_classification(folder):
    (folder / "labels.csv").write_text(
        "Image,Class,split,patient,camera\na.jpg,cat,train,p1,left\nimages\\c.png,dog,val,,\n"
    )
    for path in (folder, folder / "labels.csv"):
        got = read(path)
        assert got.task == "classification"
        assert got.classes == ("cat", "dog")
        assert [(r.image.name, r.label, r.split, r.group) for r in got.records] == [
            ("a.jpg", 0, "train", "p1"),
            ("c.png", 1, "val", None),
        ]
        assert got.records[0].attributes == {"camera": "left"}
        assert got.records[1].where.endswith("labels.csv:3")
        assert got.findings == []
        assert sniff(path)


def test_detection_groups_rows_of_an_image(folder):
    (folder / "boxes.csv").write_text(
        "filename,width,height,class,xmin,ymin,xmax,ymax,score\n"
        "a.jpg,40,30,cell,1,2,10.5,20,0.5\nb.JPG,40,30,,,,,,\na.jpg,40,30,core,0,0,5,5,\n"
    )
    got = read(folder)
    assert got.task == "detection"
    first, second = got.records
    assert first.size == (30, 40)
    assert [(item.label, item.box) for item in first.objects] == [(0, (1, 2, 10.5, 20)), (1, (0, 0, 5, 5))]
    assert first.objects[0].attributes == {"score": "0.5"}
    assert first.objects[1].where.endswith("boxes.csv:4")
    assert second.objects == []
    assert got.findings == []


def test_tables_as_splits(folder):
    (folder / "train.csv").write_text("path,label\na.jpg,x\n")
    (folder / "valid.csv").write_text("path,label\nb.JPG,x\n")
    (folder / "notes.csv").write_text("Id,Price\n1,2\n")
    assert read(folder).splits == {"train": 1, "val": 1}
    assert read(folder / "train.csv").splits == {None: 1}


def test_files_are_found_by_name_and_stem(folder):
    (folder / "l.csv").write_text("path,label\nC.PNG,x\nb,x\n/old/place/a.jpg,x\n")
    assert [r.image.name for r in read(folder).records] == ["c.png", "b.JPG", "a.jpg"]


@pytest.mark.parametrize(
    ("row", "fault", "text"),
    [
        ("gone.jpg,cat", "missing-image", "'gone.jpg' was not found"),
        (",cat", "missing-image", "names no image file"),
        ("a.jpg,", "image-without-label", "no class"),
        ("a.jpg,cat,extra", "unreadable-annotation", "3 columns"),
    ],
)
def test_faulty_rows_of_classification(folder, only, row, fault, text):
    (folder / "l.csv").write_text(f"path,label\nb.JPG,cat\n{row}\n")
    got = read(folder)
    assert [r.image.name for r in got.records] == ["b.JPG"]
    found = only(got.findings, fault)
    assert found.severity == "error"
    assert found.where.endswith("l.csv:3")
    assert "dropped" in found.action
    assert text in found.explanation


@pytest.mark.parametrize(
    ("row", "text"),
    [
        ("a.jpg,cat,1,2,three,4", "xmax is 'three'"),
        ("a.jpg,cat,1,2,,4", "xmax is ''"),
        ("a.jpg,cat,,,,", "a class but no box"),
        ("a.jpg,,1,2,3,4", "a box but no class"),
    ],
)
def test_faulty_rows_of_detection(folder, only, row, text):
    (folder / "l.csv").write_text(f"path,label,xmin,ymin,xmax,ymax\na.jpg,cat,1,2,3,4\n{row}\n")
    got = read(folder)
    assert len(got.records[0].objects) == 1
    found = only(got.findings, "unreadable-annotation")
    assert (found.severity, found.action) == ("error", "object dropped")
    assert found.where.endswith("l.csv:3")
    assert text in found.explanation


def test_name_of_several_files(folder, photo, only):
    photo(folder / "x" / "same.jpg")
    photo(folder / "y" / "same.jpg")
    (folder / "l.csv").write_text("path,label\nsame.jpg,cat\nx/same.jpg,cat\n")
    got = read(folder)
    assert len(got) == 1
    found = only(got.findings, "duplicate-file-name")
    assert found.where.endswith("l.csv:2")
    assert "could be 2 files" in found.explanation


def test_size_that_is_no_number(folder, only):
    (folder / "l.csv").write_text("path,label,width,height\na.jpg,cat,wide,30\n")
    assert read(folder).records[0].size is None
    assert only(read(folder).findings, "unreadable-annotation").severity == "warning"


def test_numbers_as_classes(folder, only):
    (folder / "l.csv").write_text("path,label\na.jpg,10\nb.JPG,2\n")
    got = read(folder)
    assert got.classes == ("2", "10")
    assert only(got.findings, "id-gap").severity == "warning"
    (folder / "l.csv").write_text("path,label\na.jpg,1\nb.JPG,0\n")
    assert read(folder).classes == ("0", "1")
    assert read(folder).findings == []
    named = read(folder, classes=("no", "yes"))
    assert named.classes == ("no", "yes")
    assert [r.label for r in named.records] == [1, 0]


def test_given_classes(folder, only):
    (folder / "l.csv").write_text("path,label\na.jpg,Cat\nb.JPG,cow\n")
    got = read(folder, classes=("dog", "cat"))
    assert [(r.image.name, r.label) for r in got.records] == [("a.jpg", 1)]
    assert only(got.findings, "unknown-class").where.endswith(":3")
    assert only(got.findings, "class-case-mismatch").where.endswith(":2")


def test_boxes_without_classes(folder):
    (folder / "l.csv").write_text("path,x1,y1,x2,y2\na.jpg,1,2,3,4\n")
    got = read(folder)
    assert got.classes == ("object",)
    assert got.records[0].objects[0].label == 0


def test_no_table(folder):
    (folder / "notes.csv").write_text("Id,Price\n1,2\n")
    assert not sniff(folder)
    with pytest.raises(DataError, match="no table with columns for images and labels"):
        read(folder)


@pytest.mark.real
def test_other_tables_are_not_taken_for_images(shared_data):
    assert not sniff(shared_data / "house_prices")
