"""Image folders: labels as torchvision's, every odd file told, round trips."""

from __future__ import annotations

import pytest
from torchvision.datasets import ImageFolder

from clearsight.data.formats.image_folder import loses, read, sniff, write


@pytest.mark.real
def test_sign_digits_agree_with_torchvision(shared_data):
    folder = shared_data / "sign_digits"
    got = read(folder)
    theirs = ImageFolder(str(folder))
    assert got.task == "classification"
    assert list(got.classes) == theirs.classes
    assert [(str(record.image), record.label) for record in got.records] == theirs.imgs
    assert len(got) == 600
    assert got.findings == []
    assert sniff(folder)


@pytest.mark.real
def test_round_trip(shared_data, tmp_path, same):
    before = read(shared_data / "sign_digits")
    assert loses(before) == []
    assert write(before, tmp_path / "out") == []
    after = read(tmp_path / "out")
    assert [r.label for r in after.records] == [r.label for r in before.records]
    assert after.counts() == before.counts() == dict.fromkeys("0123456789", 60)
    left = [(r.image.name, r.label, r.image.stat().st_size) for r in before.records]
    assert left == [(r.image.name, r.label, r.image.stat().st_size) for r in after.records]


def test_splits_and_mixed_case(tmp_path, photo):
    for name in ("Train/cat/A.JPG", "Train/dog/b.jpeg", "valid/cat/c.Png", "test/dog/deep/d.bmp"):
        photo(tmp_path / name)
    got = read(tmp_path)
    assert got.classes == ("cat", "dog")
    assert {(r.image.name, r.label, r.split) for r in got.records} == {
        ("A.JPG", 0, "train"),
        ("b.jpeg", 1, "train"),
        ("c.Png", 0, "val"),
        ("d.bmp", 1, "test"),
    }
    assert write(got, tmp_path / "out") == []
    again = read(tmp_path / "out")
    assert again.splits == got.splits == {"train": 2, "val": 1, "test": 1}


def test_a_class_called_train_is_a_class(tmp_path, photo):
    photo(tmp_path / "train" / "a.jpg")
    photo(tmp_path / "tram" / "b.jpg")
    got = read(tmp_path)
    assert got.classes == ("train", "tram")
    assert set(got.splits) == {None}


def test_plain_order_and_listed_order(tmp_path, photo):
    for name in ("10", "2", "1"):
        photo(tmp_path / name / "a.jpg")
    assert read(tmp_path).classes == ("1", "10", "2")
    (tmp_path / "classes.txt").write_text("1\n2\n10\n")
    got = read(tmp_path)
    assert got.classes == ("1", "2", "10")
    write(got, tmp_path / "out")
    assert read(tmp_path / "out").classes == ("1", "2", "10")


def test_given_classes(tmp_path, photo, only):
    photo(tmp_path / "Cat" / "a.jpg")
    photo(tmp_path / "cow" / "b.jpg")
    got = read(tmp_path, classes=("dog", "cat"))
    assert [(r.image.name, r.label) for r in got.records] == [("a.jpg", 1)]
    assert only(got.findings, "class-case-mismatch").action == "read as 'cat'"
    unknown = only(got.findings, "unknown-class")
    assert unknown.severity == "error"
    assert unknown.where.endswith("cow")


def test_odd_files_are_told(tmp_path, photo, only):
    photo(tmp_path / "train" / "cat" / "a.jpg")
    (tmp_path / "train" / "cat" / "notes.docx").write_text("x")
    (tmp_path / "train" / "cat" / ".DS_Store").write_text("x")
    photo(tmp_path / "train" / "loose.jpg")
    photo(tmp_path / "spare" / "b.jpg")
    (tmp_path / "val" / "cat").mkdir(parents=True)
    got = read(tmp_path)
    assert [r.image.name for r in got.records] == ["a.jpg"]
    odd = only(got.findings, "unsupported-file")
    assert odd.where.endswith("notes.docx")
    assert odd.action == "passed over"
    assert only(got.findings, "empty-split").where.endswith("val")
    loose = [f for f in got.findings if f.id == "image-without-label"]
    assert {f.where.rsplit("/", 1)[1] for f in loose} == {"loose.jpg", "spare"}
    assert {f.severity for f in loose} == {"error"}


def test_empty_class_keeps_its_label(tmp_path, photo):
    photo(tmp_path / "b" / "x.jpg")
    (tmp_path / "a").mkdir()
    got = read(tmp_path)
    assert got.classes == ("a", "b")
    assert got.records[0].label == 1
    write(got, tmp_path / "out")
    assert read(tmp_path / "out").classes == ("a", "b")


def test_losses_are_told(tmp_path, photo):
    photo(tmp_path / "a" / "x.jpg")
    photo(tmp_path / "a" / "y.jpg")
    data = read(tmp_path)
    data.records[0].split = "fold1"
    data.records[1].label = None
    data.classes = ("a/b",)
    text = " ".join(finding.explanation for finding in loses(data))
    for part in ("images without an image label (1)", "'a/b'", "images outside the splits train, val and test"):
        assert part in text
    assert {finding.id for finding in loses(data)} == {"lost-on-write"}


def test_sniff_needs_folders(tmp_path, photo):
    photo(tmp_path / "a.jpg")
    assert not sniff(tmp_path)
    assert not sniff(tmp_path / "a.jpg")
    photo(tmp_path / "c" / "a.jpg")
    assert sniff(tmp_path)
