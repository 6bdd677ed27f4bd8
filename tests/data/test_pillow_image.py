"""Pillow's plugins: pixels as plain arrays, and what damaged files become."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from clearsight.data.pillow_image import deep_colour_of, image_error, open_plugin, orientation_of, pixels_of
from clearsight.errors import DataError

NAME = Path("a.png")


@pytest.mark.parametrize("channels", [3, 4])
def test_deep_colour_is_exact(channels):
    deep = np.random.default_rng(1).integers(0, 65536, (9, 7, channels), dtype=np.uint16)
    ok, data = cv2.imencode(".png", deep[..., [2, 1, 0, *range(3, channels)]])  # OpenCV writes BGR
    assert ok
    image = open_plugin(BytesIO(data.tobytes()), "PNG", NAME)
    np.testing.assert_array_equal(deep_colour_of(image, data.tobytes(), NAME), deep)


def test_indices_or_colours():
    image = Image.frombytes("P", (2, 1), bytes([1, 0]))
    image.putpalette([10, 20, 30, 40, 50, 60])
    assert pixels_of(image, NAME).tolist() == [[[40, 50, 60], [10, 20, 30]]]
    assert pixels_of(image, NAME, indices=True).tolist() == [[[1], [0]]]


def test_integers_within_sixteen_bits_are_kept():
    assert pixels_of(Image.fromarray(np.array([[0, 65535]], np.int32)), NAME).dtype == np.uint16
    for values in ([[0, 65536]], [[-1, 0]]):
        with pytest.raises(DataError, match="8- or 16-bit unsigned") as error:
            pixels_of(Image.fromarray(np.array(values, np.int32)), NAME)
        assert error.value.findings[0].id == "unsupported-file"


@pytest.mark.filterwarnings("ignore")  # Pillow warns of it
def test_damaged_exif_does_not_lose_the_image():
    buffer = BytesIO()
    Image.new("RGB", (4, 4)).save(buffer, "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\x7f")
    buffer.seek(0)
    assert orientation_of(open_plugin(buffer, "JPEG", NAME)) == 1


def test_damaged_header():
    with pytest.raises(DataError, match="the PNG header is damaged or cut off") as error:
        open_plugin(BytesIO(b"\x89PNG\r\n\x1a\n\0\0"), "PNG", NAME)
    assert error.value.findings[0].id == "truncated-image"


def test_error_can_be_printed_whatever_the_name():
    error = image_error("missing-image", Path("caf\udce9.jpg"), "gone")
    assert str(error) == "caf\\xe9.jpg: gone"
    assert error.findings[0].where == "caf\\xe9.jpg"
