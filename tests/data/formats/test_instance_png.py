"""Instance maps: objects with masks, classes from a table, round trips."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from clearsight.data.decode import read_index_map
from clearsight.data.formats import coco
from clearsight.data.formats.instance_png import loses, read, sniff, write
from clearsight.ops.masks import rle_to_mask


@pytest.fixture
def scene(tmp_path, photo):
    def write_pair(name, numbers):
        photo(tmp_path / "images" / f"{name}.jpg", width=3, height=2)
        (tmp_path / "instances").mkdir(exist_ok=True)
        Image.fromarray(np.asarray(numbers, np.uint16)).save(tmp_path / "instances" / f"{name}.png")
        return tmp_path

    return write_pair


@pytest.mark.real
def test_nuclei_round_trip(shared_data, tmp_path, same):
    folder = shared_data / "nuclei"
    assert sniff(folder)
    before = read(folder, classes=("nucleus",))
    assert (before.task, len(before), before.counts()) == ("instance", 60, {"nucleus": 2042})
    assert before.findings == []
    record = before.records[3]
    assert record.instance_map is not None
    numbers = read_index_map(record.instance_map)
    for item in record.objects:
        assert item.rle is not None
        np.testing.assert_array_equal(rle_to_mask(item.rle), numbers == item.attributes["instance"])
    assert loses(before) == []
    assert write(before, tmp_path) == []
    after = read(tmp_path)
    same(before, after)
    for left, right in zip(before.records, after.records, strict=True):
        assert left.instance_map is not None
        assert right.instance_map is not None
        np.testing.assert_array_equal(read_index_map(left.instance_map), read_index_map(right.instance_map))


@pytest.mark.real
def test_fruits_to_instance_maps(shared_data, tmp_path):
    before = coco.read(shared_data / "fruits")
    text = " ".join(finding.explanation for finding in loses(before))
    assert "outlines finer than a pixel (165 objects)" in text
    write(before, tmp_path)
    after = read(tmp_path)
    assert after.classes == before.classes
    assert after.counts() == before.counts()


def test_classes_from_the_table(scene, only):
    folder = scene("a", [[1, 0, 7], [1, 300, 7]])
    (folder / "instances.csv").write_text("map,instance,class\ninstances/a.png,1,cat\ninstances/a.png,7,Dog\nx,y,z\n")
    got = read(folder, classes=("dog", "cat"))
    assert [(item.label, item.attributes["instance"]) for item in got.records[0].objects] == [(1, 1), (0, 7)]
    assert only(got.findings, "class-case-mismatch").where.endswith("instances.csv:3")
    assert only(got.findings, "unreadable-annotation").where.endswith("instances.csv:4")
    missing = only(got.findings, "unknown-class")
    assert missing.where.endswith("a.png#300")
    assert "no row for it" in missing.explanation


def test_several_classes_and_no_table(scene, only):
    got = read(scene("a", [[1, 0, 0], [0, 0, 0]]), classes=("a", "b"))
    assert got.records[0].objects == []
    assert "2 classes and no instances.csv" in only(got.findings, "unknown-class").explanation


def test_one_class_by_default(scene):
    got = read(scene("a", [[0, 0, 0], [0, 9, 0]]))
    assert got.classes == ("object",)
    assert got.records[0].objects[0].box == (1, 1, 2, 2)


def test_damaged_maps(scene, only):
    folder = scene("a", [[1, 0, 0], [0, 0, 0]])
    scene("b", [[1, 0, 0], [0, 0, 0]])
    data = (folder / "instances" / "b.png").read_bytes()
    (folder / "instances" / "b.png").write_bytes(data[:45])
    got = read(folder)
    assert [record.image.name for record in got.records] == ["a.jpg"]
    assert only(got.findings, "truncated-image").where.endswith("b.png")


def test_losses_are_told(scene):
    got = read(scene("a", [[1, 0, 2], [0, 0, 0]]))
    first, second = got.records[0].objects
    second.rle, second.polygons = None, []
    first.crowd, first.attributes = True, {"pose": "left"}
    got.records[0].split = "fold 3"
    text = " ".join(finding.explanation for finding in loses(got))
    for part in ("only a box (1)", "the crowd flag", "'pose'", "fold 3"):
        assert part in text


def test_numbers_that_skip_come_back(scene, tmp_path, same):
    before = read(scene("a", [[2, 0, 300], [2, 0, 65535]]))
    write(before, tmp_path / "out")
    same(before, read(tmp_path / "out"))
