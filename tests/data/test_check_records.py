"""Whole data sets by what their annotations say."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from clearsight.data.check import check_images, check_records
from clearsight.data.dataset import Dataset
from clearsight.data.formats import image_folder, voc
from clearsight.types import Finding, Object, Record


def one(findings, fault, **wanted) -> Finding:
    found = [f for f in findings if f.id == fault and all(getattr(f, key) == value for key, value in wanted.items())]
    assert len(found) == 1, [(f.id, f.severity, f.where, f.explanation) for f in findings]
    return found[0]


def cells(*records: Record, classes=("a", "b"), task="detection") -> Dataset:
    return Dataset(records=list(records), classes=classes, task=task, root=Path("root"), format="voc")


def record(name: str, *boxes, label: int = 0, **more) -> Record:
    objects = [Object(label=label, box=box) for box in boxes]
    more = {"size": (30, 40), "where": f"{name}.xml"} | more
    return Record(image=Path(f"{name}.jpg"), objects=objects, **more)


GOOD = (1.0, 1.0, 5.0, 5.0)
TURNED = (5.0, 1.0, 1.0, 5.0)


@pytest.mark.real
def test_bccd_has_two_boxes_without_area(shared_data):
    before = voc.read(shared_data / "bccd")
    after = check_records(before)
    assert [(f.id, f.severity, f.action) for f in after.findings] == [("box-empty", "error", "object dropped")] * 2
    assert ["00338" in after.findings[0].where, "00343" in after.findings[1].where] == [True, True]
    assert sum(before.counts().values()) - sum(after.counts().values()) == 2
    assert len(after) == len(before) == 364


@pytest.mark.real
@pytest.mark.parametrize("folder", ["sign_digits"])
def test_clean_data_has_no_findings(shared_data, folder):
    data = image_folder.read(shared_data / folder)
    assert check_images(check_records(data), decode=False).findings == []


def test_faulty_objects_go_and_the_others_stay():
    before = cells(record("x", GOOD, TURNED, (30, 1, 60, 5)), record("y", GOOD, label=1))
    after = check_records(before)
    assert [item.box for item in after.records[0].objects] == [GOOD, (30, 1, 40, 5)]
    assert one(after.findings, "box-inverted").where == "x.xml"
    assert one(after.findings, "box-outside").severity == "warning"
    assert len(before.records[0].objects) == 3  # not changed
    assert before.findings == []


def test_order_of_findings_is_that_of_records():
    after = check_records(cells(*(record(f"{i}", GOOD, TURNED) for i in range(12)), classes=("a",)))
    assert [f.where for f in after.findings] == [f"{i}.xml" for i in range(12)]


def test_image_without_objects():
    found = one(check_records(cells(record("x"), record("y", GOOD), classes=("a",))).findings, "no-objects")
    assert (found.severity, found.where, found.action) == ("info", "x.xml", "kept as background")


def test_image_whose_objects_were_all_faulty():
    after = check_records(cells(record("x", TURNED), record("y", GOOD), classes=("a",)))
    found = one(after.findings, "no-objects")
    assert (found.severity, found.action) == ("warning", "kept without objects")
    assert len(after) == 2


def test_class_numbers_that_do_not_exist():
    after = check_records(cells(record("x", GOOD, label=7), record("y", GOOD), classes=("a",)))
    assert one(after.findings, "unknown-class").action == "object dropped"
    assert after.records[0].objects == []
    labelled = cells(Record(image=Path("x.jpg"), label=3), Record(image=Path("y.jpg"), label=0), task="classification")
    assert one(check_records(labelled).findings, "unknown-class").action == "image dropped"


def test_same_image_twice_with_the_same_content():
    after = check_records(cells(record("x", GOOD), record("x", GOOD), record("y", GOOD), classes=("a",)))
    found = one(after.findings, "duplicate-file-name")
    assert (found.severity, found.action, found.where) == ("warning", "kept once", "x.jpg")
    assert [r.image.name for r in after.records] == ["x.jpg", "y.jpg"]


def test_same_image_twice_with_different_content():
    after = check_records(cells(record("x", GOOD), record("x", GOOD, GOOD), record("y", GOOD), classes=("a",)))
    found = one(after.findings, "duplicate-file-name")
    assert (found.severity, found.action) == ("error", "image dropped")
    assert "x.xml" in found.explanation
    assert [r.image.name for r in after.records] == ["y.jpg"]


def test_names_that_differ_by_case_only():
    after = check_records(cells(record("x", GOOD), record("X", GOOD), classes=("a",)))
    assert one(after.findings, "duplicate-file-name").severity == "warning"
    assert len(after) == 2


def test_names_that_are_not_utf8(tmp_path):
    bad = tmp_path / "caf\udce9.jpg"
    Image.new("RGB", (40, 30)).save(bad, "JPEG")
    after = check_records(cells(Record(image=bad, label=0), Record(image=Path("y"), label=1), task="classification"))
    found = one(after.findings, "encoding-name")
    assert found.severity == "error"
    assert found.where.endswith(r"caf\xe9.jpg")
    assert len(after) == 1


def test_class_without_samples():
    after = check_records(cells(record("x", GOOD), record("y", GOOD)))
    found = one(after.findings, "empty-class")
    assert (found.severity, found.evidence) == ("warning", {"class": "b"})
    assert "class 'b' has no objects" in found.explanation


def test_class_without_samples_in_one_split():
    data = cells(
        record("x", GOOD, split="train"), record("y", GOOD, label=1, split="train"), record("z", GOOD, split="val")
    )
    found = one(check_records(data).findings, "empty-class")
    assert found.where == "root (split val)"
    assert found.evidence == {"class": "b", "split": "val"}


def test_split_whose_images_all_went():
    data = cells(
        Record(image=Path("x"), label=9, split="val"),
        *(Record(image=Path(n), label=0, split="train") for n in "yz"),
        task="classification",
        classes=("a",),
    )
    found = one(check_records(data).findings, "empty-split")
    assert (found.severity, found.where) == ("error", "root (split val)")


def test_single_image():
    assert one(check_records(cells(record("x", GOOD), classes=("a",))).findings, "single-image").severity == "warning"


def test_boxes_are_not_clipped_to_a_wrong_size(tmp_path):
    path = tmp_path / "x.png"
    Image.new("RGB", (60, 30)).save(path)
    wide = Record(image=path, size=(60, 30), objects=[Object(label=0, box=(10, 1, 55, 25))], where="x.xml")
    other = record("y", GOOD)
    after = check_records(cells(wide, other, classes=("a",)))
    assert after.records[0].objects[0].box == (10, 1, 55, 25)
    assert after.findings == []
    seen = check_images(after, decode=False)
    assert one(seen.findings, "size-mismatch").severity == "warning"
    assert seen.records[0].objects[0].box == (10, 1, 55, 25)
    assert seen.records[0].size == (30, 60)


def test_of_three_entries_one_that_differs_makes_all_doubtful():
    after = check_records(cells(record("x", GOOD), record("x", GOOD), record("x"), record("y", GOOD), classes=("a",)))
    assert one(after.findings, "duplicate-file-name").severity == "error"
    assert [r.image.name for r in after.records] == ["y.jpg"]
