"""Every fault of an image file, built for real, found in one pass."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from clearsight.data.check import check_images, check_records
from clearsight.data.dataset import Dataset
from clearsight.data.formats import voc
from clearsight.data.read import read_dataset
from clearsight.types import Finding, Object, Record


def one(findings, fault, **wanted) -> Finding:
    found = [f for f in findings if f.id == fault and all(getattr(f, key) == value for key, value in wanted.items())]
    assert len(found) == 1, [(f.id, f.severity, f.where, f.explanation) for f in findings]
    return found[0]


@pytest.fixture
def jpeg() -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (30, 40, 3), dtype=np.uint8)).save(buffer, "JPEG")
    return buffer.getvalue()


def dataset(folder: Path, *records: Record, task="classification", classes=("a",)) -> Dataset:
    return Dataset(records=list(records), classes=classes, task=task, root=folder, format="csv")


def labelled(*paths: Path) -> list[Record]:
    return [Record(image=path, label=0, where="labels.csv:2") for path in paths]


@pytest.mark.parametrize("decode", [True, False])
def test_all_faults_in_one_pass(tmp_path, jpeg, decode):
    contents = {
        "good.jpg": jpeg,
        "empty.jpg": b"",
        "cut.jpg": jpeg[: len(jpeg) // 2],
        "header.jpg": jpeg[:20],
        "letter.jpg": b"Dear Sir or Madam",
        "bomb.png": bomb(),
    }
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    tifffile.imwrite(tmp_path / "float.tif", np.ones((5, 6), np.float32))
    names = [*contents, "float.tif", "gone.jpg"]
    got = check_images(dataset(tmp_path, *labelled(*(tmp_path / name for name in names))), decode=decode)
    assert [record.image.name for record in got.records] == ["good.jpg"]
    found = [(Path(finding.where).name, finding.id) for finding in got.findings]
    assert found == [
        ("empty.jpg", "empty-file"),
        ("cut.jpg", "truncated-image"),
        ("header.jpg", "truncated-image"),
        ("letter.jpg", "unsupported-file"),
        ("bomb.png", "decompression-bomb"),
        ("float.tif", "unsupported-file"),
        ("gone.jpg", "missing-image"),
    ]
    assert {(f.severity, f.action) for f in got.findings} == {("error", "image dropped")}
    assert {f.evidence["annotation"] for f in got.findings} == {"labels.csv:2"}


def bomb() -> bytes:
    """A PNG of 30,000 × 30,000 pixels: a header, and nothing behind it."""
    buffer = io.BytesIO()
    Image.new("1", (1, 1)).save(buffer, "PNG")
    data = bytearray(buffer.getvalue())
    data[16:24] = (30_000).to_bytes(4, "big") * 2
    import zlib

    data[29:33] = zlib.crc32(data[12:29]).to_bytes(4, "big")
    return bytes(data)


@pytest.mark.real
@pytest.mark.parametrize("share", [0.2, 0.6, 0.99])
def test_truncated_real_photos_are_found_from_headers(shared_data, tmp_path, share):
    paths = []
    for source in [
        *sorted((shared_data / "bccd/JPEGImages").iterdir())[:6],
        *sorted((shared_data / "exif").glob("*.jpg")),
    ]:
        data = source.read_bytes()
        paths.append(tmp_path / source.name)
        paths[-1].write_bytes(data[: int(len(data) * share)])
    got = check_images(dataset(tmp_path, *labelled(*paths)), decode=False)
    assert len(got) == 0
    assert [finding.id for finding in got.findings] == ["truncated-image"] * len(paths)


def test_damage_in_the_middle_needs_decoding(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    data = bytearray((tmp_path / "a.png").read_bytes())
    data[-16] ^= 0xFF  # the checksum of the pixels, just before the IEND chunk
    (tmp_path / "a.png").write_bytes(data)
    records = labelled(tmp_path / "a.png")
    assert len(check_images(dataset(tmp_path, *records), decode=False)) == 1
    got = check_images(dataset(tmp_path, *records), decode=True)
    found = one(got.findings, "damaged-image")
    assert (found.severity, found.action) == ("warning", "kept")
    assert "checksum" in found.explanation


def boxed(path: Path, size, box=(1, 1, 5, 5)) -> Record:
    return Record(image=path, size=size, objects=[Object(label=0, box=box)], where="a.xml")


def test_size_mismatch(tmp_path, jpeg):
    (tmp_path / "a.jpg").write_bytes(jpeg)
    got = check_images(dataset(tmp_path, boxed(tmp_path / "a.jpg", (60, 80)), task="detection"), decode=False)
    found = one(got.findings, "size-mismatch")
    assert (found.severity, found.action, found.where) == ("error", "image dropped", "a.xml")
    assert "says 80 × 60 pixels, the file has 40 × 30" in found.explanation
    assert len(got) == 0


def test_exchanged_width_and_height_are_corrected_if_the_objects_fit(tmp_path, jpeg):
    (tmp_path / "a.jpg").write_bytes(jpeg)
    fits, too_low = (
        boxed(tmp_path / "a.jpg", (40, 30), (1, 1, 39, 29)),
        boxed(tmp_path / "a.jpg", (40, 30), (1, 1, 9, 38)),
    )
    got = check_images(dataset(tmp_path, fits, task="detection"), decode=False)
    found = one(got.findings, "size-mismatch")
    assert (found.severity, found.action) == ("warning", "the file's size is used")
    assert "exchanged" in found.explanation
    assert got.records[0].size == (30, 40)
    assert len(check_images(dataset(tmp_path, too_low, task="detection"), decode=False)) == 0


@pytest.mark.real
def test_annotation_that_ignored_the_exif_turn(shared_data):
    path = shared_data / "exif" / "landscape_6.jpg"  # stored 300 wide, 450 high; to be turned
    as_seen, as_stored = boxed(path, (300, 450)), boxed(path, (450, 300))
    data = dataset(shared_data, as_seen, task="detection")
    assert check_images(data, decode=True).findings == []
    got = check_images(dataset(shared_data, as_stored, task="detection"), decode=False)
    found = one(got.findings, "size-mismatch")
    assert (found.severity, found.action) == ("error", "image dropped")
    assert "EXIF orientation 6" in found.explanation


def test_size_is_filled_in_and_objects_are_judged_by_it(tmp_path, jpeg):
    (tmp_path / "a.jpg").write_bytes(jpeg)
    before = dataset(tmp_path, boxed(tmp_path / "a.jpg", None, (30, 10, 99, 20)), task="detection")
    got = check_images(check_records(before), decode=False)
    assert got.records[0].size == (30, 40)
    assert got.records[0].objects[0].box == (30, 10, 40, 20)
    assert one(got.findings, "box-outside").severity == "warning"


@pytest.mark.parametrize("field", ["semantic", "instance_map"])
def test_maps(tmp_path, jpeg, field):
    (tmp_path / "a.jpg").write_bytes(jpeg)
    Image.new("L", (40, 30)).save(tmp_path / "good.png")
    Image.new("L", (20, 30)).save(tmp_path / "small.png")
    (tmp_path / "empty.png").touch()

    def seen(name):
        record = Record(image=tmp_path / "a.jpg", **{field: tmp_path / name})
        return check_images(dataset(tmp_path, record, task="semantic"), decode=True)

    assert seen("good.png").findings == []
    small = seen("small.png")
    assert len(small) == 0
    found = one(small.findings, "size-mismatch")
    assert found.where.endswith("small.png")
    assert "the map is 20 × 30 pixels, its image a.jpg 40 × 30" in found.explanation
    assert one(seen("empty.png").findings, "empty-file").severity == "error"
    assert one(seen("gone.png").findings, "missing-image").action == "image dropped"


def test_what_differs_within_a_data_set(tmp_path):
    Image.new("RGBA", (4, 4)).save(tmp_path / "alpha.png")
    Image.new("L", (4, 4)).save(tmp_path / "grey.png")
    Image.fromarray(np.zeros((4, 4), np.uint16)).save(tmp_path / "deep.png")
    tifffile.imwrite(
        tmp_path / "five.tif", np.zeros((4, 4, 5), np.uint8), photometric="minisblack", planarconfig="contig"
    )
    names = ("alpha.png", "grey.png", "deep.png", "five.tif")
    got = check_images(dataset(tmp_path, *labelled(*(tmp_path / name for name in names))), decode=False)
    assert len(got) == 4
    assert one(got.findings, "alpha-channel").severity == "info"
    assert one(got.findings, "mixed-channels").evidence == {"1": 2, "3": 1, "5": 1}
    assert one(got.findings, "mixed-depth").evidence == {"8": 3, "16": 1}
    same = check_images(dataset(tmp_path, *labelled(tmp_path / "grey.png")), decode=False)
    assert same.findings == []


def test_split_that_vanishes(tmp_path, jpeg):
    (tmp_path / "a.jpg").write_bytes(jpeg)
    data = dataset(tmp_path, *labelled(tmp_path / "a.jpg", tmp_path / "gone.jpg"))
    data.records[0].split, data.records[1].split = "train", "val"
    got = check_images(data, decode=False)
    found = one(got.findings, "empty-split")
    assert (found.severity, found.action) == ("error", "the split is gone")
    assert found.where.endswith("(split val)")


@pytest.mark.real
def test_result_does_not_depend_on_the_number_of_threads(shared_data, tmp_path):
    data = voc.read(shared_data / "bccd")
    data.records = data.records[:40]
    for number, record in enumerate(data.records):
        if number % 3 == 0:
            record.image = tmp_path / record.image.name
    results = [check_images(data, decode=False, workers=count) for count in (1, 2, 7)]
    assert results[0].findings == results[1].findings == results[2].findings
    assert len(results[0].findings) == 14
    assert [r.image for r in results[0].records] == [r.image for r in results[2].records]


@pytest.mark.real
def test_every_header_of_bccd_is_sound(shared_data):
    assert len(check_images(voc.read(shared_data / "bccd"), decode=False)) == 364


def test_a_map_of_another_size_is_one_finding_and_not_one_an_object(tmp_path, jpeg):
    (tmp_path / "images").mkdir()
    (tmp_path / "instances").mkdir()
    for name in ("good", "small", "turned"):
        (tmp_path / "images" / f"{name}.jpg").write_bytes(jpeg)
    numbers = np.zeros((30, 40), np.uint16)
    numbers[3:9, 3:9], numbers[12:20, 12:20] = 1, 2
    for name, values in (("good", numbers), ("small", numbers[:15, :20]), ("turned", numbers.T)):
        Image.fromarray(np.ascontiguousarray(values)).save(tmp_path / "instances" / f"{name}.png")
    got = read_dataset(tmp_path)
    assert [record.image.name for record in got.records] == ["good.jpg"]
    found = [finding for finding in got.findings if finding.severity != "info"]
    assert [(finding.id, Path(finding.where).name) for finding in found] == [
        ("size-mismatch", "small.png"),
        ("size-mismatch", "turned.png"),
    ]
    assert "the map is 20 × 15 pixels, its image small.jpg 40 × 30" in found[0].explanation
    assert {finding.action for finding in found} == {"image dropped"}
