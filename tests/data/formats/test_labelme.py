"""LabelMe folders: images found or taken out, groups merged, every fault with its place."""

from __future__ import annotations

import base64
import json

import pytest

from clearsight.data.formats.labelme import read, sniff


@pytest.fixture
def scene(tmp_path, photo):
    """Writes an image 40 × 30 and its JSON file; keys given replace the usual ones, None removes them."""

    def write(name, shapes=(), **changes):
        photo(tmp_path / f"{name}.jpg")
        content = {
            "version": "5.5.0",
            "flags": {},
            "shapes": list(shapes),
            "imagePath": f"{name.rsplit('/', 1)[-1]}.jpg",
            "imageData": None,
            "imageHeight": 30,
            "imageWidth": 40,
        }
        content = {key: value for key, value in (content | changes).items() if value is not None or key == "imageData"}
        (tmp_path / f"{name}.json").write_text(json.dumps(content))
        return tmp_path

    return write


def polygon(label, *, group=None, shift=0, **more):
    points = [[1 + shift, 2], [9 + shift, 2], [5 + shift, 9]]
    return {"label": label, "points": points, "group_id": group, "shape_type": "polygon", "flags": {}, **more}


def rectangle(label):
    return {"label": label, "points": [[1, 2], [9, 8]], "group_id": None, "shape_type": "rectangle", "flags": {}}


def test_folder(scene):
    folder = scene("a", [polygon("cat"), rectangle("Dog")], flags={"night": True}, camera="left")
    scene("train/b", [rectangle("cat")])
    got = read(folder)
    assert (got.task, got.classes, got.findings) == ("instance", ("Dog", "cat"), [])
    first, second = got.records
    assert first.size == (30, 40)
    assert [item.label for item in first.objects] == [1, 0]
    assert first.objects[1].where.endswith("a.json#shapes[1]")
    assert first.attributes == {"flags": {"night": True}, "camera": "left"}
    assert (first.split, second.split) == (None, "train")
    assert sniff(folder)
    assert sniff(folder / "a.json")
    assert len(read(folder / "a.json")) == 1


def test_only_rectangles_are_detection(scene):
    assert read(scene("a", [rectangle("cat")])).task == "detection"


def test_groups_are_one_object(scene):
    got = read(
        scene(
            "a", [polygon("cat", group=1), polygon("cat"), polygon("cat", group=1, shift=20), polygon("dog", group=1)]
        )
    )
    first, second, third = got.records[0].objects
    assert len(first.polygons) == 2
    assert first.box == (1, 2, 29, 9)
    assert first.attributes == {"group_id": 1}
    assert (len(second.polygons), third.label) == (1, 1)
    overlapping = read(scene("a", [polygon("cat", group=1), polygon("cat", group=1, shift=2)]))
    assert overlapping.records[0].objects[0].attributes["fill"] == "union"


def test_groups_of_different_kinds_stay_apart(scene, only):
    got = read(scene("a", [polygon("cat", group=1), polygon("cat", group=1, flags={"dark": True})]))
    assert len(got.records[0].objects) == 2
    found = only(got.findings, "group-not-merged")
    assert (found.severity, found.action) == ("warning", "kept as objects of their own")
    assert found.where.endswith("a.json#shapes[0]")


def test_image_by_path_by_name_and_embedded(scene, photo, only, monkeypatch, tmp_path_factory):
    cache = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("CLEARSIGHT_CACHE", str(cache))
    folder = scene("json/a", [rectangle("cat")], imagePath="..\\images\\A.jpg")
    photo(folder / "images" / "A.jpg", value=1)
    (folder / "json" / "a.jpg").unlink()
    scene("json/b", [rectangle("cat")], imagePath="C:\\old\\place.jpg")
    scene("json/c", [rectangle("cat")], imageData=base64.b64encode((folder / "images" / "A.jpg").read_bytes()).decode())
    (folder / "json" / "c.jpg").unlink()
    got = read(folder)
    a, b, c = (record.image for record in got.records)
    assert a.samefile(folder / "images" / "A.jpg")
    assert b == folder / "json" / "b.jpg"
    assert c.is_relative_to(cache)
    assert c.read_bytes() == a.read_bytes()
    taken = only(got.findings, "embedded-image")
    assert (taken.severity, taken.action) == ("info", "read from there")
    assert read(folder).records[2].image == c


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"imagePath": "gone.jpg"}, "imagePath says 'gone.jpg'"),
        ({"imagePath": None}, "imagePath says None"),
        ({"imagePath": "gone.jpg", "imageData": "%%%"}, "imageData is no base64"),
        ({"imagePath": "gone.jpg", "imageData": "AAAA"}, "embedded image cannot be used"),
    ],
)
def test_missing_images(scene, only, changes, text):
    scene("good", [rectangle("cat")])
    folder = scene("bad", [rectangle("cat")], **changes)
    (folder / "bad.jpg").unlink()
    got = read(folder)
    assert [record.image.name for record in got.records] == ["good.jpg"]
    found = only(got.findings, "missing-image")
    assert found.where.endswith("bad.json")
    assert (found.severity, found.action) == ("error", "image dropped")
    assert text in found.explanation


@pytest.mark.parametrize(
    ("content", "fault", "place"),
    [
        (b'{"shapes": [\n{"label": ]}', "unreadable-annotation", "bad.json:2"),
        (b"", "empty-file", "bad.json"),
        (b"[1, 2]", "json-type", "bad.json"),
        (b'{"shapes": {"label": "cat"}}', "json-type", "bad.json"),
        (b"[" * 100_000, "unreadable-annotation", "bad.json"),
        (b'{"shapes": [], "n": ' + b"9" * 5000 + b"}", "unreadable-annotation", "bad.json"),
    ],
)
def test_files_that_cannot_be_read(scene, only, content, fault, place):
    folder = scene("good", [rectangle("cat")])
    (folder / "bad.json").write_bytes(content)
    got = read(folder)
    assert len(got) == 1
    found = only(got.findings, fault)
    assert found.where.endswith(place)
    assert (found.severity, found.action) == ("error", "image dropped")


@pytest.mark.parametrize(
    ("shape", "fault"),
    [
        ("cat", "json-type"),
        ({"points": [[1, 2], [3, 4], [5, 9]]}, "json-type"),
        ({"label": 7, "points": [[1, 2], [3, 4], [5, 9]]}, "json-type"),
        ({"label": "cat", "points": [[1, 2], [3, "4"], [5, 9]]}, "json-type"),
        ({"label": "cat", "points": [[1, 2], [3, 4]], "shape_type": "line"}, "unsupported-shape"),
        ({"label": "cat", "points": [[1, 2]], "shape_type": "point"}, "unsupported-shape"),
    ],
)
def test_shapes_that_cannot_be_used(scene, only, shape, fault):
    got = read(scene("a", [rectangle("cat"), shape]))
    assert len(got.records[0].objects) == 1
    found = only(got.findings, fault)
    assert found.where.endswith("a.json#shapes[1]")
    assert (found.severity, found.action) == ("error", "object dropped")


def test_size_of_the_wrong_type(scene, only):
    got = read(scene("a", [rectangle("cat")], imageHeight="30"))
    assert got.records[0].size is None
    assert only(got.findings, "json-type").severity == "warning"


def test_image_without_json(scene, photo, only):
    folder = scene("a", [rectangle("cat")])
    photo(folder / "alone.jpg")
    found = only(read(folder).findings, "image-without-label")
    assert found.where.endswith("alone.jpg")
    assert (found.severity, found.action) == ("warning", "not used")


def test_given_and_listed_classes(scene, only):
    folder = scene("a", [rectangle("cat"), rectangle("DOG"), rectangle("cow")])
    got = read(folder, classes=("dog", "cat"))
    assert [item.label for item in got.records[0].objects] == [1, 0]
    assert only(got.findings, "unknown-class").where.endswith("#shapes[2]")
    assert only(got.findings, "class-case-mismatch").where.endswith("#shapes[1]")
    (folder / "classes.txt").write_text("cow\ncat\n")
    assert read(folder).classes == ("cow", "cat", "DOG")


def test_sniff_knows_other_json(tmp_path):
    (tmp_path / "coco.json").write_text('{"images": [], "annotations": [], "categories": []}')
    assert not sniff(tmp_path)
