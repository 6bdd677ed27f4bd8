"""Conversion: complete, or refused with what would be lost."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from clearsight.data.convert import convert
from clearsight.data.read import read_annotations
from clearsight.errors import ConfigError, DataError, NotFound


@pytest.mark.real
def test_voc_to_coco_and_back_loses_nothing(shared_data: Path, tmp_path: Path):
    assert convert(shared_data / "bccd", to="coco", out=tmp_path / "coco") == []
    assert {finding.severity for finding in convert(tmp_path / "coco", to="voc", out=tmp_path / "voc")} == {"info"}
    before, after = read_annotations(shared_data / "bccd"), read_annotations(tmp_path / "voc")
    theirs = {record.image.name: record for record in after.records}
    for record in before.records:
        mine = [(item.label, item.box, item.difficult) for item in record.objects]
        assert mine == [(item.label, item.box, item.difficult) for item in theirs[record.image.name].objects]
    assert before.splits == after.splits


@pytest.mark.real
def test_coco_to_yolo_and_back(shared_data: Path, tmp_path: Path):
    source = shared_data / "fruits/data/trainval.json"
    told = convert(source, source="coco", to="yolo", out=tmp_path / "yolo")
    assert {(finding.id, finding.severity) for finding in told} == {("lost-on-write", "info")}
    convert(tmp_path / "yolo", to="coco", out=tmp_path / "coco")
    before, after = read_annotations(source), read_annotations(tmp_path / "coco")
    theirs = {record.image.name: record for record in after.records}
    for record in before.records:
        for mine, its in zip(record.objects, theirs[record.image.name].objects, strict=True):
            assert mine.label == its.label
            np.testing.assert_allclose(mine.polygons[0], its.polygons[0], rtol=0, atol=1e-9)
            assert mine.attributes["area"] == pytest.approx(its.attributes["area"], rel=1e-9)


@pytest.mark.real
@pytest.mark.parametrize("through", ["coco", "yolo"])
def test_masks_of_nuclei_come_back_to_the_pixel(shared_data: Path, tmp_path: Path, through: str):
    convert(shared_data / "nuclei", to=through, out=tmp_path / through, allow_loss=through == "yolo")
    convert(tmp_path / through, to="instance_png", out=tmp_path / "back", allow_loss=True)
    before, after = read_annotations(shared_data / "nuclei"), read_annotations(tmp_path / "back")
    theirs = {record.image.stem: record for record in after.records}
    assert sum(len(record.objects) for record in before.records) == 2042
    for record in before.records:
        masks = {item.rle for item in theirs[record.image.stem].objects}
        assert masks == {item.rle for item in record.objects}


@pytest.mark.real
def test_a_loss_is_refused_before_anything_is_written(shared_data: Path, tmp_path: Path):
    out = tmp_path / "voc"
    with pytest.raises(DataError, match=r"voc would lose:\n.*cannot carry polygons \(165 objects\)") as caught:
        convert(shared_data / "fruits", to="voc", out=out)
    assert "--allow-loss" in str(caught.value)
    assert [finding.id for finding in caught.value.findings] == ["lost-on-write"]
    assert not out.exists()
    told = convert(shared_data / "fruits", to="voc", out=out, allow_loss=True)
    assert "Pascal VOC cannot carry polygons (165 objects)" in [finding.explanation for finding in told]
    assert len(list((out / "Annotations").iterdir())) == 18


def test_mistakes_are_refused(tmp_path: Path):
    source = tmp_path / "source"
    source.mkdir()
    (source / "a.xml").write_text("<annotation></annotation>")
    with pytest.raises(ConfigError, match=r"to: there is no format 'cocoa'; there are voc, coco"):
        convert(source, to="cocoa", out=tmp_path / "out")
    with pytest.raises(NotFound, match="does not exist"):
        convert(tmp_path / "none", to="coco", out=tmp_path / "out")
    with pytest.raises(DataError, match=r"nothing to convert, read as voc\n  - .*a\.xml: no image a\.\*"):
        convert(source, to="coco", out=tmp_path / "out")
    with pytest.raises(DataError, match="files are there already; choose a folder"):
        convert(source, to="coco", out=source)
    with pytest.raises(DataError, match="files are there already"):
        convert(source, to="coco", out=source / "a.xml")


@pytest.mark.real
def test_a_place_that_cannot_be_written(shared_data: Path, tmp_path: Path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(DataError, match="cannot be written"):
        convert(shared_data / "fruits", to="coco", out=tmp_path / "file/out")
