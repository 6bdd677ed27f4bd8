"""One door to every format: what is found, what is refused, and with which words."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from clearsight.data.formats import FORMATS
from clearsight.data.read import detect_format, read_annotations, read_dataset, require_path
from clearsight.errors import ConfigError, DataError, NotFound

XML = """<annotation><size><width>40</width><height>30</height></size>
<object><name>cat</name><bndbox><xmin>{}</xmin><ymin>2</ymin><xmax>{}</xmax><ymax>20</ymax></bndbox></object>
</annotation>"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "cells"
    for name, left, right in (("good", 1, 9), ("inverted", 9, 1), ("outside", 30, 50), ("ghost", 1, 9)):
        (folder / "Annotations").mkdir(parents=True, exist_ok=True)
        (folder / "JPEGImages").mkdir(exist_ok=True)
        (folder / f"Annotations/{name}.xml").write_text(XML.format(left, right))
        if name != "ghost":
            Image.fromarray(np.zeros((30, 40, 3), np.uint8)).save(folder / f"JPEGImages/{name}.jpg")
    return folder


@pytest.mark.real
@pytest.mark.parametrize(
    ("folder", "format_", "images", "classes"),
    [("bccd", "voc", 364, 3), ("fruits", "coco", 18, 3), ("sign_digits", "image_folder", 600, 10)],
)
def test_real_data_are_recognised(shared_data: Path, folder: str, format_: str, images: int, classes: int):
    data = read_dataset(shared_data / folder)
    assert (data.format, len(data), len(data.classes)) == (format_, images, classes)
    assert data.fingerprint() == read_dataset(shared_data / folder, format=format_).fingerprint()


@pytest.mark.real
def test_the_two_boxes_without_area_are_told_and_dropped(shared_data: Path):
    data = read_dataset(shared_data / "bccd", images="skip")
    empty = [finding for finding in data.findings if finding.id == "box-empty"]
    assert sorted(finding.where.split("BloodImage_")[1][:5] for finding in empty) == ["00338", "00343"]
    assert sum(data.counts().values()) == 4888 - 2
    with pytest.raises(DataError, match=r"2 errors in the data, and strict is on(.|\n)*box-empty"):
        read_dataset(shared_data / "bccd", images="skip", strict=True)


def test_everything_is_found_in_one_pass_and_costs_only_itself(root: Path):
    data = read_dataset(root)
    assert {record.image.stem: len(record.objects) for record in data.records} == {
        "good": 1,
        "inverted": 0,
        "outside": 1,
    }
    found = {finding.id: finding.severity for finding in data.findings}
    assert found["missing-image"] == "error"
    assert found["box-inverted"] == "error"
    assert found["box-outside"] == "warning"


def test_strict_refuses_and_lists_all_errors_together(root: Path):
    with pytest.raises(DataError, match="strict is on") as caught:
        read_dataset(root, strict=True)
    text = str(caught.value)
    assert "missing-image" in text
    assert "box-inverted" in text
    assert "inverted.xml:2" in text
    assert {finding.id for finding in caught.value.findings} >= {"missing-image", "box-inverted", "box-outside"}


def test_strict_accepts_what_only_warns(root: Path):
    for name in ("ghost", "inverted"):
        (root / f"Annotations/{name}.xml").unlink()
    (root / "JPEGImages/inverted.jpg").unlink()
    assert len(read_dataset(root, strict=True)) == 2


def test_annotations_alone_are_neither_checked_nor_clipped(root: Path):
    boxes = {record.image.stem: record.objects[0].box for record in read_annotations(root).records}
    assert boxes["inverted"] == (9, 2, 1, 20)
    assert boxes["outside"] == (30, 2, 50, 20)


def test_decoding_finds_what_headers_do_not_show(root: Path):
    image = root / "JPEGImages/good.jpg"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (30, 40, 3), np.uint8)).save(image)
    content = bytearray(image.read_bytes())
    middle = slice(len(content) // 2, len(content) // 2 + 200)
    content[middle] = bytes(byte ^ 0xFF for byte in content[middle])
    image.write_bytes(content)
    assert "good" in [record.image.stem for record in read_dataset(root).records]
    data = read_dataset(root, images="decode")
    assert "good" not in [record.image.stem for record in data.records]
    assert "good.jpg" in next(finding.where for finding in data.findings if finding.id == "truncated-image")


def test_a_path_that_does_not_exist_names_the_nearest(root: Path):
    with pytest.raises(NotFound, match=r"cels does not exist \(did you mean 'cells'\?\); give a folder"):
        read_dataset(root.parent / "cels")
    with pytest.raises(NotFound, match=r"since there is no .*cels \(did you mean 'cells'\?\)"):
        require_path(root.parent / "cels/train/images")
    with pytest.raises(NotFound, match=r"nothing-like-it does not exist; give a folder"):
        require_path(root.parent / "nothing-like-it")


def test_an_unknown_format_names_the_nearest(root: Path):
    with pytest.raises(ConfigError, match=r"format: 'VOCC' is unknown \(did you mean 'voc'\?\); there are auto, voc"):
        read_dataset(root, format="VOCC")


def test_an_empty_folder(tmp_path: Path):
    with pytest.raises(DataError, match="the folder is empty; expected images"):
        read_dataset(tmp_path)


def test_files_that_no_format_fits(tmp_path: Path):
    (tmp_path / "notes.md").write_text("hello")
    with pytest.raises(DataError, match=r"no known format fits; expected one of voc, coco.*docs/formats\.md"):
        read_dataset(tmp_path)


def test_nothing_usable_is_an_error_that_says_why(root: Path):
    for image in (root / "JPEGImages").iterdir():
        image.unlink()
    with pytest.raises(DataError, match=r"no usable image was found, read as voc(.|\n)*missing-image"):
        read_dataset(root)


def test_a_file_that_may_not_be_read(root: Path, monkeypatch: pytest.MonkeyPatch):
    def refuse(path: Path, *, classes: tuple[str, ...] | None = None):
        raise PermissionError("may not be read")

    monkeypatch.setitem(FORMATS, "voc", FORMATS["voc"]._replace(read=refuse))
    with pytest.raises(DataError, match="cannot be read: may not be read"):
        read_dataset(root)


def test_the_particular_formats_are_asked_before_the_general_ones():
    assert list(FORMATS)[:3] == ["voc", "coco", "yolo"]
    assert list(FORMATS)[-1] == "image_folder"


def test_a_written_set_is_recognised_as_what_it_was_written_as(root: Path, tmp_path: Path):
    (root / "Annotations/ghost.xml").unlink()
    data = read_annotations(root)
    for name in ("voc", "coco", "yolo"):
        FORMATS[name].write(data, tmp_path / name)
        assert detect_format(tmp_path / name) == name
