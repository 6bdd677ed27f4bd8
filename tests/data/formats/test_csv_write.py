"""CSV out and in again."""

from __future__ import annotations

import pytest

from clearsight.data.formats import csv_table, image_folder, voc
from clearsight.data.formats.csv_table import read
from clearsight.data.formats.csv_write import loses, write
from clearsight.types import Rle


@pytest.mark.real
def test_bccd_by_way_of_csv(shared_data, tmp_path, same):
    before = voc.read(shared_data / "bccd")
    for record in before.records:  # what CSV says it cannot carry
        record.attributes = {}
        for item in record.objects:
            item.attributes, item.difficult = {}, False
    assert loses(before) == []
    assert write(before, tmp_path) == []
    same(before, read(tmp_path))


@pytest.mark.real
def test_sign_digits_by_way_of_csv(shared_data, tmp_path):
    before = image_folder.read(shared_data / "sign_digits")
    assert write(before, tmp_path / "one") == []
    once = read(tmp_path / "one")
    assert once.counts() == before.counts()
    assert write(once, tmp_path / "two") == []
    assert (tmp_path / "one" / "labels.csv").read_bytes() == (tmp_path / "two" / "labels.csv").read_bytes()


def test_odd_values_come_back(tmp_path, photo, same):
    photo(tmp_path / "in" / "a, b.jpg")
    photo(tmp_path / "in" / "c.jpg")
    (tmp_path / "in" / "l.csv").write_text(
        "path,label,xmin,ymin,xmax,ymax,split,patient,note\n"
        '"a, b.jpg","the ""big"" one, red",0.1,1e-7,33.333333333333336,20,train,p1,"two\nlines"\nc.jpg,,,,,,val,,\n'
    )
    before = read(tmp_path / "in")
    assert loses(before) == []
    assert write(before, tmp_path / "out") == []
    same(before, read(tmp_path / "out"))


def test_label_order_and_empty_classes_come_back(tmp_path, photo):
    photo(tmp_path / "in" / "a.jpg")
    (tmp_path / "in" / "l.csv").write_text("path,label\na.jpg,b\n")
    before = read(tmp_path / "in", classes=("z", "b", "a"))
    write(before, tmp_path / "out")
    assert read(tmp_path / "out").classes == ("z", "b", "a")


def test_losses_are_told(tmp_path, photo):
    photo(tmp_path / "a.jpg")
    (tmp_path / "l.csv").write_text("path,label,xmin,ymin,xmax,ymax\na.jpg,c,1,1,5,5\n")
    data = read(tmp_path)
    item = data.records[0].objects[0]
    item.rle, item.crowd = Rle((1, 1), (1,)), True
    item.attributes = {"pose": "Left", "truncated": 1, "label": "x", " padded": "y"}
    text = " ".join(finding.explanation for finding in loses(data))
    for part in ("run-length masks", "the crowd flag", "'truncated'", "'label'", "' padded'"):
        assert part in text
    assert "pose" not in text


def test_missing_image_is_told(tmp_path, photo, only):
    photo(tmp_path / "a.jpg")
    (tmp_path / "l.csv").write_text("path,label\na.jpg,c\n")
    data = csv_table.read(tmp_path)
    (tmp_path / "a.jpg").unlink()
    assert only(write(data, tmp_path / "out"), "missing-image").action == "not written"
    assert (tmp_path / "out" / "labels.csv").read_text() == "path,label\n"
