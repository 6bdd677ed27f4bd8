"""Decoding: every kind of file the readers meet, against arrays made by hand and against Pillow."""

from __future__ import annotations

import io
import struct
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image, ImageOps

from clearsight.data import decode
from clearsight.data.decode import image_size, read_image, read_index_map, turn
from clearsight.errors import DataError


@pytest.fixture
def noise() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)


def fault(error: pytest.ExceptionInfo[DataError]) -> str:
    (finding,) = error.value.findings
    assert finding.severity == "error"
    assert finding.action == "dropped"
    return finding.id


# ------------------------------------------------------------------------------------------------ kinds of pixels
@pytest.mark.parametrize("suffix", ["png", "bmp", "tif", "webp", "jp2", "ppm"])
def test_rgb_is_exact(tmp_path, noise, suffix):
    path = tmp_path / f"a.{suffix}"
    options: dict = {"lossless": True} if suffix == "webp" else {}
    Image.fromarray(noise).save(path, **options)
    got = read_image(path)
    assert got.dtype == np.uint8
    assert got.flags.writeable
    assert got.flags.c_contiguous
    np.testing.assert_array_equal(got, noise)
    assert image_size(path) == (20, 30)


@pytest.mark.parametrize("mode", ["L", "LA", "RGBA", "CMYK", "P", "1"])
def test_modes_of_pillow(tmp_path, noise, mode):
    suffix = "tif" if mode == "CMYK" else "png"
    image = Image.fromarray(noise).convert(mode)
    image.save(tmp_path / f"a.{suffix}")
    plain = {"CMYK": "RGB", "P": "RGB", "1": "L"}.get(mode, mode)
    expected = np.asarray(image.convert(plain)).reshape(20, 30, -1)
    np.testing.assert_array_equal(read_image(tmp_path / f"a.{suffix}"), expected)


def test_palette_with_transparency_is_rgba(tmp_path, noise):
    Image.fromarray(noise).convert("P").save(tmp_path / "a.png", transparency=3)
    assert read_image(tmp_path / "a.png").shape == (20, 30, 4)
    assert read_image(tmp_path / "a.png", channels=3).shape == (20, 30, 3)


def test_cmyk_jpeg_is_rgb(tmp_path, noise):
    Image.fromarray(noise).convert("CMYK").save(tmp_path / "a.jpg", quality=95)
    expected = np.asarray(Image.open(tmp_path / "a.jpg").convert("RGB"))
    np.testing.assert_array_equal(read_image(tmp_path / "a.jpg"), expected)


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_sixteen_bit_png_keeps_its_depth(tmp_path, channels):
    deep = np.random.default_rng(1).integers(0, 65536, (9, 7, channels), dtype=np.uint16)
    stored = deep if channels == 1 else deep[..., [2, 1, 0, *range(3, channels)]]  # OpenCV writes BGR
    assert cv2.imwrite(str(tmp_path / "a.png"), stored)
    got = read_image(tmp_path / "a.png")
    assert got.dtype == np.uint16
    np.testing.assert_array_equal(got, deep)


# ------------------------------------------------------------------------------------------------ EXIF
@pytest.mark.parametrize("orientation", range(1, 9))
def test_turn_agrees_with_pillow(noise, orientation):
    image = Image.fromarray(noise)
    image.getexif()[0x0112] = orientation
    np.testing.assert_array_equal(turn(noise, orientation), np.asarray(ImageOps.exif_transpose(image)))


@pytest.mark.parametrize("fast", [True, False])
@pytest.mark.real
def test_exif_photos_show_the_same_picture(shared_data, fast, monkeypatch):
    if not fast:
        monkeypatch.setattr(decode, "_simplejpeg", None)
    upright = read_image(shared_data / "exif" / "landscape_1.jpg").astype(float)
    assert upright.shape == (300, 450, 3)
    for number in range(9):
        path = shared_data / "exif" / f"landscape_{number}.jpg"
        got = read_image(path)
        assert image_size(path) == got.shape[:2]
        assert got.shape == upright.shape, number
        # Compressed once more at each orientation, so not equal to the bit; a wrong turn differs by 60 and more.
        assert np.abs(got - upright).mean() < 6, number


@pytest.mark.real
def test_fast_and_pillow_decoders_agree(shared_data, monkeypatch):
    files = [
        *sorted((shared_data / "bccd/JPEGImages").glob("*.jpg"))[:8],
        *sorted((shared_data / "exif").glob("*.jpg")),
    ]
    fast = [read_image(path) for path in files]
    monkeypatch.setattr(decode, "_simplejpeg", None)
    for path, pixels in zip(files, fast, strict=True):
        np.testing.assert_allclose(read_image(path).astype(int), pixels.astype(int), atol=2)


# ------------------------------------------------------------------------------------------------ channels
def test_channels_as_asked(tmp_path, noise):
    Image.fromarray(noise[..., 0]).save(tmp_path / "grey.png")
    Image.fromarray(noise).convert("RGBA").save(tmp_path / "rgba.png")
    Image.fromarray(noise).convert("LA").save(tmp_path / "la.png")
    grey = read_image(tmp_path / "grey.png", channels=3)
    np.testing.assert_array_equal(grey, np.repeat(noise[..., :1], 3, axis=2))
    np.testing.assert_array_equal(read_image(tmp_path / "rgba.png", channels=3), noise)
    assert read_image(tmp_path / "rgba.png", channels=4).shape[2] == 4
    assert read_image(tmp_path / "la.png", channels=1).shape[2] == 1
    assert read_image(tmp_path / "la.png", channels=3).shape[2] == 3


@pytest.mark.parametrize("asked", [1, 4])
def test_channel_mismatch_names_the_file(tmp_path, noise, asked):
    Image.fromarray(noise).save(tmp_path / "rgb.png")
    with pytest.raises(DataError, match=rf"rgb\.png: the image has 3 channels, {asked} were asked for") as error:
        read_image(tmp_path / "rgb.png", channels=asked)
    assert fault(error) == "channel-mismatch"


# ------------------------------------------------------------------------------------------------ index maps
def test_index_map_keeps_indices(tmp_path):
    index = np.array([[0, 1, 2], [255, 1, 0]], np.uint8)
    palette = Image.fromarray(index, mode=None)
    palette = palette.convert("L")
    indexed = Image.frombytes("P", (3, 2), index.tobytes())
    indexed.putpalette([200, 0, 0, 0, 200, 0, 0, 0, 200] + [7] * 759)
    indexed.save(tmp_path / "palette.png")
    palette.save(tmp_path / "grey.png")
    Image.fromarray(index > 0).save(tmp_path / "bilevel.png")
    deep = index.astype(np.uint16) * 200
    Image.fromarray(deep).save(tmp_path / "deep.png")
    np.testing.assert_array_equal(read_index_map(tmp_path / "palette.png"), index)
    np.testing.assert_array_equal(read_index_map(tmp_path / "grey.png"), index)
    np.testing.assert_array_equal(read_index_map(tmp_path / "bilevel.png"), index > 0)
    np.testing.assert_array_equal(read_index_map(tmp_path / "deep.png"), deep)


def test_index_map_refuses_colour_and_jpeg(tmp_path, noise):
    Image.fromarray(noise).save(tmp_path / "a.png")
    Image.fromarray(noise[..., 0]).save(tmp_path / "a.jpg")
    for name, text in (("a.png", "3 colour channels"), ("a.jpg", "JPEG changes pixel values")):
        with pytest.raises(DataError, match=text) as error:
            read_index_map(tmp_path / name)
        assert fault(error) == "unsupported-file"


# ------------------------------------------------------------------------------------------------ faults
def test_missing_empty_and_foreign_files(tmp_path):
    (tmp_path / "empty.jpg").touch()
    (tmp_path / "text.png").write_text("this is a letter, not a picture")
    (tmp_path / "folder.png").mkdir()
    expected = {
        "none.jpg": "missing-image",
        "folder.png": "missing-image",
        "empty.jpg": "empty-file",
        "text.png": "unsupported-file",
    }
    for name, fault_id in expected.items():
        for call in (read_image, image_size):
            with pytest.raises(DataError, match=name.replace(".", r"\.")) as error:
                call(tmp_path / name)
            assert fault(error) == fault_id


@pytest.mark.real
@pytest.mark.parametrize("share", [0.1, 0.5, 0.98])
@pytest.mark.parametrize("folder", ["bccd/JPEGImages", "nuclei/images", "nuclei/instances"])
def test_truncated_files(shared_data, tmp_path, folder, share):
    source = sorted((shared_data / folder).iterdir())[0]
    data = source.read_bytes()
    path = tmp_path / source.name
    path.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(DataError, match="copy") as error:
        read_image(path)
    assert fault(error) == "truncated-image"


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_truncated_deep_colour(tmp_path, bits, suffix):
    pixels = np.random.default_rng(0).integers(0, 2**bits, (40, 40, 3)).astype(f"u{bits // 8}")
    path = tmp_path / f"a.{suffix}"
    assert cv2.imwrite(str(path), pixels)
    path.write_bytes(path.read_bytes()[:-3000])
    with pytest.raises(DataError) as error:
        read_image(path)
    assert fault(error) == "truncated-image"


def test_bomb_is_refused_from_the_header(tmp_path, monkeypatch):
    ihdr = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    chunks = b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        for kind, body in ((b"IHDR", ihdr), (b"IDAT", zlib.compress(bytes(1000))), (b"IEND", b""))
    )
    (tmp_path / "bomb.png").write_bytes(b"\x89PNG\r\n\x1a\n" + chunks)
    monkeypatch.setattr(decode, "_decode", lambda *a, **k: pytest.fail("the bomb was decoded"))
    for call in (read_image, image_size):
        with pytest.raises(DataError, match="60000 × 60000 pixels, the limit is 178956970") as error:
            call(tmp_path / "bomb.png")
        assert fault(error) == "decompression-bomb"
    assert image_size(tmp_path / "bomb.png", max_pixels=None) == (60_000, 60_000)


def test_limit_is_an_argument(tmp_path, noise):
    Image.fromarray(noise).save(tmp_path / "a.png")
    with pytest.raises(DataError, match="higher max_pixels"):
        read_image(tmp_path / "a.png", max_pixels=599)
    assert read_image(tmp_path / "a.png", max_pixels=600).shape == (20, 30, 3)


@pytest.mark.parametrize("suffix", ["jpg", "png", "tif", "gif", "webp", "bmp", "jp2", "ppm", "avif"])
def test_random_damage_never_gives_another_error(tmp_path, noise, suffix):
    buffer = io.BytesIO()
    names = {"jpg": "JPEG", "tif": "TIFF", "jp2": "JPEG2000"}
    Image.fromarray(noise).save(buffer, names.get(suffix, suffix.upper()))
    data = buffer.getvalue()
    rng = np.random.default_rng(0)
    path = tmp_path / f"a.{suffix}"
    refused = 0
    for trial in range(60):
        broken = bytearray(data)
        for place in rng.integers(0, min(len(data), 200 if trial % 2 else len(data)), 4):
            broken[place] = rng.integers(256)
        path.write_bytes(bytes(broken[: rng.integers(1, len(data) + 1)] if trial % 3 == 0 else broken))
        try:
            read_image(path)
        except DataError:
            refused += 1
    assert refused > 5


def test_a_png_with_damaged_pixels_is_an_error_and_not_a_black_image(tmp_path, noise):
    path = tmp_path / "damaged.png"
    Image.fromarray(noise).save(path)
    data = bytearray(path.read_bytes())
    data[data.index(b"IDAT") + 4] ^= 0xFF  # the first byte of the compressed pixels
    path.write_bytes(bytes(data))
    with pytest.raises(DataError, match="damaged"):
        read_image(path)
