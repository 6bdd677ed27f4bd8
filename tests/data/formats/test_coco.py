"""COCO JSON: real data there and back, several files as splits, how images are found."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from clearsight.data.formats import coco, voc
from clearsight.types import Rle

TRIANGLE = [1.5, 2.0, 20.0, 3.25, 10.0, 25.0]


def content(*names: str, **keys) -> dict:
    """One triangle a image; categories cat (3) and dog (7)."""
    images = [{"id": 10 + i, "file_name": name, "height": 30, "width": 40} for i, name in enumerate(names)]
    annotations = [
        {"id": 100 + i, "image_id": 10 + i, "category_id": 7, "bbox": [1.5, 2, 18.5, 23], "segmentation": [TRIANGLE]}
        for i in range(len(names))
    ]
    categories = [{"id": 3, "name": "cat", "supercategory": "animal"}, {"id": 7, "name": "dog"}]
    return {"images": images, "annotations": annotations, "categories": categories, **keys}


def put(path: Path, value: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))
    return path


@pytest.mark.real
def test_real_data_come_back_bit_for_bit(shared_data: Path, tmp_path: Path, same):
    source = shared_data / "fruits/data/trainval.json"
    data = coco.read(source)
    assert data.counts() == {"date": 71, "fig": 41, "hazelnut": 53}
    assert (data.task, data.splits, data.findings) == ("instance", {None: 18}, [])
    assert coco.write(data, tmp_path) == []
    back = coco.read(tmp_path)
    same(data, back)
    assert back.attributes == data.attributes
    theirs, ours = (json.loads(p.read_text()) for p in (source, tmp_path / "annotations/instances.json"))
    assert theirs["categories"] == ours["categories"]
    key = lambda entry: entry["id"]  # noqa: E731
    for table in ("images", "annotations"):
        assert sorted(theirs[table], key=key) == sorted(ours[table], key=key)


@pytest.mark.real
def test_voc_through_coco_comes_back_bit_for_bit(shared_data: Path, tmp_path: Path, same):
    data = voc.read(shared_data / "bccd")
    assert coco.loses(data) == []
    assert coco.write(data, tmp_path / "coco") == []
    through = coco.read(tmp_path / "coco")
    assert through.splits == data.splits
    assert sorted(p.name for p in (tmp_path / "coco/annotations").iterdir()) == [
        "instances_test.json",
        "instances_train.json",
        "instances_val.json",
    ]
    voc.write(through, tmp_path / "voc")
    back = voc.read(tmp_path / "voc")
    same(data, back, attributes=False)
    theirs = {record.image.name: record for record in back.records}
    for record in data.records:
        for mine, its in zip(record.objects, theirs[record.image.name].objects, strict=True):
            assert mine.attributes.items() <= its.attributes.items()


def test_everything_an_annotation_can_say_comes_back(tmp_path: Path, photo, same):
    photo(tmp_path / "a.png")
    value = content("a.png", info={"year": 2024}, licenses=[{"id": 1, "name": "é"}])
    value["images"][0] |= {"license": 1, "group": "patient 3"}
    mask = {"size": [2, 3], "counts": [1, 2, 3]}
    value["annotations"] += [
        {"id": 5, "image_id": 10, "category_id": 3, "bbox": [0.1, 0.2, 0.7, 0.1], "iscrowd": 1, "segmentation": mask},
        {"id": "x", "image_id": 10, "category_id": 3, "bbox": [0, 0, 3, 2], "area": 7, "keypoints": [1, 2, 2]},
        {"image_id": 10, "category_id": 3, "segmentation": {"size": [2, 3], "counts": "123"}, "difficult": 1},
    ]
    data = coco.read(put(tmp_path / "labels.json", value))
    first, second, third, fourth = data.records[0].objects
    assert first.polygons[0].tolist() == [[1.5, 2.0], [20.0, 3.25], [10.0, 25.0]]
    assert second.crowd
    assert second.rle == Rle(size=(2, 3), counts=(1, 2, 3))
    assert third.attributes == {"id": "x", "area": 7, "keypoints": [1, 2, 2]}
    assert (fourth.difficult, fourth.box) == (True, (0.0, 0.0, 2.0, 2.0))
    assert data.records[0].group == "patient 3"
    assert data.attributes["info"] == {"year": 2024}
    coco.write(data, tmp_path / "out")
    back = coco.read(tmp_path / "out")
    assert back.attributes == data.attributes
    # What the file does not say is counted when it is written.
    first.attributes["area"] = back.records[0].objects[0].attributes["area"]
    second.attributes["area"] = fourth.attributes["area"] = 2
    fourth.attributes["id"] = 101
    same(data, back)
    assert json.loads((tmp_path / "out/annotations/instances.json").read_text())["annotations"][1]["bbox"][2] == 0.7


def test_ids_that_skip_are_told_and_come_back(tmp_path: Path, photo, only):
    photo(tmp_path / "a.png")
    data = coco.read(put(tmp_path / "labels.json", content("a.png")))
    assert data.classes == ("cat", "dog")
    assert data.records[0].objects[0].label == 1
    finding = only(data.findings, "id-gap")
    assert finding.severity == "info"
    assert "3 to 7 skip 4, 5, 6" in finding.explanation
    coco.write(data, tmp_path / "out")
    back = json.loads((tmp_path / "out/annotations/instances.json").read_text())
    assert [category["id"] for category in back["categories"]] == [3, 7]
    assert back["annotations"][0]["category_id"] == 7


@pytest.mark.parametrize(
    ("files", "splits"),
    [
        (["annotations/instances_train2017.json", "annotations/instances_val2017.json"], ["train", "val"]),
        (["train/_annotations.coco.json", "valid/_annotations.coco.json"], ["train", "val"]),
        (["test.json"], ["test"]),
        (["labels.json"], [None]),
        (["trainval.json"], [None]),
        (["trainval.json", "test.json"], ["test", "trainval"]),
        (["instances.json", "instances_extra.json"], [None, "extra"]),
    ],
)
def test_files_are_splits(tmp_path: Path, photo, files: list[str], splits: list[str | None]):
    for number, file in enumerate(files):
        photo(tmp_path / f"pictures/{number}.png")
        put(tmp_path / file, content(f"{number}.png"))
    data = coco.read(tmp_path)
    assert sorted((record.split for record in data.records), key=str) == sorted(splits, key=str)
    assert data.classes == ("cat", "dog")
    assert {finding.id for finding in data.findings} == {"id-gap"}


def test_one_file_of_a_folder_of_annotations(tmp_path: Path, photo):
    photo(tmp_path / "train2017/a.png")
    data = coco.read(put(tmp_path / "annotations/instances_train2017.json", content("a.png")))
    assert (data.root, data.splits) == (tmp_path, {"train": 1})


def test_files_of_other_tasks_are_passed_over(tmp_path: Path, photo, only):
    photo(tmp_path / "a.png")
    for name in ("instances_val2017", "person_keypoints_val2017"):
        put(tmp_path / f"annotations/{name}.json", content("a.png"))
    data = coco.read(tmp_path)
    assert len(data) == 1
    assert "person_keypoints_val2017.json" in only(data.findings, "unsupported-file").where
    assert len(coco.read(tmp_path / "annotations/person_keypoints_val2017.json")) == 1


def test_other_json_is_not_coco(tmp_path: Path):
    put(tmp_path / "a.json", {"shapes": [], "imagePath": "a.png", "imageData": None})
    assert not coco.sniff(tmp_path)
    assert not coco.sniff(tmp_path / "a.json")
    assert coco.sniff(put(tmp_path / "b.json", content("a.png")))
    assert coco.sniff(tmp_path)


@pytest.mark.parametrize("said", ["a.JPG", "images/a.jpg", "C:\\work\\a.jpg", "/elsewhere/a.jpg", " a.jpg "])
def test_images_are_found_by_name_in_any_case(tmp_path: Path, photo, said: str):
    image = photo(tmp_path / "images/deep/a.jpg")
    data = coco.read(put(tmp_path / "labels.json", content(said)))
    assert [record.image for record in data.records] == [image]


def test_of_two_images_of_one_name_the_split_decides(tmp_path: Path, photo, only):
    for split in ("train", "val"):
        photo(tmp_path / f"{split}2017/a.png")
        put(tmp_path / f"annotations/instances_{split}.json", content("a.png"))
    assert {record.split: record.image.parent.name for record in coco.read(tmp_path).records} == {
        "train": "train2017",
        "val": "val2017",
    }
    put(tmp_path / "annotations/other.json", content("a.png"))
    finding = only(coco.read(tmp_path).findings, "duplicate-file-name")
    assert "2 images are named 'a.png'" in finding.explanation


def test_a_missing_image_costs_itself_only(tmp_path: Path, photo, only):
    photo(tmp_path / "a.png")
    data = coco.read(put(tmp_path / "labels.json", content("a.png", "gone.png")))
    assert len(data) == 1
    finding = only(data.findings, "missing-image")
    assert finding.where.endswith("labels.json#image 11")
    assert "'gone.png'" in finding.explanation


@pytest.mark.parametrize("name", ["caf\udce9.png", "a\0b.png"])
def test_a_name_that_no_file_can_have(tmp_path: Path, photo, only, name: str):
    photo(tmp_path / "a.png")
    data = coco.read(put(tmp_path / "labels.json", content("a.png", name)))
    assert len(data) == 1
    finding = only(data.findings, "encoding-name")
    assert "cannot be the name of a file" in finding.explanation
    finding.explanation.encode()


def test_an_unknown_category_id(tmp_path: Path, photo, only):
    photo(tmp_path / "a.png")
    value = content("a.png")
    value["annotations"].append({"id": 9, "image_id": 10, "category_id": 4, "bbox": [0, 0, 1, 1]})
    data = coco.read(put(tmp_path / "labels.json", value))
    finding = only(data.findings, "unknown-class")
    assert finding.where.endswith("labels.json#9")
    assert "category_id 4 is the id of no category" in finding.explanation
    assert len(data.records[0].objects) == 1


def test_classes_that_are_asked_for(tmp_path: Path, photo, only):
    photo(tmp_path / "a.png")
    file = put(tmp_path / "labels.json", content("a.png"))
    data = coco.read(file, classes=("Dog",))
    assert data.counts() == {"Dog": 1}
    assert "'dog' differs from 'Dog'" in only(data.findings, "class-case-mismatch").explanation
    data = coco.read(file, classes=("cat",))
    assert data.counts() == {"cat": 0}
    assert "'dog' is not one of 'cat'" in only(data.findings, "unknown-class").explanation


def test_one_class_with_two_ids_in_two_files(tmp_path: Path, photo, only):
    for number, name in enumerate(("train", "val")):
        photo(tmp_path / f"{name}.png")
        value = content(f"{name}.png")
        value["categories"][1]["id"] += number
        value["annotations"][0]["category_id"] += number
        put(tmp_path / f"{name}.json", value)
    data = coco.read(tmp_path)
    assert data.counts() == {"cat": 0, "dog": 2}
    assert "'dog' has the ids 7 and 8" in only(data.findings, "duplicate-class").explanation


@pytest.mark.parametrize(
    ("change", "severity", "words"),
    [
        ({"bbox": [1, 2, 3]}, "error", "bbox is [1, 2, 3], expected four numbers"),
        ({"bbox": "1 2 3 4"}, "error", "expected four numbers"),
        ({"bbox": [1, 2, True, 4]}, "error", "expected four numbers"),
        ({"bbox": None, "segmentation": []}, "error", "neither a bbox nor a segmentation"),
        ({"segmentation": "x"}, "warning", "expected a list of rings"),
        ({"segmentation": [[1, 2, 3, 4, 5]]}, "warning", "a ring of 5 numbers"),
        ({"segmentation": [[1, 2, 3, 4]]}, "warning", "a ring of 4 numbers"),
        ({"segmentation": {"size": [2, 2], "counts": [1]}}, "warning", "add up to 1, expected 2 × 2"),
        ({"segmentation": {"size": [2], "counts": [4]}}, "warning", "expected [height, width]"),
        ({"segmentation": {"size": [2, 2], "counts": 4}}, "warning", "expected a string or a list"),
        ({"segmentation": {"size": [2, 2], "counts": "~~"}}, "warning", "foreign characters"),
    ],
)
def test_values_of_a_wrong_type(tmp_path: Path, photo, only, change: dict, severity: str, words: str):
    photo(tmp_path / "a.png")
    photo(tmp_path / "b.png")
    value = content("a.png", "b.png")
    value["annotations"][0] |= change
    data = coco.read(put(tmp_path / "labels.json", value))
    finding = only(data.findings, "json-type")
    assert (finding.severity, finding.where.rpartition("#")[2]) == (severity, "100")
    assert words in finding.explanation
    assert [len(record.objects) for record in data.records] == [0 if severity == "error" else 1, 1]


def test_numbers_that_are_not_finite_are_carried_to_the_checks(tmp_path: Path, photo):
    photo(tmp_path / "a.png")
    value = content("a.png")
    value["annotations"][0]["bbox"] = [float("nan"), 0, float("inf"), 1]
    data = coco.read(put(tmp_path / "labels.json", value))
    assert str(data.records[0].objects[0].box) == "(nan, 0.0, nan, 1.0)"
