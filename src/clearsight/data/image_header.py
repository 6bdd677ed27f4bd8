"""What an image file says of itself before its pixels are decoded: format, size, channels, EXIF turn, completeness."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from PIL import ImageFile

from clearsight.data.jpeg_header import HEAD_BYTES, JpegHeader, scan_jpeg
from clearsight.data.pillow_image import image_error, open_plugin, orientation_of
from clearsight.errors import DataError

__all__ = ["MAX_PIXELS", "ImageHeader", "parse_header", "read_bytes", "read_header"]

MAX_PIXELS = 178_956_970
"""Width × height above which an image is refused unread, as Pillow does (half a gigabyte as RGB)."""

# Offset, bytes there, Pillow's plugin. AVIF and WebP name themselves after a length.
_MAGIC: tuple[tuple[int, bytes, str], ...] = (
    (0, b"\xff\xd8\xff", "JPEG"),
    (0, b"\x89PNG\r\n\x1a\n", "PNG"),
    *((0, mark, "TIFF") for mark in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")),
    (0, b"BM", "BMP"),
    (0, b"GIF87a", "GIF"),
    (0, b"GIF89a", "GIF"),
    (8, b"WEBP", "WEBP"),
    (0, b"\0\0\0\x0cjP  \r\n\x87\n", "JPEG2000"),
    (0, b"\xff\x4f\xff\x51", "JPEG2000"),
    (4, b"ftypavif", "AVIF"),
    *((0, b"P%d" % kind, "PPM") for kind in range(1, 7)),
)

# Mode: channels after decoding, bits, whether the last channel is alpha.
_MODES: dict[str, tuple[int, int, bool]] = {
    **dict.fromkeys(("1", "L"), (1, 8, False)),
    **dict.fromkeys(("P", "RGB", "CMYK", "YCbCr", "HSV"), (3, 8, False)),
    **dict.fromkeys(("I;16", "I;16B", "I;16L", "I"), (1, 16, False)),
    **dict.fromkeys(("PA", "RGBA"), (4, 8, True)),
    "LA": (2, 8, True),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageHeader:
    """An image file's own account of itself.

    Args:
        format: `JPEG`, `PNG`, `TIFF`, …, by the file's first bytes.
        size: `(height, width)` after the EXIF turn: the size of the array that `read_image` gives.
        orientation: EXIF orientation 1–8; 1 where the file has none or a value that does not exist.
        channels: channels of the array that `read_image` gives when it is not asked for a number.
        bits: 8 or 16 a channel.
        alpha: whether the last channel is alpha.
        complete: False when the file's end looks cut off, or no cheap look can tell; then only decoding can.
    """

    format: str
    size: tuple[int, int]
    orientation: int
    channels: int
    bits: int
    alpha: bool
    complete: bool


def read_header(path: Path, *, max_pixels: int | None = MAX_PIXELS) -> ImageHeader:
    """Size, channels and EXIF turn of an image file, without decoding its pixels.

    Args:
        path: the image file; its format is told by its first bytes, not by its name.
        max_pixels: width × height above which the file is refused; None for no limit.

    Raises:
        DataError: with one finding: `missing-image`, `empty-file`, `unsupported-file` (no image, or a kind that is not
            read), `truncated-image` (damaged header) or `decompression-bomb` (more pixels than `max_pixels`).

    Cost: one open and a few kilobytes.
    """
    try:
        with path.open("rb") as file:
            return parse_header(file, path, max_pixels=max_pixels)[0]
    except OSError as err:
        raise _unreadable(path, err) from err


def read_bytes(path: Path) -> bytes:
    """The whole file.

    Raises:
        DataError: the file is missing or cannot be opened (`missing-image`).
    """
    try:
        return path.read_bytes()
    except OSError as err:
        raise _unreadable(path, err) from err


def _unreadable(path: Path, err: OSError) -> DataError:
    if isinstance(err, FileNotFoundError):
        return image_error("missing-image", path, "the file does not exist; restore it or remove its label")
    why = err.strerror or str(err)
    return image_error("missing-image", path, f"the file cannot be read ({why}); check what it is and its permissions")


def parse_header(
    file: BinaryIO, path: Path, *, max_pixels: int | None
) -> tuple[ImageHeader, ImageFile.ImageFile | None]:
    """The header of an open file, and the lazily opened Pillow image.

    The image is None for TIFF, which tifffile reads, and for plain JPEGs, whose header Pillow need not look at.

    Raises:
        DataError: as `read_header`.
    """
    start = file.read(32)
    if not start:
        raise image_error("empty-file", path, "the file has zero bytes; copy it again or remove it")
    kind = next((name for offset, magic, name in _MAGIC if start.startswith(magic, offset)), None)
    if kind is None:
        known = ", ".join(sorted({name for _, _, name in _MAGIC}))
        raise image_error(
            "unsupported-file",
            path,
            f"the content is not an image of a kind that is read here ({known}); convert or remove it",
        )
    file.seek(0)
    if kind == "TIFF":
        from clearsight.data.tiff import tiff_header  # tifffile takes 0.1 s to import

        header, image = tiff_header(file, path), None
    elif kind == "JPEG" and (plain := scan_jpeg(file.read(HEAD_BYTES))) is not None:
        header, image = _plain_jpeg(plain, file), None
    else:
        file.seek(0)
        image = open_plugin(file, kind, path)
        header = _pillow_header(image, file, kind, path)
    height, width = header.size
    if max_pixels is not None and height * width > max_pixels:
        raise image_error(
            "decompression-bomb",
            path,
            f"the header says {width} × {height} pixels, the limit is {max_pixels} in all; it was not decoded. If it "
            "is meant to be that large, cut it into tiles or call read_image with a higher max_pixels",
        )
    return header, image


def _plain_jpeg(found: JpegHeader, file: BinaryIO) -> ImageHeader:
    turned = found.orientation >= 5
    return ImageHeader(
        format="JPEG",
        size=(found.width, found.height) if turned else (found.height, found.width),
        orientation=found.orientation,
        channels=found.components,
        bits=8,
        alpha=False,
        complete=_ENDS["JPEG"](file),
    )


def _pillow_header(image: ImageFile.ImageFile, file: BinaryIO, kind: str, path: Path) -> ImageHeader:
    if image.mode not in _MODES:
        raise image_error(
            "unsupported-file",
            path,
            f"pixels of type {image.mode!r} were found, 8- or 16-bit integers were expected; convert the file",
        )
    channels, bits, alpha = _MODES[image.mode]
    if image.mode == "P" and "transparency" in image.info:
        channels, alpha = 4, True
    if kind == "PNG" and _peek(file, 24, 1) == b"\x10":
        bits = 16  # Pillow would reduce 16-bit colour to 8; read_image does not
    turn = orientation_of(image)
    width, height = image.size
    return ImageHeader(
        format=kind,
        size=(height, width) if turn < 5 else (width, height),
        orientation=turn,
        channels=channels,
        bits=bits,
        alpha=alpha,
        complete=kind in _ENDS and _ENDS[kind](file),
    )


def _peek(file: BinaryIO, offset: int, count: int) -> bytes:
    """Bytes at an offset (from the end when negative); the position is kept, since Pillow reads on from it."""
    before = file.tell()
    if offset < 0:
        offset = max(0, file.seek(0, os.SEEK_END) + offset)
    file.seek(offset)
    data = file.read(count)
    file.seek(before)
    return data


def _riff_ends(file: BinaryIO) -> bool:
    length = int.from_bytes(_peek(file, 4, 4), "little") + 8
    return len(_peek(file, length - 1, 1)) == 1


# How a whole file ends; kinds that are not listed have no mark.
_ENDS: dict[str, Callable[[BinaryIO], bool]] = {
    "JPEG": lambda file: _peek(file, -64, 64).rstrip(b"\0\r\n ").endswith(b"\xff\xd9"),
    "PNG": lambda file: b"IEND\xaeB`\x82" in _peek(file, -64, 64),
    "GIF": lambda file: _peek(file, -1, 1) == b";",
    "WEBP": _riff_ends,
}
