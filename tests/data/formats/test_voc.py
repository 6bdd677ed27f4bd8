"""Pascal VOC: real data there and back, layouts, and every fault by name."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from clearsight.data.formats import voc

OBJECT = """<object><name>{name}</name><pose>Left</pose><truncated>1</truncated><occluded>0</occluded>
<difficult>{difficult}</difficult>
<bndbox><xmin>{box[0]}</xmin><ymin>{box[1]}</ymin><xmax>{box[2]}</xmax><ymax>{box[3]}</ymax></bndbox></object>
"""


def xml(
    file: Path, *names: str, image: str | None = None, box: tuple[object, ...] = (1, 2, 30, 20), difficult: int = 0
):
    file.parent.mkdir(parents=True, exist_ok=True)
    objects = "".join(OBJECT.format(name=name, box=box, difficult=difficult) for name in names)
    size = "<size><width>40</width><height>30</height><depth>3</depth></size>"
    text = f"<annotation>\n<filename>{image or file.stem + '.jpg'}</filename>\n{size}\n{objects}</annotation>"
    file.write_text(text)
    return file


@pytest.fixture
def root(tmp_path: Path, photo) -> Path:
    for name in ("a", "b"):
        photo(tmp_path / f"JPEGImages/{name}.jpg")
        xml(tmp_path / f"Annotations/{name}.xml", "cat", "dog")
    return tmp_path


@pytest.mark.real
def test_real_data_are_read_as_their_files_say(shared_data: Path):
    data = voc.read(shared_data / "bccd")
    assert data.counts() == {"Platelets": 361, "RBC": 4155, "WBC": 372}
    assert data.splits == {"train": 205, "val": 87, "test": 72, "trainval": 292}
    assert len(data.split("trainval")) == 292
    assert data.findings == []
    record = next(record for record in data.records if record.image.stem == "BloodImage_00338")
    assert record.size == (480, 640)
    assert record.objects[12].box == (504.0, 337.0, 504.0, 337.0)  # of no area, and still as the file says
    assert record.objects[13].attributes == {"pose": "Unspecified", "truncated": 1}
    assert record.objects[0].where.endswith("BloodImage_00338.xml:14")


@pytest.mark.real
def test_real_data_come_back_bit_for_bit(shared_data: Path, tmp_path: Path, same):
    data = voc.read(shared_data / "bccd")
    assert voc.loses(data) == []
    assert voc.write(data, tmp_path) == []
    back = voc.read(tmp_path)
    same(data, back)
    assert back.splits == data.splits
    assert back.fingerprint() == data.fingerprint()
    lists = Path("ImageSets/Main/trainval.txt")
    theirs = (shared_data / "bccd" / lists).read_text().split()
    assert sorted((tmp_path / lists).read_text().split()) == sorted(theirs)


def test_flags_and_further_elements_are_kept(root: Path, same, tmp_path: Path):
    file = root / "Annotations/a.xml"
    xml(file, "cat", difficult=1, box=(1.25, 2, 30.000000000000004, 20))
    more = "<part><name>head</name></part><part><name>tail</name></part><score kind='x'>0.5</score><code>007</code>"
    file.write_text(file.read_text().replace("</object>", f"{more}</object>"))
    data = voc.read(root)
    item = data.records[0].objects[0]
    assert item.difficult
    assert item.box == (1.25, 2.0, 30.000000000000004, 20.0)
    parts = [{"name": "head"}, {"name": "tail"}]
    expected = {"pose": "Left", "truncated": 1, "occluded": 0, "part": parts, "code": "007"}
    assert item.attributes == {**expected, "score": {"@kind": "x", "#text": 0.5}}
    voc.write(data, tmp_path / "out")
    same(data, voc.read(tmp_path / "out"))


@pytest.mark.parametrize("path", [".", "Annotations", "Annotations/a.xml"])
def test_any_way_in_leads_to_the_same(root: Path, path: str):
    assert len(voc.read(root / path)) == 2
    assert voc.sniff(root / path)


def test_the_kit_may_lie_a_folder_deeper(root: Path, tmp_path: Path):
    (root / "VOC2007").mkdir()
    for name in ("JPEGImages", "Annotations"):
        (root / name).rename(root / "VOC2007" / name)
    assert len(voc.read(root)) == 2


def test_a_folder_a_split_with_files_beside_images(tmp_path: Path, photo):
    for split in ("train", "valid", "test"):
        photo(tmp_path / split / f"{split}.png")
        xml(tmp_path / split / f"{split}.xml", "cat", image=f"{split}.png")
    assert voc.read(tmp_path).splits == {"test": 1, "train": 1, "val": 1}


def test_an_empty_folder_is_not_voc(tmp_path: Path):
    assert not voc.sniff(tmp_path)
    (tmp_path / "a.xml").write_text("<svg/>")
    assert not voc.sniff(tmp_path)


def test_classes_in_another_case_are_one(root: Path, only):
    xml(root / "Annotations/b.xml", "Cat ", "cat")
    data = voc.read(root)
    assert data.classes == ("cat", "dog")
    finding = only(data.findings, "class-case-mismatch")
    assert finding.where.endswith("b.xml:4")
    assert "'Cat' differs from 'cat'" in finding.explanation


def test_an_unknown_class_costs_its_objects_only(root: Path):
    data = voc.read(root, classes=("dog",))
    assert [[item.label for item in record.objects] for record in data.records] == [[0], [0]]
    unknown = [finding for finding in data.findings if finding.id == "unknown-class"]
    assert len(unknown) == 2
    assert unknown[0].severity == "error"
    assert "'cat' is not one of 'dog'" in unknown[0].explanation


def test_classes_of_the_file_keep_order_and_empty_ones(root: Path):
    (root / "classes.txt").write_text("wolf\ndog\n")
    assert voc.read(root).classes == ("wolf", "dog", "cat")


def test_an_annotation_without_image(root: Path, only):
    (root / "JPEGImages/a.jpg").unlink()
    data = voc.read(root)
    assert len(data) == 1
    finding = only(data.findings, "missing-image")
    assert finding.where == str(root / "Annotations/a.xml")
    assert "no image a.* and no 'a.jpg'" in finding.explanation


def test_an_image_without_annotation(root: Path, photo, only):
    extra = photo(root / "JPEGImages/c.jpg")
    data = voc.read(root)
    assert len(data) == 2
    finding = only(data.findings, "image-without-label")
    assert (finding.where, finding.severity, finding.action) == (str(extra), "warning", "not used")


@pytest.mark.parametrize("suffix", [".JPG", ".jpeg", ".PNG"])
def test_suffixes_in_any_case_are_found(root: Path, photo, suffix: str):
    (root / "JPEGImages/a.jpg").unlink()
    image = photo(root / f"JPEGImages/a{suffix}")
    data = voc.read(root)
    assert data.records[0].image == image
    assert [finding.id for finding in data.findings] == (["file-name-case"] if suffix == ".JPG" else [])


def test_two_images_of_one_name(root: Path, photo, only):
    photo(root / "JPEGImages/more/a.png")
    (root / "JPEGImages/a.jpg").rename(root / "JPEGImages/a.bmp")
    data = voc.read(root)
    assert [record.image.stem for record in data.records] == ["b"]
    assert "2 images could be meant" in only(data.findings, "duplicate-file-name").explanation


def test_a_file_that_names_another_image(root: Path, only):
    xml(root / "Annotations/a.xml", "cat", image="b.jpg")
    data = voc.read(root)
    assert data.records[0].image.name == "a.jpg"
    assert "says it describes 'b.jpg'" in only(data.findings, "name-mismatch").explanation


def test_a_file_whose_own_name_has_no_image_uses_the_one_it_names(root: Path):
    (root / "Annotations/a.xml").rename(root / "Annotations/z.xml")
    assert [record.image.name for record in voc.read(root).records] == ["b.jpg", "a.jpg"]


def test_a_name_that_is_not_utf8(root: Path, photo, only):
    bad = os.fsencode(root / "JPEGImages") + b"/caf\xe9.jpg"
    os.rename(root / "JPEGImages/a.jpg", bad)  # noqa: PTH104 - bytes, as a path cannot hold them
    data = voc.read(root)
    finding = only(data.findings, "encoding-name")
    assert finding.severity == "error"
    assert finding.where.endswith(r"caf\xe9.jpg")
    finding.where.encode()
