"""One image measured: against NumPy on the pixels, at reduced size, turned, in 16 bits, and when it is no image."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from clearsight.doctor.data.scan_image import look_at
from clearsight.types import Object, Record


def picture(size: tuple[int, int] = (96, 128), patches: int = 8) -> np.ndarray:
    rng = np.random.default_rng(0)
    coarse = Image.fromarray(rng.integers(0, 256, (patches, patches, 3), dtype=np.uint8))
    return np.asarray(coarse.resize(size[::-1], Image.Resampling.BICUBIC))


def record_of(path: Path, array: np.ndarray, *boxes: tuple[float, float, float, float]) -> Record:
    if path.suffix == ".tif":
        tifffile.imwrite(path, array)
    else:
        Image.fromarray(array).save(path, **({"quality": 95, "subsampling": 0} if path.suffix == ".jpg" else {}))
    return Record(image=path, objects=[Object(label=number, box=box) for number, box in enumerate(boxes)])


def test_measures_are_those_of_the_pixels(tmp_path: Path) -> None:
    array = picture()
    record = record_of(tmp_path / "a.png", array)
    look = look_at(record)
    grey = np.asarray(Image.fromarray(array).convert("L"))
    assert (look.readable, look.size, look.channels, look.findings) == (True, (96, 128), 3, ())
    assert look.md5 == hashlib.md5(record.image.read_bytes()).hexdigest()
    np.testing.assert_allclose(look.mean, array.reshape(-1, 3).mean(axis=0) / 255, atol=1e-9)
    np.testing.assert_allclose(look.std, array.reshape(-1, 3).std(axis=0) / 255, atol=1e-9)
    np.testing.assert_allclose(look.percentiles, np.percentile(grey, [1, 5, 50, 95, 99]) / 255, atol=1.01 / 255)
    shares = np.bincount(grey.ravel(), minlength=256) / grey.size
    assert look.entropy == pytest.approx(-(shares[shares > 0] * np.log2(shares[shares > 0])).sum())
    g = grey.astype(np.float64)
    bend = g[:-2, 1:-1] + g[2:, 1:-1] + g[1:-1, :-2] + g[1:-1, 2:] - 4 * g[1:-1, 1:-1]
    assert look.sharpness == pytest.approx(bend.var(), rel=1e-4)


def test_large_jpegs_are_decoded_small_to_the_same_measures(tmp_path: Path) -> None:
    array = picture((1000, 1200), patches=50)
    jpeg, png = (look_at(record_of(tmp_path / name, array, (300, 200, 700, 900))) for name in ("a.jpg", "a.png"))
    assert (jpeg.size, jpeg.boxes.tolist()) == ((1000, 1200), [[700, 400]])
    np.testing.assert_allclose(jpeg.mean, png.mean, atol=0.005)
    np.testing.assert_allclose(jpeg.std, png.std, atol=0.005)
    assert np.abs(jpeg.patches.astype(int) - png.patches).mean() < 2
    assert jpeg.sharpness == pytest.approx(png.sharpness, rel=0.1)


def test_blur_is_less_sharp(tmp_path: Path) -> None:
    array = np.random.default_rng(0).integers(0, 256, (200, 600, 3), dtype=np.uint8)
    sharp = look_at(record_of(tmp_path / "a.png", array)).sharpness
    soft = np.asarray(Image.fromarray(array).resize((60, 20)).resize((600, 200), Image.Resampling.BICUBIC))
    assert look_at(record_of(tmp_path / "b.png", soft)).sharpness < sharp / 20


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_objects_are_cut_from_the_turned_picture(tmp_path: Path, orientation: int) -> None:
    upright = picture((480, 640))
    turns = {1: 0, 3: 2, 6: 1, 8: 3}[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / "a.jpg"
    Image.fromarray(np.rot90(upright, turns)).save(path, quality=95, subsampling=0, exif=exif)
    look = look_at(Record(image=path, objects=[Object(label=0, box=(400, 40, 560, 300))]))
    whole, part = (
        Image.fromarray(x).resize((32, 32), Image.Resampling.BILINEAR) for x in (upright, upright[40:300, 400:560])
    )
    assert look.size == (480, 640)
    assert np.abs(look.patches[0].astype(int) - np.asarray(whole)).mean() < 2
    assert np.abs(look.patches[1].astype(int) - np.asarray(part)).mean() < 3


def test_boxes_without_area_in_the_image_are_left_out(tmp_path: Path) -> None:
    boxes = [(10, 10, 10, 30), (200, 10, 240, 30), (float("nan"), 1, 5, 5), (100, 50, 140, 90), (5, 5, 9, 9)]
    look = look_at(record_of(tmp_path / "a.png", picture(), *boxes))
    assert look.objects == (3, 4)
    assert look.boxes.tolist() == [[40, 40], [4, 4]]
    assert look.patches.shape == (3, 32, 32, 3)


def test_sixteen_bits(tmp_path: Path) -> None:
    deep = picture()[..., 0].astype(np.uint16) * 16  # 12 bits of 16
    look = look_at(record_of(tmp_path / "a.tif", deep))
    assert (look.readable, look.channels) == (True, 1)
    np.testing.assert_allclose(look.mean, deep.mean() / 65535, rtol=1e-6)
    np.testing.assert_allclose(look.percentiles, np.percentile(deep, [1, 5, 50, 95, 99]) / 65535, atol=1e-4)
    assert look.patches.max() > 240  # what is looked at is stretched


@pytest.mark.parametrize("shape", [(40, 30), (40, 30, 2), (40, 30, 4)])
def test_other_channels(tmp_path: Path, shape: tuple[int, ...]) -> None:
    array = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    look = look_at(record_of(tmp_path / "a.png", array))
    assert look.channels == (shape[2] if len(shape) == 3 else 1)
    colours = array.reshape(1200, -1)[:, [0, 0, 0] if look.channels < 3 else [0, 1, 2]]
    np.testing.assert_allclose(look.mean, colours.mean(axis=0) / 255, atol=1e-9)


def test_tiny_images(tmp_path: Path) -> None:
    look = look_at(record_of(tmp_path / "a.png", np.full((1, 1, 3), 80, dtype=np.uint8), (0, 0, 1, 1)))
    assert (look.readable, look.sharpness, look.entropy, look.objects) == (True, 0.0, 0.0, (0,))
    assert look.std.max() == pytest.approx(0, abs=1e-9)


# ------------------------------------------------------------------------------------------------ no images
def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    whole = tmp_path / "whole.png"
    Image.fromarray(picture()).save(whole)
    (tmp_path / "cut.png").write_bytes(whole.read_bytes()[:2000])
    (tmp_path / "empty.png").write_bytes(b"")
    (tmp_path / "text.png").write_bytes(b"no image at all, but some text")
    wanted = {"cut": "truncated-image", "empty": "empty-file", "text": "unsupported-file", "gone": "missing-image"}
    for name, fault in wanted.items():
        look = look_at(Record(image=tmp_path / f"{name}.png", objects=[Object(label=0, box=(0, 0, 9, 9))]))
        assert not look.readable
        assert [finding.id for finding in look.findings] == [fault]
        assert (look.objects, look.size, bool(look.md5)) == ((), (0, 0), name != "gone")
        assert look.patches.shape == (1, 32, 32, 3)


def test_floats_that_are_not_finite(tmp_path: Path) -> None:
    values = np.random.default_rng(0).random((16, 20)).astype(np.float32)
    plain = look_at(record_of(tmp_path / "plain.tif", values))
    assert [finding.id for finding in plain.findings] == ["unsupported-file"]
    values[3, :4] = np.nan
    values[5, 5] = np.inf
    look = look_at(record_of(tmp_path / "nan.tif", values))
    assert (look.readable, [finding.id for finding in look.findings]) == (False, ["non-finite-pixels"])
    assert "5 of 320 pixels are NaN or infinite" in look.findings[0].explanation


def test_damaged_jpegs_are_kept_with_a_warning(tmp_path: Path) -> None:
    record = record_of(tmp_path / "a.jpg", picture((300, 400)))
    data = bytearray(record.image.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 40] = b"\xff\xd3" * 20  # restart marks where none belong
    record.image.write_bytes(bytes(data))
    look = look_at(record)
    assert [(finding.id, finding.severity) for finding in look.findings] == [("damaged-image", "warning")]
    assert look.readable
