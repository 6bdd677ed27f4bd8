"""Pillow, opened one plugin at a time: the header of a file, then its pixels as an array.

A file is opened by the plugin that its first bytes call for, never by its name, and never by plugins that run other
programs (EPS, WMF). `Image.open` is not used: its limit on pixels is a process-wide global, ours is an argument.
"""

from __future__ import annotations

import struct
import zlib
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import ExifTags, Image, ImageFile

from clearsight.data.files import printable
from clearsight.errors import DataError
from clearsight.types import Finding

__all__ = ["PILLOW_ERRORS", "deep_colour_of", "image_error", "open_plugin", "orientation_of", "pixels_of"]

# What Pillow's plugins raise on damaged headers and pixels; UserWarning where warnings are made errors.
PILLOW_ERRORS = (
    OSError,
    SyntaxError,
    ValueError,
    IndexError,
    TypeError,
    KeyError,
    EOFError,
    RuntimeError,
    UserWarning,
    struct.error,
    zlib.error,
)


def image_error(fault: str, path: Path, explanation: str) -> DataError:
    """A `DataError` about one image that carries its finding.

    Args:
        fault: finding id, for example `truncated-image`.
        path: the image file.
        explanation: what was found, what was expected, what to do; without the file's name.
    """
    finding = Finding(id=fault, severity="error", where=printable(path), explanation=explanation, action="dropped")
    return DataError(f"{printable(path)}: {explanation}", [finding])


def open_plugin(file: BinaryIO, kind: str, path: Path) -> ImageFile.ImageFile:
    """Let Pillow's plugin for `kind` ("JPEG", "PNG", …) parse the header; pixels stay undecoded.

    Raises:
        DataError: the header is damaged (`truncated-image`), or this Pillow lacks the plugin (`unsupported-file`).
    """
    if kind not in Image.OPEN:
        Image.init()
    if kind not in Image.OPEN:
        raise image_error("unsupported-file", path, f"this Pillow was built without {kind}; convert the file to PNG")
    try:
        return Image.OPEN[kind][0](file, printable(path))  # pyright: ignore[reportReturnType]
    except PILLOW_ERRORS as err:
        raise image_error(
            "truncated-image", path, f"the {kind} header is damaged or cut off ({err}); copy it again or remove it"
        ) from err


def orientation_of(image: Image.Image) -> int:
    """EXIF orientation 1–8; 1 where there is none or it is not one of those. Nothing is decoded.

    A PNG may carry its EXIF chunk behind its pixels; such a late chunk is not looked for.
    """
    try:
        # The base class's method: PNG's own decodes the pixels first, and what fails then would be lost here.
        turn = Image.Image.getexif(image).get(ExifTags.Base.Orientation, 1)
    except PILLOW_ERRORS:  # a damaged EXIF block is no reason to lose the image
        return 1
    return turn if isinstance(turn, int) and 1 <= turn <= 8 else 1


def pixels_of(image: Image.Image, path: Path, *, indices: bool = False) -> np.ndarray:
    """Decode: `(h, w, c)` uint8 or uint16, before any EXIF turn (TIFF excepted: Pillow turns those itself).

    Bilevel pixels become 0 and 255; palettes become RGB, or RGBA where they have transparency; CMYK, YCbCr and HSV
    become RGB. With `indices`, bilevel pixels become 0 and 1 and palette images give their palette indices.

    Raises:
        DataError: the pixels are damaged or cut off (`truncated-image`), or neither 8- nor 16-bit (`unsupported-file`).
    """
    try:
        array = np.asarray(image if indices else _plain(image))
    except (*PILLOW_ERRORS, MemoryError) as err:
        raise image_error(
            "truncated-image", path, f"the pixels are damaged or cut off ({err}); copy the file again or remove it"
        ) from err
    if array.dtype == np.bool_:
        array = array.astype(np.uint8)
    elif array.dtype == np.int32 and array.size and array.min() >= 0 and array.max() <= 65535:
        array = array.astype(np.uint16)
    if array.dtype.kind != "u" or array.dtype.itemsize > 2:
        raise image_error(
            "unsupported-file",
            path,
            f"pixels of type {image.mode!r} ({array.dtype}) were found, 8- or 16-bit unsigned integers were expected; "
            "scale the values and save them as uint16",
        )
    array = array.astype(array.dtype.newbyteorder("="), copy=False)
    return array if array.ndim == 3 else array[..., None]


def deep_colour_of(image: ImageFile.ImageFile, data: bytes, path: Path) -> np.ndarray:
    """Decode a 16-bit colour PNG, of which Pillow by itself keeps the high bytes only.

    Read as big-endian it gives the high bytes, read as little-endian the low ones; so it is decoded twice.

    Args:
        image: as `open_plugin` gives it.
        data: the whole file.
        path: for messages.

    Returns:
        `(h, w, c)` uint16.

    Raises:
        DataError: as `pixels_of`.
    """
    low = open_plugin(BytesIO(data), "PNG", path)
    low.tile = [tile._replace(args=str(tile.args).replace(";16B", ";16L")) for tile in low.tile]
    return pixels_of(image, path).astype(np.uint16) << 8 | pixels_of(low, path)


def _plain(image: Image.Image) -> Image.Image:
    """Palettes, bilevel and other colour spaces as grey, RGB or RGBA."""
    if image.mode == "1":
        return image.convert("L")
    if image.mode in ("P", "PA"):
        return image.convert("RGBA" if image.mode == "PA" or "transparency" in image.info else "RGB")
    if image.mode in ("CMYK", "YCbCr", "HSV"):
        return image.convert("RGB")
    return image
