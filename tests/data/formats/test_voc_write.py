"""Writing VOC: what is lost is told, names that collide are told apart."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from clearsight.data.dataset import Dataset
from clearsight.data.formats import voc
from clearsight.types import Object, Record, Rle


def dataset(root: Path, *records: Record) -> Dataset:
    return Dataset(records=list(records), classes=("z", "a"), task="detection", root=root, format="coco")


def test_losses_are_counted(tmp_path: Path, photo):
    ring = np.zeros((3, 2))
    items = [
        Object(label=0, box=(0, 0, 1, 1), polygons=[ring], crowd=True, attributes={"id": 3, "ok": True, "bad key": 1}),
        Object(label=1, box=(0, 0, 1, 1), rle=Rle(size=(1, 1), counts=(1,)), attributes={"area": 1.0, "score": 0.5}),
    ]
    record = Record(image=photo(tmp_path / "a.png"), objects=items, group="g", label=1)
    found = {f.explanation: f.severity for f in voc.loses(dataset(tmp_path, record))}
    assert found == {
        "Pascal VOC cannot carry polygons (1 objects)": "warning",
        "Pascal VOC cannot carry run-length masks (1 objects)": "warning",
        "Pascal VOC cannot carry the crowd flag (1 objects)": "warning",
        "Pascal VOC cannot carry groups (1 images)": "warning",
        "Pascal VOC cannot carry image labels (1 images)": "warning",
        "Pascal VOC cannot carry the attribute 'ok' (1 objects)": "warning",
        "Pascal VOC cannot carry the attribute 'bad key' (1 objects)": "warning",
    }


def test_class_order_and_empty_classes_come_back(tmp_path: Path, photo):
    record = Record(image=photo(tmp_path / "a.png"), objects=[Object(label=1, box=(0, 0, 1, 1))])
    voc.write(dataset(tmp_path, record), tmp_path / "out")
    back = voc.read(tmp_path / "out")
    assert back.classes == ("z", "a")
    assert back.records[0].objects[0].label == 1
    assert back.records[0].size == (30, 40)  # from the image, as the record had none


def test_images_of_one_name_do_not_overwrite_each_other(tmp_path: Path, photo):
    one, two = photo(tmp_path / "x/a.png", value=1), photo(tmp_path / "y/a.jpg", value=2)
    data = dataset(tmp_path, *[Record(image=path, split="train") for path in (one, two)])
    assert voc.write(data, tmp_path / "out") == []
    back = voc.read(tmp_path / "out")
    assert [record.image.read_bytes() for record in back.records] == [one.read_bytes(), two.read_bytes()]
    assert back.splits == {"train": 2}


def test_a_missing_image_is_told_and_its_label_not_written(tmp_path: Path, photo, only):
    records = [Record(image=photo(tmp_path / "a.png")), Record(image=tmp_path / "gone.png", size=(3, 3))]
    finding = only(voc.write(dataset(tmp_path, *records), tmp_path / "out"), "missing-image")
    assert "gone.png" in finding.where
    assert [path.name for path in (tmp_path / "out/Annotations").iterdir()] == ["a.xml"]


def test_what_xml_must_escape(tmp_path: Path, photo):
    record = Record(image=photo(tmp_path / "a & <b>.png"), objects=[Object(label=0, box=(0, 0, 1, 1))])
    record.objects[0].attributes["note"] = "1 < 2 & \"3\" 'é'"
    data = Dataset(records=[record], classes=("<&>",), task="detection", root=tmp_path, format="coco")
    assert voc.loses(data) == []
    voc.write(data, tmp_path / "out")
    back = voc.read(tmp_path / "out")
    assert back.classes == ("<&>",)
    assert back.records[0].objects[0].attributes == record.objects[0].attributes


@pytest.mark.parametrize("value", [True, None, [[1]], [1], "\x07", "1", {"a b": 1}])
def test_values_that_would_come_back_changed_are_lost_and_told(tmp_path: Path, photo, value: object):
    record = Record(image=photo(tmp_path / "a.png"), attributes={"note": value})
    (finding,) = voc.loses(dataset(tmp_path, record))
    assert "'note'" in finding.explanation
    voc.write(dataset(tmp_path, record), tmp_path / "out")
    assert "note" not in voc.read(tmp_path / "out").records[0].attributes
