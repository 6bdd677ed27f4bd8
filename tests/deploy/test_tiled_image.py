import numpy as np
import pytest
import tifffile
import torch
from PIL import Image

from clearsight.data.decode import read_image
from clearsight.deploy.tiled_image import match_depth, open_rows
from clearsight.errors import ConfigError, DataError, NotFound, ShapeError

RNG = np.random.default_rng(0)
COLOUR = RNG.integers(0, 256, (150, 101, 3), dtype=np.uint8)
GREY = RNG.integers(0, 65536, (150, 101), dtype=np.uint16)


def read_all(source, channels, step=37, kept=9):
    """Overlapping bands, put together; each must be what the one before was where they share rows."""
    with open_rows(source, channels) as rows:
        result, top = np.empty((*rows.size, channels), np.uint16), 0
        while top < rows.size[0]:
            bottom = min(top + step, rows.size[0])
            band = rows.read(max(0, top - kept), bottom)
            np.testing.assert_array_equal(band[: top - max(0, top - kept)], result[max(0, top - kept) : top])
            result[max(0, top - kept) : bottom] = band
            top = bottom
    return result


FORMS = {
    "tiles": {"tile": (32, 48)},
    "tiles, deflate, predictor": {"tile": (32, 48), "compression": "zlib", "predictor": True},
    "strips": {"rowsperstrip": 7, "compression": "zlib"},
    "one strip, raw": {"rowsperstrip": 1000},
    "one strip, deflate": {"rowsperstrip": 150, "compression": "zlib"},
    "big-endian, raw": {"byteorder": ">"},
    "big-endian, tiles": {"byteorder": ">", "tile": (16, 16)},
    "bigtiff": {"bigtiff": True, "tile": (64, 64)},
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("kind", ["colour", "planes", "deep grey", "white is zero"])
def test_a_tiff_in_parts_is_the_whole_tiff(tmp_path, form, kind):
    path = tmp_path / "a.tif"
    array, options = {
        "colour": (COLOUR, {"photometric": "rgb"}),
        "planes": (np.ascontiguousarray(COLOUR.transpose(2, 0, 1)), {"photometric": "rgb", "planarconfig": "separate"}),
        "deep grey": (GREY, {"photometric": "minisblack"}),
        "white is zero": (GREY, {"photometric": "miniswhite"}),
    }[kind]
    how = dict(FORMS[form])
    opening = {name: how.pop(name) for name in ("byteorder", "bigtiff") if name in how}
    with tifffile.TiffWriter(path, **opening) as tif:
        tif.write(array, metadata=None, **options, **how)
    channels = 3 if kind in ("colour", "planes") else 1
    expected = read_image(path)
    with open_rows(path, channels) as rows:
        assert type(rows).__name__ == "_TiffRows"
        assert rows.read(0, 20).dtype == expected.dtype
    np.testing.assert_array_equal(read_all(path, channels), expected)


def spoil(path, row, column):
    """Make one tile of a deflated TIFF undecodable; the file's structure stays whole."""
    with tifffile.TiffFile(path) as tif:
        page = tif.pages.first
        index = row * page.chunked[1] + column
        offset, count = page.dataoffsets[index], page.databytecounts[index]
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(b"\xff" * count)


def test_only_the_tiles_that_are_needed_are_decoded_and_a_damaged_one_is_named(tmp_path):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, COLOUR, tile=(32, 32), compression="zlib", photometric="rgb", metadata=None)
    spoil(path, 0, 1)
    spoil(path, 3, 2)
    with open_rows(path, 3) as rows:
        np.testing.assert_array_equal(rows.read(40, 80), COLOUR[40:80])
        np.testing.assert_array_equal(rows.read(64, 96), COLOUR[64:96])
        with pytest.raises(DataError, match=r"a.tif: tile \(row 3, column 2\) of the TIFF is damaged") as caught:
            rows.read(64, 97)
    assert caught.value.findings[0].id == "truncated-image"
    with open_rows(path, 3) as rows, pytest.raises(DataError, match=r"row 0, column 1"):
        rows.read(31, 32)


def test_a_tile_that_is_left_out_is_of_the_value_for_no_data(tmp_path):
    path = tmp_path / "a.tif"
    tiles = [np.full((16, 16), 7, np.uint8), None, np.full((16, 16), 9, np.uint8), None]
    tifffile.imwrite(path, iter(tiles), shape=(32, 32), dtype="uint8", tile=(16, 16), compression="zlib", metadata=None)
    expected = np.kron([[7, 0], [9, 0]], np.ones((16, 16), int))
    np.testing.assert_array_equal(read_all(path, 1)[..., 0], expected)


def test_a_file_that_was_cut_off_is_refused(tmp_path):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, COLOUR, tile=(32, 32), photometric="rgb", metadata=None)
    path.write_bytes(path.read_bytes()[:-40000])
    with pytest.raises(DataError, match="damaged or cut off"), open_rows(path, 3):
        pass


def test_channels_are_brought_to_those_of_the_model(tmp_path):
    grey, alpha = tmp_path / "g.tif", tmp_path / "a.tif"
    tifffile.imwrite(grey, COLOUR[..., 0], tile=(32, 32), metadata=None)
    tifffile.imwrite(
        alpha, COLOUR[..., [0, 1, 2, 0]], tile=(32, 32), photometric="rgb", extrasamples=["unassalpha"], metadata=None
    )
    np.testing.assert_array_equal(read_all(grey, 3), COLOUR[..., [0, 0, 0]])
    np.testing.assert_array_equal(read_all(alpha, 3), COLOUR)
    with pytest.raises(DataError, match="has 3 channels, the model takes 5"):
        read_all(_colour(tmp_path), 5)
    with pytest.raises(ShapeError, match="found 3 channels, the model takes 5"):
        read_all(COLOUR, 5)


def _colour(folder):
    path = folder / "colour.tif"
    tifffile.imwrite(path, COLOUR, tile=(32, 32), photometric="rgb", metadata=None)
    return path


def test_everything_else_is_read_whole(tmp_path):
    Image.fromarray(COLOUR).save(tmp_path / "a.png")
    Image.fromarray(COLOUR).save(tmp_path / "lzw.tif", compression="tiff_lzw")
    Image.fromarray(COLOUR).convert("P", palette=Image.Palette.ADAPTIVE).save(tmp_path / "palette.tif")
    turned = tmp_path / "turned.tif"
    tifffile.imwrite(turned, COLOUR, photometric="rgb", metadata=None, extratags=[(274, "H", 1, 6, True)])
    for name in ("a.png", "lzw.tif", "palette.tif", "turned.tif"):
        path = tmp_path / name
        np.testing.assert_array_equal(read_all(path, 3), read_image(path))
    for source in (COLOUR, torch.from_numpy(COLOUR).permute(2, 0, 1), Image.fromarray(COLOUR)):
        np.testing.assert_array_equal(read_all(source, 3), COLOUR)


def test_sources_that_are_no_image(tmp_path):
    (tmp_path / "text.tif").write_text("hello, I am no image")
    for name in ("a.png", "b.png"):
        Image.fromarray(COLOUR).save(tmp_path / name)
    for source, error, says in (
        (tmp_path / "missing.tif", NotFound, "no such file"),
        (tmp_path / "text.tif", DataError, "text.tif: the content is not an image"),
        (tmp_path / "*.png", ConfigError, "found 2 images"),
        (np.zeros((4, 4), np.float32), ShapeError, "found float32"),
    ):
        with pytest.raises(error, match=says), open_rows(source, 3):
            pass


def test_what_is_too_large_to_be_decoded_at_once_is_refused_unread(tmp_path):
    path = tmp_path / "a.tif"  # 30,000 × 30,000 pixels in one deflated strip of a few bytes
    tifffile.imwrite(path, GREY[:8, :8].astype(np.uint8), compression="zlib", rowsperstrip=8, metadata=None)
    with tifffile.TiffFile(path, mode="r+b") as tif:
        for name in ("ImageWidth", "ImageLength", "RowsPerStrip"):
            tif.pages.first.tags[name].overwrite(30000)
    with pytest.raises(DataError, match="30000 × 30000 pixels are more than the limit"), open_rows(path, 1):
        pass


def test_depth_follows_the_model():
    deep = np.array([0, 128, 257, 65535, 65407], np.uint16)
    np.testing.assert_array_equal(match_depth(deep, 255.0), np.array([0, 0, 1, 255, 255], np.uint8))
    shallow = np.arange(256, dtype=np.uint8)
    np.testing.assert_array_equal(match_depth(shallow, 65535.0), np.arange(256) * 257)
    assert match_depth(shallow, 65535.0).dtype == np.uint16
    np.testing.assert_array_equal(match_depth(match_depth(shallow, 65535.0), 255.0), shallow)
    assert match_depth(shallow, 255.0) is shallow
    assert match_depth(deep, 65535.0) is deep
