"""Semantic masks: index, palette, binary; values outside the classes; round trips."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from clearsight.data.class_map import read_class_map
from clearsight.data.formats.mask_png import loses, read, sniff, write
from clearsight.errors import DataError


@pytest.fixture
def scene(tmp_path, photo):
    """Writes an image 3 × 2 and its mask."""

    def write_pair(name, values, *, palette=False):
        photo(tmp_path / "images" / f"{name}.jpg", width=3, height=2)
        (tmp_path / "masks").mkdir(exist_ok=True)
        values = np.asarray(values, np.uint16 if np.max(values) > 255 else np.uint8)
        image = Image.fromarray(values)
        if palette:
            image = Image.frombytes("P", (3, 2), values.tobytes())
            image.putpalette(list(range(255, -1, -1)) * 3)
        image.save(tmp_path / "masks" / f"{name}.png")
        return tmp_path

    return write_pair


@pytest.mark.real
def test_membrane(shared_data, tmp_path):
    folder = shared_data / "membrane"
    assert sniff(folder)
    got = read(folder, classes=("membrane", "cell"))
    assert (got.task, len(got), got.classes, got.findings) == ("semantic", 30, ("membrane", "cell"), [])
    assert {record.attributes["mask"] for record in got.records} == {"binary"}
    first = got.records[0]
    raw = np.asarray(Image.open(first.semantic))
    np.testing.assert_array_equal(read_class_map(first), raw == 255)
    assert read(folder).classes == ("background", "foreground")
    # round trip
    assert loses(got) == []
    assert write(got, tmp_path) == []
    after = read(tmp_path)
    assert after.classes == got.classes
    for before, record in zip(got.records, after.records, strict=True):
        assert before.image.name == record.image.name
        np.testing.assert_array_equal(read_class_map(before), read_class_map(record))
        assert before.image.read_bytes() == record.image.read_bytes()


def test_index_masks(scene):
    scene("a", [[0, 1, 2], [2, 255, 0]])
    folder = scene("b", [[0, 0, 0], [0, 0, 1]])
    got = read(folder)
    assert got.classes == ("class 0", "class 1", "class 2")
    assert got.records[0].attributes == {"mask": "index"}
    assert read_class_map(got.records[0]).tolist() == [[0, 1, 2], [2, 255, 0]]
    assert got.findings == []


def test_palette_masks_are_indices_and_255_stays_ignored(scene):
    got = read(scene("a", [[0, 255, 0], [0, 0, 255]], palette=True), classes=("a", "b"))
    assert got.records[0].attributes == {"mask": "palette"}
    assert read_class_map(got.records[0]).tolist() == [[0, 255, 0], [0, 0, 255]]


def test_palette_masks_of_0_and_255_are_not_binary(scene):
    assert read(scene("a", [[0, 255, 0], [0, 0, 255]], palette=True)).classes == ("class 0",)


def test_one_empty_mask_does_not_hide_that_masks_are_binary(scene):
    scene("a", [[0, 0, 0], [0, 0, 0]])
    got = read(scene("b", [[0, 255, 0], [0, 0, 0]]))
    assert [record.attributes["mask"] for record in got.records] == ["binary", "binary"]


def test_names_from_the_file(scene):
    folder = scene("a", [[0, 1, 0], [0, 0, 0]])
    (folder / "classes.txt").write_text("sky\nground\ncar\n")
    assert read(folder).classes == ("sky", "ground", "car")


def test_values_without_a_class(scene, only):
    scene("good", [[0, 1, 1], [0, 0, 255]])
    got = read(scene("odd", [[0, 7, 7], [0, 9, 255]]), classes=("a", "b"))
    assert [record.image.name for record in got.records] == ["good.jpg"]
    found = only(got.findings, "unknown-class")
    assert found.where.endswith("odd.png")
    assert (found.severity, found.action) == ("error", "image dropped")
    assert "3 pixels have values without a class, 7 (2), 9 (1)" in found.explanation
    assert found.evidence == {"values": [7, 9], "counts": [2, 1], "pixels": 3}


def test_colour_and_damaged_masks(scene, only):
    folder = scene("good", [[0, 1, 1], [0, 0, 0]])
    scene("colour", [[0, 1, 1], [0, 0, 0]])
    scene("empty", [[0, 1, 1], [0, 0, 0]])
    Image.new("RGB", (3, 2)).save(folder / "masks" / "colour.png")
    (folder / "masks" / "empty.png").write_bytes(b"")
    got = read(folder)
    assert [record.image.name for record in got.records] == ["good.jpg"]
    assert "3 colour channels" in only(got.findings, "unsupported-file").explanation
    assert only(got.findings, "empty-file").where.endswith("empty.png")


def test_binary_masks_need_two_classes(scene):
    folder = scene("a", [[0, 255, 0], [0, 0, 0]])
    with pytest.raises(DataError, match="values 0 and 255, which are two classes; 1 were named"):
        read(folder, classes=("cell",))


def test_splits_round_trip(tmp_path, photo):
    for split in ("train", "val"):
        photo(tmp_path / "in" / split / "images" / f"{split}.png")
        (tmp_path / "in" / split / "masks").mkdir()
        Image.new("L", (40, 30), 1).save(tmp_path / "in" / split / "masks" / f"{split}.png")
    got = read(tmp_path / "in")
    assert got.splits == {"train": 1, "val": 1}
    assert write(got, tmp_path / "out") == []
    assert read(tmp_path / "out").splits == got.splits


def test_losses_are_told(scene):
    got = read(scene("a", [[0, 1, 1], [0, 0, 0]]))
    got.records[0].split, got.records[0].group = "fold 3", "patient"
    text = " ".join(finding.explanation for finding in loses(got))
    assert "groups" in text
    assert "fold 3" in text
    got.records[0].semantic = None
    assert "images without a semantic map (1)" in " ".join(finding.explanation for finding in loses(got))
