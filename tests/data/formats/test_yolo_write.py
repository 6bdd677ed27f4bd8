"""Writing YOLO: what is lost, how splits are laid out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import yaml

from clearsight.data.dataset import Dataset
from clearsight.data.formats import yolo
from clearsight.ops.masks import mask_to_rle
from clearsight.types import Object, Record

SQUARE = np.array([[1, 1], [9, 1], [9, 9], [1, 9.0]])


def dataset(root: Path, *records: Record, **attributes) -> Dataset:
    made = list(records)
    return Dataset(records=made, classes=("a", "b"), task="instance", root=root, format="coco", attributes=attributes)


def test_losses_are_counted(tmp_path: Path, photo):
    mask = np.zeros((30, 40), dtype=bool)
    mask[1:9, 1:9] = True
    hole = mask.copy()
    hole[3:5, 3:5] = False
    items = [
        Object(label=0, box=(1, 1, 9, 9), polygons=[SQUARE], attributes={"area": 64.0, "id": 1, "score": 3}),
        Object(label=0, box=(0, 1, 11.5, 9), polygons=[SQUARE], crowd=True, attributes={"area": 60.0}),
        Object(label=0, box=(1, 1, 30, 30), polygons=[SQUARE, SQUARE + 20]),
        Object(label=0, box=(1, 1, 9, 9), rle=mask_to_rle(hole), difficult=True),
        Object(label=0, box=(1, 1, 9, 9), rle=mask_to_rle(mask), attributes={"truncated": 0}),
    ]
    record = Record(image=photo(tmp_path / "a.png"), objects=items, attributes={"id": 3, "license": 2})
    losses = yolo.loses(dataset(tmp_path, record))
    found = {loss.explanation.removeprefix("YOLO cannot carry "): loss.severity for loss in losses}
    assert found == {
        "the attribute 'id' (1 images)": "info",
        "the attribute 'license' (1 images)": "warning",
        "the attribute 'id' (1 objects)": "info",
        "the attribute 'score' (1 objects)": "warning",
        "the crowd flag (1 objects)": "warning",
        "the attribute 'area' (1 objects)": "warning",
        "the difficult flag (1 objects)": "warning",
        "the attribute 'truncated', which says nothing (1 objects)": "info",
        "several rings (2 objects); they are joined to one that covers the same": "warning",
        "run lengths (2 objects); outlines of the same pixels are written": "info",
        "boxes that differ from their polygons (2 objects, by up to 2.5 pixels)": "warning",
    }


def test_boxes_that_were_rounded_are_no_reason_to_refuse(tmp_path: Path, photo):
    item = Object(label=0, box=(0.5, 1, 9, 10), polygons=[SQUARE])
    (finding,) = yolo.loses(dataset(tmp_path, Record(image=photo(tmp_path / "a.png"), objects=[item])))
    assert finding.severity == "info"
    assert "by up to 1 pixels" in finding.explanation


def test_splits_and_lists(tmp_path: Path, photo):
    records = [
        Record(image=photo(tmp_path / "a.png"), split="train", attributes={"lists": ["trainval", "val"]}),
        Record(image=photo(tmp_path / "b.png"), split="val", attributes={"lists": ["trainval"]}),
        Record(image=photo(tmp_path / "c.png"), split="extra"),
    ]
    for record in records:
        record.objects = [Object(label=1, box=(1, 1, 3, 3))]
    assert yolo.write(dataset(tmp_path, *records, info={"year": 2024}), tmp_path / "out") == []
    assert yaml.safe_load((tmp_path / "out/data.yaml").read_text()) == {
        "train": "images/train",
        "val": ["images/val", "val.txt"],
        "extra": "images/extra",
        "trainval": "trainval.txt",
        "nc": 2,
        "names": {0: "a", 1: "b"},
        "info": {"year": 2024},
    }
    back = yolo.read(tmp_path / "out")
    assert [record.split for record in back.records] == ["train", "val", "extra"]
    assert [sorted(record.attributes.get("lists", [])) for record in back.records] == [
        ["trainval", "val"],
        ["trainval"],
        [],
    ]
    assert back.attributes == {"info": {"year": 2024}}


def test_images_without_splits_come_back_without(tmp_path: Path, photo):
    record = Record(image=photo(tmp_path / "a.png"), objects=[Object(label=1, box=(1, 1, 3, 3))])
    yolo.write(dataset(tmp_path, record), tmp_path / "out")
    assert (tmp_path / "out/data.yaml").read_text().startswith("# The images have no splits")
    assert yolo.read(tmp_path / "out").splits == {None: 1}


def test_images_without_a_split_beside_others_get_one_and_that_is_told(tmp_path: Path, photo):
    records = [Record(image=photo(tmp_path / f"{split}.png"), split=split) for split in ("train", None)]
    records[0].objects = [Object(label=1, box=(1, 1, 3, 3))]
    (finding,) = yolo.write(dataset(tmp_path, *records), tmp_path / "out")
    assert "become split 'unsplit'" in finding.explanation
    assert yolo.read(tmp_path / "out").splits == {"train": 1, "unsplit": 1}


def test_a_missing_image_is_told_and_its_label_not_written(tmp_path: Path, only):
    data = dataset(tmp_path, Record(image=tmp_path / "gone.png", split="train"))
    assert "gone.png" in only(yolo.write(data, tmp_path / "out"), "missing-image").where
    assert not (tmp_path / "out/labels").exists()
