"""Damage that ordinary decoding forgives."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from clearsight.data import decode
from clearsight.data.decode import read_image
from clearsight.data.image_damage import find_damage
from clearsight.errors import DataError


@pytest.fixture
def noise() -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8))


def spoil(path, place):
    data = bytearray(path.read_bytes())
    data[place : place + 40] = bytes(40)
    path.write_bytes(data)


def test_png_checksum(tmp_path, noise):
    path = tmp_path / "a.png"
    noise.save(path)
    assert find_damage(path) == ""
    data = bytearray(path.read_bytes())
    data[-16] ^= 0xFF  # the checksum itself, just before the IEND chunk
    path.write_bytes(data)
    assert read_image(path).shape == (64, 64, 3)  # no decoder complains
    assert find_damage(path) == "the checksum of its IDAT data is wrong"


def test_png_whose_pixels_cannot_be_decoded(tmp_path, noise):
    path = tmp_path / "a.png"
    noise.save(path)
    spoil(path, 5000)
    with pytest.raises(DataError, match=r"a\.png"):
        find_damage(path)


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_jpeg(tmp_path, noise, mode):
    path = tmp_path / "a.jpg"
    noise.convert(mode).save(path, quality=95)
    assert find_damage(path) == ""
    if mode == "CMYK":  # left to Pillow
        return
    path.write_bytes(path.read_bytes().replace(b"\xff\xd9", b"") + bytes(4) + b"\xff\xd9")
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 2] = b"\xff\xd3"  # a restart mark where none belongs
    path.write_bytes(data)
    assert read_image(path).shape[:2] == (64, 64)
    assert find_damage(path) != ""


def test_without_the_strict_decoder(tmp_path, noise, monkeypatch):
    noise.save(tmp_path / "a.jpg")
    monkeypatch.setattr(decode, "_simplejpeg", None)
    assert find_damage(tmp_path / "a.jpg") == ""


def test_files_that_cannot_be_decoded(tmp_path, noise):
    noise.save(tmp_path / "a.jpg")
    (tmp_path / "a.jpg").write_bytes((tmp_path / "a.jpg").read_bytes()[:500])
    with pytest.raises(DataError, match="cut off"):
        find_damage(tmp_path / "a.jpg")
