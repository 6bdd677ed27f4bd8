"""Decoding image files: the fastest decoder for each kind, EXIF turned, bit depth kept, channels as asked for.

Which decoder, by `benchmarks/decoders.py` (images a second from file to array, one thread, AMD EPYC; the same pixels on
every file, to the bit):

| | read_image | Pillow | torchvision | OpenCV |
| --- | --- | --- | --- | --- |
| JPEG 640 × 480 | 1554 | 805 | 1379 | 1338 |
| JPEG 100 × 100 | 10230 | 3828 | 8338 | 12110 |
| PNG 256 × 256 and up | 831 | 824 | 957 | 1008 |

So JPEGs are decoded by libjpeg-turbo through simplejpeg, where that is installed, and their headers are read here;
Pillow decodes them elsewhere, at the speed of its column. PNGs stay with Pillow: torchvision's decoders are 1.15 times
as fast, and deprecated. TIFF is read by tifffile, which keeps 16 bits and any number of channels.
"""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from clearsight.data.image_header import MAX_PIXELS, ImageHeader, parse_header, read_bytes, read_header
from clearsight.data.pillow_image import deep_colour_of, image_error, open_plugin, pixels_of

if TYPE_CHECKING:
    from types import ModuleType

    from PIL import ImageFile

try:
    import simplejpeg as _simplejpeg
except ImportError:
    _simplejpeg: ModuleType | None = None

__all__ = [
    "MAX_PIXELS",
    "image_size",
    "read_bytes_as_index_map",
    "read_image",
    "read_index_map",
    "strict_jpeg_error",
    "turn",
]


def image_size(path: Path, *, max_pixels: int | None = MAX_PIXELS) -> tuple[int, int]:
    """`(height, width)` of an image after its EXIF turn, from the header alone.

    Raises:
        DataError: as `image_header.read_header`.
    """
    return read_header(Path(path), max_pixels=max_pixels).size


def read_image(path: Path, *, channels: int | None = None, max_pixels: int | None = MAX_PIXELS) -> np.ndarray:
    """Decode an image file.

    Grey, grey with alpha, RGB, RGBA, palette (to RGB, or RGBA where it has transparency), bilevel (to 0 and 255), CMYK
    (to RGB), 16-bit PNG and TIFF, TIFF of any number of channels. Of an animation the first frame is read.

    Args:
        path: the image file; its kind is told by its first bytes, not by its name.
        channels: how many are wanted: alpha is dropped and grey is repeated to reach them; None takes the file's own.
        max_pixels: width × height above which the file is refused before decoding, which protects against small files
            that expand without bound (decompression bombs); give a higher number, or None, for images that are
            meant to be that large.

    Returns:
        `(h, w, c)` uint8 or uint16, C-contiguous, writable, native byte order, EXIF orientation applied.

    Raises:
        DataError: names the file and carries one finding: `missing-image`, `empty-file`, `unsupported-file`,
            `truncated-image`, `decompression-bomb` or `channel-mismatch`.
    """
    path = Path(path)
    data = read_bytes(path)
    header, image = parse_header(BytesIO(data), path, max_pixels=max_pixels)
    array, orientation = _decode(data, header, image, path)
    if channels is not None and array.shape[2] != channels:
        array = _with_channels(array, channels, alpha=header.alpha, path=path)
    if orientation != 1:
        return _turned(array, orientation)
    return array if array.flags.writeable and array.flags.c_contiguous else array.copy(order="C")


def read_index_map(path: Path, *, max_pixels: int | None = MAX_PIXELS) -> np.ndarray:
    """Decode a map of indices: class or instance numbers, one a pixel.

    A palette image gives its palette indices, not its colours; a bilevel image gives 0 and 1.

    Returns:
        `(h, w)` uint8 or uint16.

    Raises:
        DataError: as `read_image`; colour images and lossy JPEG are an `unsupported-file`.
    """
    path = Path(path)
    return read_bytes_as_index_map(read_bytes(path), path, max_pixels=max_pixels)


def read_bytes_as_index_map(data: bytes, path: Path, *, max_pixels: int | None = MAX_PIXELS) -> np.ndarray:
    """`read_index_map` of a file's content; `path` is for messages."""
    header, image = parse_header(BytesIO(data), path, max_pixels=max_pixels)
    if header.format == "JPEG":
        raise image_error(
            "unsupported-file", path, "JPEG changes pixel values, a map of indices cannot be one; use PNG"
        )
    array, orientation = _decode(data, header, image, path, indices=True)
    if array.shape[2] != 1 + (array.shape[2] == 2 and header.alpha):
        raise image_error(
            "unsupported-file",
            path,
            f"the map has {array.shape[2]} colour channels, one index a pixel was expected; "
            "save it as a grey or palette PNG",
        )
    return np.ascontiguousarray(turn(array, orientation)[..., 0])


def turn(array: np.ndarray, orientation: int) -> np.ndarray:
    """Apply an EXIF orientation.

    Args:
        array: `(h, w, …)` as stored.
        orientation: 1–8.

    Returns:
        A view `(h, w, …)` as it is meant to be seen; height and width change places for 5–8.
    """
    if orientation >= 5:
        array = array.swapaxes(0, 1)  # 5: mirrored along the main diagonal; the rest are 5 and a flip
    down, right = _FLIPS[orientation]
    return array[:: -1 if down else 1, :: -1 if right else 1]


def _turned(array: np.ndarray, orientation: int) -> np.ndarray:
    """`turn` as an array of its own, one channel after the other: four times as fast as NumPy's copy of the view."""
    view = turn(array, orientation)
    result = np.empty(view.shape, view.dtype)
    for channel in range(view.shape[2]):
        result[..., channel] = view[..., channel]
    return result


# Orientation: whether rows, and columns, run backwards (after the swap of axes for 5-8).
_FLIPS = {
    1: (False, False),
    2: (False, True),
    3: (True, True),
    4: (True, False),
    5: (False, False),
    6: (False, True),
    7: (True, True),
    8: (True, False),
}


def _decode(
    data: bytes, header: ImageHeader, image: ImageFile.ImageFile | None, path: Path, *, indices: bool = False
) -> tuple[np.ndarray, int]:
    """Pixels as stored, and the orientation that is still to be applied."""
    if header.format == "TIFF":
        from clearsight.data.tiff import read_tiff  # tifffile takes 0.1 s to import

        return read_tiff(data, path, header, indices=indices)
    if image is None:  # a plain JPEG
        array = _fast_jpeg(data, header.channels)
        if array is not None:
            return array, header.orientation
        image = open_plugin(BytesIO(data), header.format, path)
    if header.format == "PNG" and header.bits == 16 and header.channels > 1:
        return deep_colour_of(image, data, path), header.orientation
    return pixels_of(image, path, indices=indices), header.orientation


def _fast_jpeg(data: bytes, channels: int) -> np.ndarray | None:
    """By libjpeg-turbo directly; None where that is not installed or the file has flaws.

    Those go to Pillow, which says what is wrong, or forgives it.
    """
    if _simplejpeg is None:
        return None
    try:
        return _simplejpeg.decode_jpeg(data, colorspace="GRAY" if channels == 1 else "RGB")
    except ValueError:
        return None


def strict_jpeg_error(data: bytes) -> str | None:
    """What a decoder that forgives nothing says of a JPEG: empty for a flawless one, None where it cannot tell."""
    if _simplejpeg is None:
        return None
    try:
        colours = _simplejpeg.decode_jpeg_header(data)[2]
        if colours in ("YCbCr", "RGB", "Gray"):
            _simplejpeg.decode_jpeg(data, colorspace="GRAY" if colours == "Gray" else "RGB")
            return ""
    except ValueError as err:
        return str(err)
    return None


def _with_channels(array: np.ndarray, wanted: int, *, alpha: bool, path: Path) -> np.ndarray:
    """Alpha dropped, grey repeated; anything else is a mismatch."""
    found = array.shape[2]
    colours = array[..., :-1] if alpha else array
    if colours.shape[2] == wanted:
        return colours
    if colours.shape[2] == 1:
        return np.repeat(colours, wanted, axis=2)
    raise image_error(
        "channel-mismatch",
        path,
        f"the image has {found} channels, {wanted} were asked for; set data.channels to {colours.shape[2]}, or convert "
        "the file (only alpha is dropped and only grey is repeated by itself)",
    )
