"""Where images, labels, names and splits are found."""

from __future__ import annotations

from pathlib import Path

import pytest

from clearsight.data.formats import yolo
from clearsight.data.formats.yolo_layout import find_layout, label_path
from clearsight.types import Finding


def layout(path: Path):
    findings: list[Finding] = []
    return find_layout(path, findings), findings


def stems(path: Path) -> dict[str | None, list[str]]:
    return {split: [image.stem for image in images] for split, images in layout(path)[0].images.items()}


@pytest.fixture
def root(tmp_path: Path, photo) -> Path:
    for split, name in (("train", "a"), ("train", "b"), ("val", "c"), ("test", "d")):
        photo(tmp_path / f"images/{split}/{name}.png")
    return tmp_path


def write_yaml(root: Path, text: str) -> None:
    (root / "data.yaml").write_text(text + "\nnames: [cat]\n")


@pytest.mark.parametrize(
    "text",
    [
        "train: images/train\nval: images/val",
        "path: .\ntrain: ./images/train/\nvalid: images/val",
        "path: /not/on/this/machine\ntrain: images/train\nval: images/val",
        "train: ../images/train\nval: ../images/val",
        "train: [images/train]\nval:\n  - images/val\ntest:",
        "train: train.txt\nval: lists/val.txt",
    ],
)
def test_splits_of_data_yaml(root: Path, text: str):
    (root / "lists").mkdir()
    (root / "train.txt").write_text("./images/train/a.png\n\n/work/of/others/images/train/b.png\n")
    (root / "lists/val.txt").write_text("images\\val\\c.PNG\n")
    write_yaml(root, text)
    found, findings = layout(root)
    assert {split: [image.stem for image in images] for split, images in found.images.items()} == {
        "train": ["a", "b"],
        "val": ["c"],
    }
    assert {finding.id for finding in findings} <= {"missing-folder"}
    assert {finding.severity for finding in findings} <= {"info"}


def test_any_other_key_that_leads_to_images_is_a_split_too(root: Path):
    write_yaml(root, "train: images/train\nminival: images/val\nyear: 2024\nauthor: images/of/nobody")
    found, _ = layout(root)
    assert set(found.images) == {"train", "minival"}
    assert found.extra == {"year": 2024, "author": "images/of/nobody"}


def test_a_split_that_leads_nowhere(root: Path, only):
    write_yaml(root, "train: images/train\nval: images/valid")
    found, findings = layout(root)
    assert "'images/valid' is neither a folder nor a list file" in only(findings, "missing-folder").explanation
    assert only(findings, "missing-folder").where.endswith("data.yaml#val")
    assert only(findings, "empty-split").severity == "warning"
    assert found.images["val"] == []


def test_faulty_lines_of_a_list(root: Path, only):
    (root / "train.txt").write_text("images/train/a.png\nimages/train/gone.png\nimages/train/a.png\n")
    write_yaml(root, "train: train.txt")
    found, findings = layout(root)
    assert len(found.images["train"]) == 1
    assert only(findings, "missing-image").where.endswith("train.txt:2")
    assert only(findings, "duplicate-file-name").where.endswith("train.txt:3")


@pytest.mark.parametrize(
    ("text", "names", "ids"),
    [
        ("names: [a, b]", {0: "a", 1: "b"}, []),
        ("names: {0: a, 1: b}", {0: "a", 1: "b"}, []),
        ("names: {'1': b, '0': a}\nnc: 2", {0: "a", 1: "b"}, []),
        ("names: [1, yes]", {0: "1", 1: "True"}, []),
        ("names:\nnc: 2", {0: "class_0", 1: "class_1"}, []),
        ("names: [a]\nnc: 3", {0: "a"}, ["class-count"]),
        ("names: {0: a, 3: b}", {0: "a", 3: "b"}, ["id-gap"]),
        ("names: a", {}, ["json-type"]),
        ("names: {a: 0}", {}, ["json-type"]),
    ],
)
def test_names(tmp_path: Path, text: str, names: dict[int, str], ids: list[str]):
    (tmp_path / "data.yaml").write_text(text)
    found, findings = layout(tmp_path)
    assert found.names == names
    assert [finding.id for finding in findings] == ids


@pytest.mark.parametrize("name", ["classes.txt", "obj.names", "cells.names", "labels/classes.txt", "_darknet.labels"])
def test_names_without_data_yaml(root: Path, name: str):
    (root / "labels").mkdir()
    (root / name).write_text("cat\n\n dog \n")
    assert layout(root)[0].names == {0: "cat", 1: "dog"}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("names: [a\n", "no valid YAML"),
        ("[names]", "holds no keys"),
        ("", "holds no keys"),
        ("\x00names", "cannot be read"),
    ],
)
def test_yaml_that_cannot_be_used(root: Path, only, text: str, words: str):
    (root / "data.yaml").write_text(text)
    found, findings = layout(root / "data.yaml")
    assert words in only(findings, "unreadable-annotation").explanation
    assert set(found.images) == {"train", "val", "test"}


def test_code_in_yaml_is_not_run(root: Path, tmp_path: Path, only):
    (root / "data.yaml").write_text(f"names: !!python/object/apply:pathlib.Path.touch [{tmp_path / 'touched'}]")
    _, findings = layout(root)
    assert only(findings, "unreadable-annotation").where.endswith("data.yaml:1")
    assert not (tmp_path / "touched").exists()


def test_splits_of_folders_and_of_list_files(root: Path):
    assert stems(root) == {"test": ["d"], "train": ["a", "b"], "val": ["c"]}
    (root / "train.txt").write_text("images/train/b.png\n")
    assert stems(root) == {"train": ["b"]}


def test_images_without_splits(tmp_path: Path, photo):
    photo(tmp_path / "images/a.png")
    photo(tmp_path / "images/deep/b.png")
    assert stems(tmp_path) == {None: ["a", "b"]}


def test_labels_lie_in_the_parallel_tree_or_beside_the_images(tmp_path: Path, photo):
    assert label_path(Path("/x/images/y/images/z/a.jpg")) == Path("/x/images/y/labels/z/a.txt")
    assert label_path(Path("/x/images")) == Path("/x/images.txt")
    assert label_path(Path("/x/a.b.jpg")) == Path("/x/a.b.txt")
    image = photo(tmp_path / "images/a.png")
    assert label_path(image) == tmp_path / "labels/a.txt"
    beside = image.with_suffix(".txt")
    beside.write_text("0 0.5 0.5 0.5 0.5")
    assert label_path(image) == beside
    assert len(yolo.read(tmp_path).records[0].objects) == 1
