"""TIFF through tifffile, and through Pillow where tifffile alone cannot."""

from __future__ import annotations

import numpy as np
import pytest
import tifffile
from PIL import Image

from clearsight.data.decode import image_size, read_image, read_index_map, turn
from clearsight.data.image_header import read_header
from clearsight.errors import DataError


def fault(error: pytest.ExceptionInfo[DataError]) -> str:
    (finding,) = error.value.findings
    return finding.id


@pytest.fixture
def noise() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, ">u2"])
@pytest.mark.parametrize("planar", ["contig", "separate"])
@pytest.mark.parametrize("channels", [2, 5])
def test_tiff_of_many_channels(tmp_path, dtype, planar, channels):
    pixels = np.random.default_rng(2).integers(0, 250, (9, 7, channels)).astype(dtype)
    stored = pixels if planar == "contig" else np.moveaxis(pixels, -1, 0)
    order = ">" if dtype == ">u2" else "<"
    tifffile.imwrite(tmp_path / "a.tif", stored, photometric="minisblack", planarconfig=planar, byteorder=order)
    got = read_image(tmp_path / "a.tif")
    assert got.dtype == np.dtype(dtype).newbyteorder("=")
    np.testing.assert_array_equal(got, pixels)
    assert image_size(tmp_path / "a.tif") == (9, 7)
    assert read_image(tmp_path / "a.tif", channels=channels).shape[2] == channels


def test_tiff_channels_as_pages_of_imagej(tmp_path):
    pixels = np.random.default_rng(2).integers(0, 60000, (4, 9, 7), dtype=np.uint16)
    tifffile.imwrite(tmp_path / "a.tif", pixels, imagej=True, metadata={"axes": "CYX"})
    np.testing.assert_array_equal(read_image(tmp_path / "a.tif"), np.moveaxis(pixels, 0, -1))


@pytest.mark.parametrize("compression", ["tiff_lzw", "jpeg", "packbits", "tiff_adobe_deflate"])
def test_tiff_compressions(tmp_path, noise, compression):
    Image.fromarray(noise).save(tmp_path / "a.tif", compression=compression)
    expected = np.asarray(Image.open(tmp_path / "a.tif").convert("RGB"))
    np.testing.assert_array_equal(read_image(tmp_path / "a.tif"), expected)


@pytest.mark.parametrize("compression", [None, "tiff_lzw"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_tiff_is_turned_once(tmp_path, noise, orientation, compression):
    Image.fromarray(noise).save(tmp_path / "a.tif", tiffinfo={274: orientation}, compression=compression)
    np.testing.assert_array_equal(read_image(tmp_path / "a.tif"), turn(noise, orientation))
    assert image_size(tmp_path / "a.tif") == turn(noise, orientation).shape[:2]


def test_white_is_zero(tmp_path):
    grey = np.arange(30, dtype=np.uint8).reshape(5, 6)
    tifffile.imwrite(tmp_path / "a.tif", 255 - grey, photometric="miniswhite")
    np.testing.assert_array_equal(read_image(tmp_path / "a.tif")[..., 0], grey)


def test_fourth_band_is_not_alpha(tmp_path):
    tifffile.imwrite(
        tmp_path / "a.tif", np.zeros((5, 6, 4), np.uint16), photometric="rgb", extrasamples=["unspecified"]
    )
    with pytest.raises(DataError, match="4 channels, 3 were asked"):
        read_image(tmp_path / "a.tif", channels=3)
    tifffile.imwrite(tmp_path / "b.tif", np.zeros((5, 6, 4), np.uint16), photometric="rgb", extrasamples=["unassalpha"])
    assert read_image(tmp_path / "b.tif", channels=3).shape == (5, 6, 3)


@pytest.mark.parametrize("dtype", ["f4", "f8", "i2", "i4", "u4"])
def test_tiff_of_other_types_is_explained(tmp_path, dtype):
    tifffile.imwrite(tmp_path / "a.tif", np.ones((5, 6), dtype))
    for call in (read_image, image_size):
        with pytest.raises(DataError, match=f"pixels of type {np.dtype(dtype)} were found, 8- or 16-bit") as error:
            call(tmp_path / "a.tif")
        assert fault(error) == "unsupported-file"


def test_stack_of_pages_is_explained(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((4, 5, 6), np.uint8), photometric="minisblack")
    with pytest.raises(DataError, match="write one file a page") as error:
        read_image(tmp_path / "a.tif")
    assert fault(error) == "unsupported-file"


def test_pages_that_no_metadata_explains(tmp_path):
    pages = [Image.fromarray(np.full((5, 6), value, np.uint8)) for value in (0, 1)]
    pages[0].save(tmp_path / "a.tif", save_all=True, append_images=pages[1:])
    with pytest.raises(DataError, match="several pages"):
        read_image(tmp_path / "a.tif")


def test_preview_page_is_passed_over(tmp_path, noise):
    with tifffile.TiffWriter(tmp_path / "a.tif") as tif:
        tif.write(noise, photometric="rgb", metadata=None)
        tif.write(noise[::2, ::2], photometric="rgb", subfiletype=1, metadata=None)
    np.testing.assert_array_equal(read_image(tmp_path / "a.tif"), noise)


def test_sixteen_bit_colour_that_needs_a_codec_is_refused(tmp_path, noise, monkeypatch):
    Image.fromarray(noise).save(tmp_path / "a.tif", compression="tiff_lzw")
    data = bytearray((tmp_path / "a.tif").read_bytes())
    with tifffile.TiffFile(tmp_path / "a.tif") as tif:
        where = tif.pages.first.tags["BitsPerSample"].valueoffset
    data[where : where + 6] = np.full(3, 16, "<u2").tobytes()
    (tmp_path / "a.tif").write_bytes(data)
    with pytest.raises(DataError, match="pip install imagecodecs") as error:
        read_image(tmp_path / "a.tif")
    assert fault(error) == "unsupported-file"


def test_missing_strips_are_damage_not_black(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", np.ones((64, 64, 3), np.uint8), photometric="rgb", rowsperstrip=8)
    data = (tmp_path / "a.tif").read_bytes()
    (tmp_path / "a.tif").write_bytes(data[:-2000])
    assert not read_header(tmp_path / "a.tif").complete
    with pytest.raises(DataError, match="cut off") as error:
        read_image(tmp_path / "a.tif")
    assert fault(error) == "truncated-image"


def test_palette_map_gives_indices(tmp_path):
    index = np.arange(30, dtype=np.uint8).reshape(5, 6)
    image = Image.frombytes("P", (6, 5), index.tobytes())
    image.putpalette(list(range(255, -1, -1)) * 3)
    image.save(tmp_path / "a.tif")
    np.testing.assert_array_equal(read_index_map(tmp_path / "a.tif"), index)
    assert read_image(tmp_path / "a.tif").shape == (5, 6, 3)
