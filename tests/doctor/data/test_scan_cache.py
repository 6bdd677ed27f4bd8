"""Files of arrays: read as they were written, refused when damaged, never left half."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from clearsight.data.dataset import Dataset
from clearsight.doctor.data.scan_cache import cache_key, load_arrays, remove_older, save_arrays
from clearsight.types import Object, Record

ARRAYS = {"a": np.arange(6.0).reshape(2, 3), "b": np.array(["x", "yz"]), "c": np.zeros((0, 4), dtype=np.uint8)}


def dataset_of(folder: Path) -> Dataset:
    records = []
    for number in range(3):
        path = folder / f"{number}.png"
        Image.new("RGB", (4, 4), (number, 0, 0)).save(path)
        records.append(Record(image=path, objects=[Object(label=0, box=(0, 0, 2, 2))]))
    return Dataset(records=records, classes=("a",), task="detection", root=folder, format="coco")


def test_arrays_come_back(tmp_path: Path) -> None:
    save_arrays(tmp_path / "deep" / "x.npz", ARRAYS)
    found = load_arrays(tmp_path / "deep" / "x.npz")
    assert found is not None
    assert list(found) == list(ARRAYS)
    for name, array in ARRAYS.items():
        assert found[name].dtype == array.dtype
        np.testing.assert_array_equal(found[name], array)
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["x.npz"]


def test_no_file_and_no_arrays(tmp_path: Path) -> None:
    assert load_arrays(tmp_path / "x.npz") is None
    assert load_arrays(tmp_path) is None
    np.savez(tmp_path / "objects.npz", a=np.array([{}], dtype=object))
    assert load_arrays(tmp_path / "objects.npz") is None


def test_every_flipped_byte_of_the_content_is_seen(tmp_path: Path) -> None:
    file = tmp_path / "x.npz"
    save_arrays(file, {"a": np.random.default_rng(0).integers(0, 256, 64, dtype=np.uint8)})
    whole = file.read_bytes()
    start = whole.index(b"\x93NUMPY")
    for place in range(start, start + 192, 5):
        file.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        assert load_arrays(file) is None
    for length in range(0, len(whole), 37):
        file.write_bytes(whole[:length])
        assert load_arrays(file) is None


def test_the_key_is_of_everything_that_changes_a_scan(tmp_path: Path) -> None:
    dataset = dataset_of(tmp_path)
    keys = [cache_key(dataset)]
    assert cache_key(dataset) == keys[0]
    dataset.records[1].objects[0].box = (0, 0, 3, 2)
    keys.append(cache_key(dataset))
    dataset.records.reverse()
    keys.append(cache_key(dataset))
    os.utime(dataset.records[0].image, ns=(1, 1))
    keys.append(cache_key(dataset))
    dataset.records[0].image.unlink()
    keys.append(cache_key(dataset))
    assert len(set(keys)) == 5


def test_only_the_newest_scans_of_a_folder_stay(tmp_path: Path) -> None:
    names = [f"{'a' * 16}-{number}.npz" for number in (3, 1, 2, 0)] + [
        f"{'b' * 16}-{number}.npz" for number in range(3)
    ]
    for age, name in enumerate(names):
        (tmp_path / name).touch()
        os.utime(tmp_path / name, ns=(age, age))
    remove_older(tmp_path / names[3], keep=2)
    assert {path.name for path in tmp_path.iterdir()} == set(names[2:])
    remove_older(tmp_path / "gone" / names[3])


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="permissions do not bind here")
def test_a_folder_without_permission(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    save_arrays(tmp_path / "x.npz", ARRAYS)
    tmp_path.chmod(0o700)
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_left_of_a_file_that_cannot_be_placed(tmp_path: Path) -> None:
    (tmp_path / "x.npz").mkdir()  # a folder is not replaced by a file
    save_arrays(tmp_path / "x.npz", ARRAYS)
    assert [path.name for path in tmp_path.iterdir()] == ["x.npz"]
