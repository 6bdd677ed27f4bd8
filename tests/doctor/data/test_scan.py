"""A data set is read once: arrays in the order of the records, whatever the threads; found again, and made anew."""

from __future__ import annotations

import os
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from clearsight.data.dataset import Dataset
from clearsight.doctor.data.crop_features import FEATURES, describe_crop
from clearsight.doctor.data.perceptual_hash import perceptual_hashes
from clearsight.doctor.data.scan import Scan, scan_dataset
from clearsight.types import Object, Record


def dataset_of(folder: Path, images: int = 70) -> Dataset:
    """Noise images of several sizes with none to three objects; the fifth file is no image, the ninth is missing."""
    rng = np.random.default_rng(0)
    folder.mkdir(parents=True, exist_ok=True)
    records = []
    for number in range(images):
        height, width = rng.integers(20, 60, 2)
        path = folder / f"{number:03d}.png"
        Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8)).save(path)
        boxes = [(2.0, 3.0, 12.0 + part, 17.0) for part in range(number % 4)]
        objects = [Object(label=part, box=box) for part, box in enumerate(boxes)]
        records.append(Record(image=path, size=(int(height), int(width)), objects=objects, split="train"))
    if images > 8:
        records[4].image.write_bytes(b"nothing")
        records[8].image.unlink()
    return Dataset(records=records, classes=("a", "b", "c"), task="detection", root=folder, format="coco")


def assert_same(a: Scan, b: Scan) -> None:
    for field in fields(Scan):
        left, right = getattr(a, field.name), getattr(b, field.name)
        if isinstance(left, np.ndarray):
            assert left.dtype == right.dtype, field.name
            np.testing.assert_array_equal(left, right, err_msg=field.name)
        else:
            assert left == right, field.name


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return dataset_of(tmp_path_factory.mktemp("scan") / "images")


@pytest.fixture(scope="module")
def scan(dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Scan:
    return scan_dataset(dataset, workers=1, cache=tmp_path_factory.mktemp("kept"))


def test_arrays_follow_the_records(dataset: Dataset, scan: Scan) -> None:
    assert len(scan) == 70
    assert np.flatnonzero(~scan.readable).tolist() == [4, 8]
    for row, record in enumerate(dataset.records):
        if row not in (4, 8):
            pixels = np.asarray(Image.open(record.image))
            assert tuple(scan.size[row]) == record.size
            np.testing.assert_allclose(scan.mean[row], pixels.reshape(-1, 3).mean(axis=0) / 255, atol=1e-9)
            np.testing.assert_allclose(scan.features[row], describe_crop(pixels), atol=1e-6)
    np.testing.assert_array_equal(scan.phash, perceptual_hashes(scan.thumbnails))
    assert not scan.features[4].any()
    assert [finding.id for finding in scan.findings] == ["unsupported-file", "missing-image"]
    assert [len(digest) for digest in scan.md5] == [32] * 8 + [0] + [32] * 61


def test_objects_follow_their_records(dataset: Dataset, scan: Scan) -> None:
    wanted = [
        (row, part) for row, r in enumerate(dataset.records) for part in range(len(r.objects)) if row not in (4, 8)
    ]
    assert list(zip(scan.object_record.tolist(), scan.object_index.tolist(), strict=True)) == wanted
    assert scan.object_label.tolist() == [part for _, part in wanted]
    for place in (0, 17, len(wanted) - 1):
        row, part = wanted[place]
        pixels = np.asarray(Image.open(dataset.records[row].image))
        expected = describe_crop(pixels, dataset.records[row].objects[part].box)
        np.testing.assert_allclose(scan.object_features[place], expected, atol=1e-6)


def test_types_and_shapes(scan: Scan) -> None:
    objects = len(scan.object_record)
    shapes = {
        "readable": ((70,), bool),
        "size": ((70, 2), np.int64),
        "channels": ((70,), np.int64),
        "phash": ((70,), np.uint64),
        "mean": ((70, 3), np.float64),
        "std": ((70, 3), np.float64),
        "percentiles": ((70, 5), np.float64),
        "sharpness": ((70,), np.float64),
        "entropy": ((70,), np.float64),
        "thumbnails": ((70, 32, 32), np.uint8),
        "features": ((70, FEATURES), np.float32),
        "object_record": ((objects,), np.int64),
        "object_index": ((objects,), np.int64),
        "object_label": ((objects,), np.int64),
        "object_features": ((objects, FEATURES), np.float32),
    }
    assert {name: (getattr(scan, name).shape, getattr(scan, name).dtype) for name in shapes} == shapes


def test_threads_change_nothing(dataset: Dataset, scan: Scan, tmp_path: Path) -> None:
    assert_same(scan_dataset(dataset, workers=4, cache=tmp_path), scan)


def test_no_images_and_no_objects(tmp_path: Path) -> None:
    empty = Dataset(records=[], classes=(), task="detection", root=tmp_path, format="coco")
    found = scan_dataset(empty, cache=tmp_path / "kept")
    assert (len(found), found.features.shape, found.thumbnails.shape) == (0, (0, FEATURES), (0, 32, 32))
    assert_same(scan_dataset(empty, cache=tmp_path / "kept"), found)
    single = scan_dataset(dataset_of(tmp_path / "one", images=1), cache=tmp_path / "kept")
    assert single.object_features.shape == (0, FEATURES)


def test_a_bar_is_shown_when_asked(
    dataset: Dataset, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")  # as on a terminal
    scan_dataset(dataset, cache=tmp_path / "a")
    assert capsys.readouterr() == ("", "")
    scan_dataset(dataset, cache=tmp_path / "b", progress=True)
    out, err = capsys.readouterr()
    assert out == ""
    assert "Reading images" in err


# ------------------------------------------------------------------------------------------------ kept on disk
def test_a_scan_is_found_again(tmp_path: Path) -> None:
    dataset = dataset_of(tmp_path / "images", images=12)
    first = scan_dataset(dataset, cache=tmp_path / "kept")
    before = dataset.records[0].image.stat()
    dataset.records[0].image.write_bytes(bytes(before.st_size))  # the same size, and the same time:
    os.utime(dataset.records[0].image, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert_same(scan_dataset(dataset, cache=tmp_path / "kept"), first)
    os.utime(dataset.records[0].image)
    again = scan_dataset(dataset, cache=tmp_path / "kept")
    assert not again.readable[0]


def test_another_order_or_other_labels_are_another_scan(tmp_path: Path) -> None:
    dataset = dataset_of(tmp_path / "images", images=12)
    first = scan_dataset(dataset, cache=tmp_path / "kept")
    dataset.records.reverse()
    assert scan_dataset(dataset, cache=tmp_path / "kept").md5 == first.md5[::-1]
    dataset.records[0].objects[0].label = 2
    assert scan_dataset(dataset, cache=tmp_path / "kept").object_label[0] == 2


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty", "text", "other"])
def test_a_damaged_scan_is_made_anew(tmp_path: Path, damage: str) -> None:
    dataset = dataset_of(tmp_path / "images", images=12)
    first = scan_dataset(dataset, cache=tmp_path / "kept")
    (file,) = (tmp_path / "kept").iterdir()
    data = bytearray(file.read_bytes())
    if damage == "cut":
        file.write_bytes(data[: len(data) // 2])
    elif damage == "flipped":
        data[len(data) // 2] ^= 0xFF
        file.write_bytes(data)
    elif damage == "other":
        np.savez(file, readable=np.ones(12, dtype=bool))
    else:
        file.write_bytes(b"" if damage == "empty" else b"no arrays here")
    assert_same(scan_dataset(dataset, cache=tmp_path / "kept"), first)
    (file,) = (tmp_path / "kept").iterdir()
    with np.load(file) as kept:
        np.testing.assert_array_equal(kept["features"], first.features)


def test_a_folder_that_cannot_be_written_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "kept").write_text("a file where the folder would be")
    dataset = dataset_of(tmp_path / "images", images=2)
    assert scan_dataset(dataset, cache=tmp_path / "kept").readable.all()


def test_without_a_folder_it_is_kept_with_other_generated_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLEARSIGHT_CACHE", str(tmp_path / "cache"))
    scan_dataset(dataset_of(tmp_path / "images", images=2))
    assert len(list((tmp_path / "cache" / "scans").glob("*.npz"))) == 1


@pytest.mark.real
def test_real_photos(shared_data: Path, tmp_path: Path) -> None:
    from clearsight.data.read import read_dataset

    dataset = read_dataset(shared_data / "bccd")
    dataset.records = dataset.records[:60]
    found = scan_dataset(dataset, cache=tmp_path)
    assert found.readable.all()
    assert (found.size == [480, 640]).all()
    assert len(found.object_record) == sum(len(record.objects) for record in dataset.records)
    assert len(set(found.phash.tolist())) > 55
