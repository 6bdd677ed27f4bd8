"""Writing COCO: holes, ids, losses."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from pycocotools import mask as coco_mask

from clearsight.data.dataset import Dataset
from clearsight.data.formats import coco
from clearsight.ops.masks import mask_to_rle
from clearsight.ops.outlines import mask_to_polygons, polygons_to_mask
from clearsight.types import Object, Record


def dataset(root: Path, *records: Record, format: str = "yolo") -> Dataset:
    return Dataset(records=list(records), classes=("a", "b"), task="instance", root=root, format=format)


def ring_mask() -> np.ndarray:
    mask = np.zeros((30, 40), dtype=bool)
    mask[5:20, 6:30] = True
    mask[8:12, 10:20] = False
    return mask


def test_holes_become_run_lengths_since_coco_would_fill_them(tmp_path: Path, photo):
    item = Object(label=0, box=(6, 5, 30, 20), polygons=mask_to_polygons(ring_mask()))
    data = dataset(tmp_path, Record(image=photo(tmp_path / "a.png"), size=(30, 40), objects=[item]))
    (finding,) = coco.write(data, tmp_path / "out")
    assert "polygons with holes (1 objects)" in finding.explanation
    back = coco.read(tmp_path / "out").records[0].objects[0]
    assert back.rle == mask_to_rle(ring_mask())
    assert back.attributes["area"] == ring_mask().sum()


def test_separate_parts_stay_polygons(tmp_path: Path, photo):
    mask = np.zeros((30, 40), dtype=bool)
    mask[1:5, 1:5] = mask[10:20, 10:20] = True
    item = Object(label=0, box=(1, 1, 20, 20), polygons=mask_to_polygons(mask))
    data = dataset(tmp_path, Record(image=photo(tmp_path / "a.png"), size=(30, 40), objects=[item]))
    assert coco.write(data, tmp_path / "out") == []
    (back,) = coco.read(tmp_path / "out").records[0].objects
    assert len(back.polygons) == 2
    assert back.attributes["area"] == mask.sum()


def test_overlapping_rings_of_coco_stay_as_they_are_and_mean_their_union(tmp_path: Path, photo):
    photo(tmp_path / "a.png")
    rings = [[2, 2, 20, 2, 20, 20, 2, 20], [10, 10, 30, 10, 30, 28, 10, 28]]
    value = {
        "images": [{"id": 1, "file_name": "a.png", "height": 30, "width": 40}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [2, 2, 28, 26], "segmentation": rings}],
        "categories": [{"id": 1, "name": "cat"}],
    }
    (tmp_path / "labels.json").write_text(json.dumps(value))
    data = coco.read(tmp_path / "labels.json")
    item = data.records[0].objects[0]
    assert item.attributes["fill"] == "union"
    theirs = coco_mask.area(coco_mask.merge(coco_mask.frPyObjects(rings, 30, 40)))
    assert polygons_to_mask(item.polygons, (30, 40), fill="union").sum() == theirs
    assert coco.write(data, tmp_path / "out") == []
    written = json.loads((tmp_path / "out/annotations/instances.json").read_text())["annotations"][0]
    assert written["segmentation"] == rings
    assert "fill" not in written


def test_corners_are_written_where_the_sum_would_miss_them(tmp_path: Path, photo):
    box = (2.0**-53, 0.0, 1 + 2.0**-52, 1.0)
    record = Record(image=photo(tmp_path / "a.png"), objects=[Object(label=0, box=box)])
    coco.write(dataset(tmp_path, record), tmp_path / "out")
    (item,) = coco.read(tmp_path / "out").records[0].objects
    assert item.box == box
    assert "bbox_corners" not in item.attributes


def test_ids_are_kept_where_they_are_unique_and_made_where_not(tmp_path: Path, photo):
    ids = [4, None, 4, "x", True]
    records = [Record(image=photo(tmp_path / f"{i}.png"), attributes={"id": id_}) for i, id_ in enumerate(ids)]
    records[0].objects = [Object(label=1, box=(0, 0, 1, 1))]
    coco.write(dataset(tmp_path, *records), tmp_path / "out")
    value = json.loads((tmp_path / "out/annotations/instances.json").read_text())
    assert [image["id"] for image in value["images"]] == [4, 5, 6, "x", 7]
    assert value["categories"] == [{"id": 1, "name": "a"}, {"id": 2, "name": "b"}]
    expected = {"id": 1, "image_id": 4, "category_id": 2, "bbox": [0, 0, 1, 1], "area": 1, "iscrowd": 0}
    assert value["annotations"] == [{**expected, "segmentation": []}]


def test_losses(tmp_path: Path, photo):
    item = Object(label=0, box=(0, 0, 1, 1), polygons=[np.eye(3)[:, :2]], rle=mask_to_rle(ring_mask()))
    item.attributes = {"callable": print, "iscrowd": 3}
    record = Record(image=photo(tmp_path / "a.png"), objects=[item], label=1, semantic=tmp_path / "s.png")
    text = [finding.explanation for finding in coco.loses(dataset(tmp_path, record))]
    assert text == [
        "COCO cannot carry image labels (1 images)",
        "COCO cannot carry semantic maps (1 images)",
        "COCO cannot carry the attribute 'callable' (1 objects)",
        "COCO cannot carry the attribute 'iscrowd' (1 objects)",
        "COCO cannot carry polygons beside run lengths (1 objects); run lengths stay",
    ]


def test_a_missing_image_is_told_and_its_label_not_written(tmp_path: Path, only):
    data = dataset(tmp_path, Record(image=tmp_path / "gone.png", split="train"))
    assert "gone.png" in only(coco.write(data, tmp_path / "out"), "missing-image").where
    assert json.loads((tmp_path / "out/annotations/instances_train.json").read_text())["images"] == []
