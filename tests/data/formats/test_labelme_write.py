"""LabelMe out and in again."""

from __future__ import annotations

import json

import numpy as np
import pytest

from clearsight.data.formats import coco, instance_png, voc
from clearsight.data.formats.labelme import read
from clearsight.data.formats.labelme_write import loses, write
from clearsight.ops.outlines import polygons_to_mask
from clearsight.types import Object


@pytest.mark.real
def test_fruits_by_way_of_labelme(shared_data, tmp_path, same):
    before = coco.read(shared_data / "fruits")
    assert [finding for finding in loses(before) if finding.severity != "info"] == []
    write(before, tmp_path)
    after = read(tmp_path)
    assert after.classes == before.classes
    same(before, after, attributes=False)


@pytest.mark.real
def test_nuclei_by_way_of_labelme(shared_data, tmp_path, same):
    before = instance_png.read(shared_data / "nuclei")
    before.records = before.records[:6]
    for record in before.records:
        record.instance_map = None
    assert loses(before) == []
    assert write(before, tmp_path) == []
    same(before, read(tmp_path))


@pytest.mark.real
def test_bccd_by_way_of_labelme(shared_data, tmp_path, same):
    before = voc.read(shared_data / "bccd")
    before.records = before.records[:25] + [r for r in before.records if "00338" in r.image.name]
    assert write(before, tmp_path) == loses(before)
    same(before, read(tmp_path), attributes=False)


def test_what_is_written_is_read_the_same_twice(tmp_path, photo):
    image = photo(tmp_path / "in" / "a.jpg")
    record_json = {
        "version": "5.5.0",
        "flags": {"night": True},
        "shapes": [{"label": "b", "points": [[1, 1], [9, 1], [5, 8]], "shape_type": "polygon", "flags": {"x": True}}],
        "imagePath": "a.jpg",
        "imageHeight": 30,
        "imageWidth": 40,
    }
    image.with_suffix(".json").write_text(json.dumps(record_json))
    before = read(tmp_path / "in", classes=("z", "b"))
    before.records[0].group = "patient 1"
    write(before, tmp_path / "one")
    once = read(tmp_path / "one")
    assert once.classes == ("z", "b")
    assert once.records[0].group == "patient 1"
    assert once.records[0].attributes == {"flags": {"night": True}}
    write(once, tmp_path / "two")
    assert (tmp_path / "one" / "a.json").read_bytes() == (tmp_path / "two" / "a.json").read_bytes()


def test_losses_are_told(tmp_path, photo):
    image = photo(tmp_path / "in" / "a.jpg")
    image.with_suffix(".json").write_text(json.dumps({"shapes": [], "imagePath": "a.jpg"}))
    data = read(tmp_path / "in")
    square = np.array([[2.0, 2.0], [8.0, 2.0], [8.0, 8.0], [2.0, 8.0]])
    hole = Object(label=0, box=(2, 2, 8, 8), polygons=[square, square / 3 + 3], attributes={"label": "x"})
    data.records[0].objects, data.classes = [hole], ("c",)
    data.records[0].split, data.records[0].label = "fold 2", 0
    found = {finding.explanation: finding.severity for finding in loses(data)}
    text = " ".join(found)
    for part in ("rings within rings", "fold 2", "image labels", "'label'"):
        assert part in text
    assert [severity for said, severity in found.items() if "rings within" in said] == ["info"]
    write(data, tmp_path / "out")
    back = read(tmp_path / "out").records[0].objects[0]
    size = (30, 40)
    np.testing.assert_array_equal(polygons_to_mask(back.polygons, size), polygons_to_mask(hole.polygons, size))
