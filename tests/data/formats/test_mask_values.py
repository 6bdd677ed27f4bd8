"""Class numbers or black and white, sharp or soft: in files, real masks among them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from clearsight.data.class_map import read_class_map
from clearsight.data.formats import mask_png
from clearsight.data.formats.mask_values import MaskLook, are_binary, class_pixels
from clearsight.data.read import read_dataset

Write = Callable[..., Path]
BINARY = ("background", "foreground")


@pytest.fixture
def masks(tmp_path: Path) -> Write:
    """Writes masks 20 × 10 that are 0 but for these values, each given how often, and an image for each."""

    def write(*contents: dict[int, int], folder: str = "", classes: str = "") -> Path:
        for name in ("images", "masks"):
            (tmp_path / folder / name).mkdir(parents=True, exist_ok=True)
        for number, content in enumerate(contents):
            flat = np.repeat(list(content), list(content.values()))
            values = np.pad(flat, (0, 200 - len(flat))).reshape(10, 20)
            Image.fromarray(values.astype(np.uint8)).save(tmp_path / folder / f"masks/{number}.png")
            Image.fromarray(np.zeros((10, 20, 3), np.uint8)).save(tmp_path / folder / f"images/{number}.png")
        if classes:
            (tmp_path / "classes.txt").write_text(classes)
        return tmp_path

    return write


def seen(path: Path) -> tuple[int, list[tuple[str, str]], tuple[str, ...]]:
    got = mask_png.read(path)
    return len(got), [(finding.id, finding.severity) for finding in got.findings], got.classes


# ------------------------------------------------------------------------------------------------ soft edges
def test_a_few_grey_pixels_are_cut_with_a_warning(masks: Write) -> None:
    path = masks({255: 60, 3: 1, 200: 1}, {255: 30})
    assert seen(path) == (2, [("soft-mask", "warning")], BINARY)
    got = read_dataset(path)
    (found,) = (finding for finding in got.findings if finding.severity != "info")
    assert found.where.endswith("0.png")
    assert found.action == "128 and more read as 255, the rest as 0"
    assert "2 pixels (1.00%) of a black and white mask have grey values, 3 to 200" in found.explanation
    assert found.evidence == {"pixels": 2, "share": 0.01, "lowest": 3, "highest": 200}
    assert [int(read_class_map(record).sum()) for record in got.records] == [61, 30]


def test_many_grey_pixels_need_two_names(masks: Write) -> None:
    path = masks({255: 60, 3: 1, 200: 2}, {255: 30})
    assert seen(path) == (1, [("soft-mask", "error")], BINARY)
    (found,) = mask_png.read(path).findings
    assert found.remedy == {"data.classes": list(BINARY)}
    named = mask_png.read(path, classes=("cell", "wall"))
    assert [(one.id, one.severity) for one in named.findings] == [("soft-mask", "warning")]
    assert [int(read_class_map(record).sum()) for record in named.records] == [62, 30]


@pytest.mark.parametrize(
    ("contents", "classes", "binary"),
    [
        ([{255: 60}], "", True),
        ([{0: 200}], "", False),
        ([{255: 60, 1: 90}], "", False),
        ([{255: 60, 1: 1}], "", False),  # one class that is rare, and ignored pixels
        ([{255: 60, 1: 1}], "a\nb\n", False),
        ([{255: 60, 37: 1}], "a\nb\n", True),  # one stray value cannot be a third class
        ([{255: 60, 37: 1}], "", False),
        ([{255: 60, 37: 1, 1: 1}], "a\nb\n", False),
        ([{255: 60, 15: 20, 7: 3, 200: 1}], "", False),  # classes, a stray value, and ignored pixels
        ([{255: 60, 90: 1, 200: 1}], "a\nb\nc\n", False),
        ([{255: 60, 90: 1, 200: 1}, {255: 60}], "", True),
        ([{255: 20, **dict.fromkeys(range(1, 150), 1)}], "", False),
        ([{254: 60}], "", False),
    ],
)
def test_what_is_taken_for_black_and_white(masks: Write, contents: list[Any], classes: str, *, binary: bool) -> None:
    got = mask_png.read(masks(*contents, classes=classes))
    assert {record.attributes["mask"] for record in got.records} <= {"binary" if binary else "index"}
    looks = [
        MaskLook(np.array([0, *sorted(one)]), np.array([100, *(one[key] for key in sorted(one))]), palette=True)
        for one in contents
    ]
    assert not are_binary(looks, 2)  # of palette masks the values are indices


@pytest.mark.real
def test_real_masks_made_soft(shared_data: Path, tmp_path: Path) -> None:
    """Saved as JPEG and back, and scaled by a half and back: what is read is nearly what was sharp."""
    for name in ("images", "masks"):
        (tmp_path / name).mkdir()
    sources = sorted((shared_data / "membrane/label").iterdir())[:3]
    for number, source in enumerate(sources):
        image = Image.open(source)
        if number == 1:
            image.save(tmp_path / "x.jpg", quality=90)
            image = Image.open(tmp_path / "x.jpg")
        if number == 2:
            image = image.resize((256, 256), Image.Resampling.BILINEAR).resize((512, 512), Image.Resampling.BILINEAR)
        image.save(tmp_path / f"masks/{number}.png")
        Image.new("L", (512, 512)).save(tmp_path / f"images/{number}.png")
    assert seen(tmp_path) == (1, [("soft-mask", "error")] * 2, BINARY)
    named = mask_png.read(tmp_path, classes=BINARY)
    assert [(one.id, one.severity) for one in named.findings] == [("soft-mask", "warning")] * 2
    for record, source, wrong in zip(named.records, sources, (0, 0.001, 0.03), strict=True):
        sharp = np.asarray(Image.open(source)) == 255
        assert np.mean(read_class_map(record) != sharp) <= wrong


# ------------------------------------------------------------------------------------------------ classes
def test_masks_of_one_value(masks: Write) -> None:
    path = masks({1: 200}, {1: 100}, {255: 10}, {255: 200})
    got = mask_png.read(path)
    assert [(one.id, one.severity, Path(one.where).name) for one in got.findings] == [
        ("uniform-mask", "info", "0.png"),
        ("uniform-mask", "info", "2.png"),
        ("uniform-mask", "warning", "3.png"),
    ]
    assert "every counted pixel is 'class 1'; right if" in got.findings[0].explanation
    assert "every counted pixel is 'class 0', and 5.0% are ignored" in got.findings[1].explanation
    assert len(got) == 4


def test_classes_that_no_mask_has(masks: Write) -> None:
    found = mask_png.read(masks({1: 9, 3: 9}, classes="a\nb\nc\nd\ne\n")).findings
    assert [(one.id, one.severity, one.evidence["class"]) for one in found] == [
        ("empty-class", "warning", "c"),
        ("empty-class", "warning", "e"),
    ]


def test_numbers_that_skip_without_names_are_one_finding(masks: Write) -> None:
    (found,) = mask_png.read(masks({40: 9, 3: 9})).findings
    assert (found.id, found.severity, len(found.evidence["classes"])) == ("empty-class", "warning", 38)
    assert "no mask has the values 1, 2, 4, 5, 6, 7, 8, 9, …" in found.explanation


def test_classes_that_a_split_lacks(masks: Write) -> None:
    masks({1: 9, 2: 9}, folder="train")
    (found,) = mask_png.read(masks({1: 9}, folder="val")).findings
    assert (found.id, found.where.endswith("(split val)")) == ("empty-class", True)
    assert "class 'class 2' has no pixel in split 'val'" in found.explanation


def test_pixels_of_classes() -> None:
    look = MaskLook(np.array([0, 1, 3, 130, 255]), np.array([5, 4, 3, 2, 1]), palette=False)
    assert class_pixels(look, 3, binary=False).tolist() == [5, 4, 0]
    assert class_pixels(look, 2, binary=True).tolist() == [12, 3]
    assert class_pixels(look._replace(palette=True), 2, binary=True).tolist() == [5, 4]
