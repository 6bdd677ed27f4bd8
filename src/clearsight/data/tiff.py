"""TIFF: 8- and 16-bit images of any number of channels, planar or contiguous, through tifffile.

Pillow takes over for what tifffile needs further packages for (LZW, JPEG, fax compression) or leaves raw (palettes,
CMYK), as far as Pillow keeps the bit depth and the channels.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

import numpy as np
import tifffile

from clearsight.data.image_header import ImageHeader
from clearsight.data.pillow_image import PILLOW_ERRORS, image_error, open_plugin, pixels_of

__all__ = ["read_tiff", "tiff_header"]

# What it logs on damaged files becomes a finding; without a handler it would also go to the terminal.
logging.getLogger("tifffile").addHandler(logging.NullHandler())

_ALPHA = (1, 2)  # ExtraSamples: associated, unassociated
_WHITE_IS_ZERO = 0  # Photometric
_PALETTE = 3
_GREY_OR_RGB = (_WHITE_IS_ZERO, 1, 2)
# What tifffile raises on damaged files.
_TIFF_ERRORS = (*PILLOW_ERRORS, tifffile.TiffFileError, ArithmeticError, AttributeError, MemoryError)


def tiff_header(file: BinaryIO, path: Path) -> ImageHeader:
    """The header of an open TIFF file; its pixels are not read.

    Raises:
        DataError: damaged (`truncated-image`), or a stack of several pages, or pixels that are not 8- or 16-bit
            unsigned integers (`unsupported-file`).
    """
    with _opened(file, path) as tif:
        return _header(tif, path)


def read_tiff(data: bytes, path: Path, header: ImageHeader, *, indices: bool = False) -> tuple[np.ndarray, int]:
    """Decode; with `indices`, a palette image gives its palette indices.

    Returns:
        `(h, w, c)` uint8 or uint16, and the EXIF orientation that is still to be applied.

    Raises:
        DataError: damaged (`truncated-image`), or a compression that needs a further package (`unsupported-file`).
    """
    if not header.complete:  # decoding would fill millions of missing strips with zeros
        raise image_error("truncated-image", path, "the TIFF is damaged or cut off; copy it again or remove it")
    with _opened(BytesIO(data), path) as tif:
        page = tif.pages.first
        kinds = (*_GREY_OR_RGB, _PALETTE) if indices else _GREY_OR_RGB
        if int(page.photometric) in kinds and page.bitspersample in (8, 16):
            try:
                return _channels_last(_picture(tif, path), page), header.orientation
            except ValueError as err:
                if "imagecodecs" not in str(err):
                    raise
    return _by_pillow(data, header, path, indices=indices), 1


@contextmanager
def _opened(file: BinaryIO, path: Path) -> Iterator[tifffile.TiffFile]:
    """The open file; whatever tifffile raises on damaged ones becomes a `DataError`."""
    try:
        with tifffile.TiffFile(file) as tif:
            yield tif
    except _TIFF_ERRORS as err:
        if getattr(err, "findings", None):  # ours already
            raise
        raise image_error(
            "truncated-image", path, f"the TIFF is damaged or cut off ({err}); copy it again or remove it"
        ) from err


def _picture(tif: tifffile.TiffFile, path: Path) -> tifffile.TiffPage | tifffile.TiffPageSeries:
    """The first page, or the first series where the file's metadata says that pages are channels.

    `tif.series` alone would do, but follows chains of thousands of pages in damaged files for minutes.

    Raises:
        DataError: further pages of which no metadata says what they are.
    """
    first = tif.pages.first
    try:
        second = tif.pages[1]
    except IndexError:
        return first
    if tif.is_imagej or tif.is_ome or tif.is_shaped:
        return tif.series[0]
    if isinstance(second, tifffile.TiffPage) and second.is_reduced:  # a preview
        return first
    raise image_error("unsupported-file", path, "the TIFF has several pages, one was expected; write one file a page")


def _named_axes(picture: tifffile.TiffPage | tifffile.TiffPageSeries) -> tuple[list[str], list[int]]:
    """Axes and lengths without those of length one, Y and X always kept."""
    pairs = [(name, n) for name, n in zip(picture.axes, picture.shape, strict=True) if n > 1 or name in "YX"]
    return [name for name, _ in pairs], [n for _, n in pairs]


def _header(tif: tifffile.TiffFile, path: Path) -> ImageHeader:
    page, picture = tif.pages.first, _picture(tif, path)
    axes, lengths = _named_axes(picture)
    if sorted("".join(axes).replace("C", "S")) not in (["X", "Y"], ["S", "X", "Y"]):
        raise image_error(
            "unsupported-file",
            path,
            f"the TIFF is a stack with axes {picture.axes} of {picture.shape}, one image was expected; "
            "write one file a page",
        )
    kind = np.dtype(picture.dtype)
    if kind not in (np.uint8, np.uint16, np.bool_):
        raise image_error(
            "unsupported-file",
            path,
            f"pixels of type {kind} were found, 8- or 16-bit unsigned integers were expected; scale the values and "
            "save them as uint16",
        )
    grey_or_rgb = int(page.photometric) in _GREY_OR_RGB
    channels = 3  # of palettes, CMYK, YCbCr
    if grey_or_rgb:
        channels = next((n for name, n in zip(axes, lengths, strict=True) if name in "SC"), 1)
    extras = [int(sample) for sample in page.extrasamples]
    tag = page.tags.get("Orientation")
    turn = tag.value if tag is not None and tag.value in range(1, 9) else 1
    height, width = page.imagelength, page.imagewidth
    ends = [offset + count for offset, count in zip(page.dataoffsets, page.databytecounts, strict=False)]
    return ImageHeader(
        format="TIFF",
        size=(height, width) if turn < 5 else (width, height),
        orientation=turn,
        channels=channels,
        bits=16 if kind == np.uint16 else 8,
        alpha=grey_or_rgb and channels in (2, 4) and bool(extras) and extras[-1] in _ALPHA,
        complete=math.prod(page.chunked) == len(ends) > 0 and max(ends) <= tif.filehandle.size,
    )


def _channels_last(picture: tifffile.TiffPage | tifffile.TiffPageSeries, page: tifffile.TiffPage) -> np.ndarray:
    axes, lengths = _named_axes(picture)
    array = picture.asarray().reshape(lengths)
    if len(axes) == 2:
        array = array[..., None]
    elif axes[0] in "SC":
        array = np.moveaxis(array, 0, -1)
    if int(page.photometric) == _WHITE_IS_ZERO:
        array = np.iinfo(array.dtype).max - array
    return np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("="))


def _by_pillow(data: bytes, header: ImageHeader, path: Path, *, indices: bool) -> np.ndarray:
    """Compressions and colour spaces that tifffile alone does not decode; Pillow turns the image itself."""
    if header.bits == 16 and header.channels > 1:  # Pillow would reduce them to 8 bits
        raise image_error(
            "unsupported-file",
            path,
            f"this TIFF's compression needs a further package for {header.channels} channels of 16 bits; "
            "run: pip install imagecodecs, or save the file uncompressed",
        )
    return pixels_of(open_plugin(BytesIO(data), "TIFF", path), path, indices=indices)
