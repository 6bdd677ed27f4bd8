from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from clearsight.data.decode import read_image
from clearsight.data.prepare import _decode_reduced, load_image, prepare_image
from clearsight.errors import DataError
from clearsight.recipe.schema import DataConfig


def smooth(height: int, width: int, channels: int = 3) -> np.ndarray:
    rows, columns = np.mgrid[:height, :width]
    planes = [127 + 100 * np.sin(rows / (23 + 7 * c)) * np.cos(columns / (31 - 5 * c)) for c in range(channels)]
    return np.stack(planes, axis=-1).astype(np.uint8).squeeze()


def save(path: Path, array: np.ndarray, **options: object) -> Path:
    Image.fromarray(array).save(path, quality=95, **options)
    return path


def difference(path: Path, data: DataConfig) -> float:
    image, size = load_image(path, data)
    array = read_image(path, channels=data.channels)
    assert size == array.shape[:2]
    expected = prepare_image(array, data)
    assert image.shape == expected.shape
    assert image.dtype == expected.dtype
    assert image.permute(1, 2, 0).is_contiguous()
    return float((image.float() - expected.float()).abs().mean())


@pytest.mark.parametrize("size", [(240, 320), (241, 323), (100, 100), (60, 80), (59, 81), (30, 40)])
@pytest.mark.parametrize("fit", ["letterbox", "stretch"])
def test_reduced_decoding_is_close_to_decoding_and_scaling(tmp_path: Path, size: tuple[int, int], fit: str) -> None:
    path = save(tmp_path / "a.jpg", smooth(480, 640))
    assert difference(path, DataConfig(size=size, fit=fit)) < 1.0


@pytest.mark.parametrize("orientation", range(1, 9))
def test_turned_files_are_turned(tmp_path: Path, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = save(tmp_path / "a.JPG", smooth(200, 300), exif=exif)
    assert difference(path, DataConfig(size=(64, 64))) < 1.5
    assert difference(path, DataConfig(size=(90, 70), fit="stretch")) < 1.5
    array, size = _decode_reduced(path, DataConfig(size=(64, 64))) or (np.empty(0), (0, 0))
    assert size == ((200, 300) if orientation < 5 else (300, 200))
    assert array.shape[:2] == (size[0] // 4, size[1] // 4)


@pytest.mark.parametrize("channels", [1, 3])
def test_grey_files(tmp_path: Path, channels: int) -> None:
    path = save(tmp_path / "a.jpg", smooth(200, 300, 1))
    assert difference(path, DataConfig(size=(64, 64), channels=channels)) < 1.0


@pytest.mark.parametrize("size", [(101, 101), (200, 300), (400, 600)])
def test_files_that_are_not_twice_as_large_are_decoded_in_full(tmp_path: Path, size: tuple[int, int]) -> None:
    path = save(tmp_path / "a.jpg", smooth(200, 300))
    assert difference(path, DataConfig(size=size, fit="stretch")) == 0.0


def test_other_files_and_percentiles_are_read_in_full(tmp_path: Path) -> None:
    png = tmp_path / "a.png"
    Image.fromarray(smooth(200, 300)).save(png)
    assert difference(png, DataConfig(size=(64, 64))) == 0.0
    named = tmp_path / "b.jpg"
    named.write_bytes(png.read_bytes())
    assert difference(named, DataConfig(size=(64, 64))) == 0.0
    path = save(tmp_path / "c.jpg", smooth(200, 300))
    assert difference(path, DataConfig(size=(64, 64), normalize="percentile")) == 0.0


def test_damaged_files_are_named(tmp_path: Path) -> None:
    path = save(tmp_path / "cut.jpg", smooth(200, 300))
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(DataError, match=r"cut\.jpg"):
        load_image(path, DataConfig(size=(64, 64)))
    with pytest.raises(DataError, match=r"none\.jpg"):
        load_image(tmp_path / "none.jpg", DataConfig(size=(64, 64)))


@pytest.mark.real
def test_real_photos(shared_data: Path) -> None:
    photos = sorted((shared_data / "bccd").rglob("*.jpg"))[:10]
    found = [difference(path, DataConfig(size=(240, 320))) for path in photos]
    assert 0 < float(torch.tensor(found).mean()) < 1.0
