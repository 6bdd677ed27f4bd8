"""Headers: size and kind without decoding, and whether a file looks whole."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from clearsight.data.image_header import read_bytes, read_header
from clearsight.errors import DataError


@pytest.mark.parametrize(
    ("mode", "name", "kind", "channels", "alpha"),
    [
        ("L", "a.png", "PNG", 1, False),
        ("RGB", "a.JPG", "JPEG", 3, False),
        ("RGBA", "a.png", "PNG", 4, True),
        ("LA", "a.png", "PNG", 2, True),
        ("P", "a.gif", "GIF", 3, False),
        ("CMYK", "a.tif", "TIFF", 3, False),
        ("RGB", "a.webp", "WEBP", 3, False),
    ],
)
def test_what_a_header_says(tmp_path, mode, name, kind, channels, alpha):
    Image.new(mode, (30, 20)).save(tmp_path / name)
    header = read_header(tmp_path / name)
    assert (header.format, header.size, header.bits) == (kind, (20, 30), 8)
    assert (header.channels, header.alpha) == (channels, alpha)
    assert header.complete


def test_name_does_not_decide(tmp_path):
    Image.new("RGB", (30, 20)).save(tmp_path / "a.png")
    (tmp_path / "a.png").rename(tmp_path / "a.jpg")
    assert read_header(tmp_path / "a.jpg").format == "PNG"


@pytest.mark.parametrize("orientation", [0, 1, 3, 6, 8, 9, 77])
def test_turn_changes_the_size(tmp_path, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.new("RGB", (30, 20)).save(tmp_path / "a.jpg", exif=exif)
    header = read_header(tmp_path / "a.jpg")
    assert header.size == ((30, 20) if orientation in (6, 8) else (20, 30))
    assert header.orientation == (orientation if orientation in range(1, 9) else 1)


@pytest.mark.parametrize("suffix", ["jpg", "png", "gif", "webp", "tif"])
def test_a_cut_end_is_seen_without_decoding(tmp_path, suffix):
    pixels = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(pixels).save(path)
    assert read_header(path).complete
    path.write_bytes(path.read_bytes()[:-400])
    if suffix == "webp":  # Pillow reads the whole file at once
        with pytest.raises(DataError, match="cut off"):
            read_header(path)
    else:
        assert not read_header(path).complete


def test_read_bytes_says_what_is_wrong(tmp_path):
    with pytest.raises(DataError, match="does not exist") as error:
        read_bytes(tmp_path / "none.png")
    assert error.value.findings[0].id == "missing-image"


@pytest.mark.real
def test_headers_of_real_photos(shared_data):
    paths = sorted((shared_data / "bccd" / "JPEGImages").iterdir())
    assert {read_header(path).size for path in paths} == {(480, 640)}
