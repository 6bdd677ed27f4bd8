"""The rows of an image, from top to bottom, as they are asked for; of a TIFF only those are decoded."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import tifffile

from clearsight.data.decode import read_image
from clearsight.data.image_header import ImageHeader, read_header
from clearsight.data.pillow_image import PILLOW_ERRORS, image_error
from clearsight.deploy.sources import Source, list_items
from clearsight.errors import ConfigError

__all__ = ["ImageRows", "match_depth", "open_rows"]

_LIMIT = 2**29
"""Pixels that are decoded at once at most: a file that is not read in parts, or one strip or tile of one that is."""
_DAMAGE = (*PILLOW_ERRORS, tifffile.TiffFileError, ArithmeticError, AttributeError, NotImplementedError, MemoryError)
_WHITE_IS_ZERO, _GREY, _RGB = 0, 1, 2  # Photometric


class ImageRows(Protocol):
    """An image that gives its rows in order.

    Attributes:
        name: for messages.
        size: `(height, width)`.
    """

    name: str
    size: tuple[int, int]

    def read(self, top: int, bottom: int) -> np.ndarray:
        """Rows `(bottom - top, w, c)`, uint8 or uint16; neither `top` nor `bottom` may fall from call to call."""
        ...


@contextmanager
def open_rows(source: Source, channels: int) -> Iterator[ImageRows]:
    """Open one image.

    A TIFF of one page, upright, in tiles or strips that tifffile decodes by itself (uncompressed, deflate, PackBits;
    all with the package imagecodecs) is read as far as rows are asked for. All else is decoded whole.

    Args:
        source: an image file, an array `(h, w)` or `(h, w, c)`, a tensor `(c, h, w)` or a PIL image.
        channels: wanted; alpha is dropped and grey repeated to reach them.

    Raises:
        NotFound: there is no such file.
        ConfigError: several images.
        DataError: the file is no image, is damaged, has other channels, or is too large to be decoded at once.
        ShapeError: an array is no image, or has other channels.
        RangeError: a float tensor is outside [0, 1].
    """
    items = list_items(source)
    if len(items) != 1:
        raise ConfigError(f"image: found {len(items)} images, tiled prediction takes one at a time")
    path = items[0].path
    if path is None:
        yield _Held("image", items[0].read(channels))
        return
    header = read_header(path, max_pixels=None)
    if header.format == "TIFF":
        with _opened(path) as tif:
            if _in_parts(tif.pages.first, header):
                yield _TiffRows(tif, path, header, channels)
                return
    _refuse_large(path, header.size, f"this kind of {header.format} file is decoded")
    yield _Held(str(path), read_image(path, channels=channels, max_pixels=None))


def match_depth(pixels: np.ndarray, scale: float) -> np.ndarray:
    """8 bits to 16 or back, where a model was trained on the other.

    Args:
        pixels: uint8 or uint16, of any shape.
        scale: largest value of the pixels that the model was trained on, 255 or 65535.
    """
    if pixels.dtype == np.uint8 and scale > 255:
        return pixels.astype(np.uint16) * np.uint16(257)
    if pixels.dtype == np.uint16 and scale <= 255:
        return ((pixels.astype(np.uint32) + 128) // 257).astype(np.uint8)
    return pixels


@contextmanager
def _opened(path: Path) -> Iterator[tifffile.TiffFile]:
    try:
        tif = tifffile.TiffFile(path)
    except _DAMAGE as err:
        raise image_error("truncated-image", path, f"the TIFF cannot be opened ({err}); copy it again") from err
    with tif:
        yield tif


def _refuse_large(path: Path, size: tuple[int, int], what: str) -> None:
    if size[0] * size[1] > _LIMIT:
        raise image_error(
            "decompression-bomb",
            path,
            f"{what} at once, and {size[1]} × {size[0]} pixels are more than the limit of {_LIMIT}; save it as a TIFF "
            "in tiles of 256 × 256, uncompressed or by deflate, which is read in parts",
        )


def _in_parts(page: Any, header: ImageHeader) -> bool:  # noqa: ANN401 - TiffPage, or a frame, which has the same
    """Whether the first page is the image as it is meant to be seen, of a kind that tifffile can decode here."""
    plain = (
        header.orientation == 1
        and header.complete
        and int(page.photometric) in (_WHITE_IS_ZERO, _GREY, _RGB)
        and page.bitspersample in (8, 16)
        and (page.imagelength, page.imagewidth, page.samplesperpixel) == (*header.size, header.channels)
        and page.imagedepth == page.tiledepth == 1
    )
    if not plain:
        return False
    rows, width = (page.tilelength, page.tilewidth) if page.is_tiled else (page.rowsperstrip, page.imagewidth)
    if _is_raw(page):
        return True
    if min(rows, page.imagelength) * width > _LIMIT:  # a corner would be as dear as the whole
        return False
    try:
        page.decode(b"", 0)
    except (ValueError, NotImplementedError) as err:
        return "imagecodecs" not in str(err) and not isinstance(err, NotImplementedError)
    except _DAMAGE:  # nothing decodes to a tile; what counts is that there is a decoder
        return True
    return True


def _is_raw(page: Any) -> bool:  # noqa: ANN401
    """Whether pixels lie in the file as in an array, so that any rows can be read."""
    return not page.is_tiled and page.is_contiguous and page.fillorder == 1 and page.predictor == 1


class _Held:
    """An image in memory."""

    def __init__(self, name: str, pixels: np.ndarray) -> None:
        self.name = name
        self.size = (pixels.shape[0], pixels.shape[1])
        self._pixels = pixels

    def read(self, top: int, bottom: int) -> np.ndarray:
        return self._pixels[top:bottom]


class _TiffRows:
    """An open TIFF; rows of tiles, or strips, are decoded when they are needed and forgotten when they are passed."""

    def __init__(self, tif: tifffile.TiffFile, path: Path, header: ImageHeader, channels: int) -> None:
        self.name = str(path)
        self.size = header.size
        self._path = path
        self._page: Any = tif.pages.first
        self._file = tif.filehandle
        self._found = header.channels
        self._alpha = header.alpha
        self._type = np.dtype(np.uint16 if header.bits == 16 else np.uint8)
        self._stored = self._type.newbyteorder(tif.byteorder)
        self._wanted = channels
        self._raw = _is_raw(self._page)
        page = self._page
        self._planes = header.channels if int(page.planarconfig) == 2 and header.channels > 1 else 1
        self._step = page.tilelength if page.is_tiled else min(page.rowsperstrip, self.size[0])
        self._across = math.ceil(self.size[1] / page.tilewidth) if page.is_tiled else 1
        if self._raw:
            self._step = min(256, self.size[0])
        self._top = 0  # of what is held
        self._held = np.empty((0, self.size[1], channels), self._type)
        self._select(np.empty((0, 0, self._found), self._type))

    def read(self, top: int, bottom: int) -> np.ndarray:
        parts = [self._held[top - self._top :]]
        end = self._top + len(self._held)
        end += max(0, top - end) // self._step * self._step  # rows of tiles that nobody asked for
        while end < bottom:  # whole rows of tiles; `end` is where one begins
            decoded = self._raw_rows(end) if self._raw else self._tile_row(end // self._step)
            parts.append(self._select(decoded)[max(0, top - end) :])
            end += len(decoded)
        self._held = np.concatenate(parts)
        self._top = end - len(self._held)
        return self._held[: bottom - top]

    def _raw_rows(self, top: int) -> np.ndarray:
        rows, each = min(self._step, self.size[0] - top), self._found // self._planes
        row_bytes = self.size[1] * each * self._type.itemsize
        planes = []
        for plane in range(self._planes):
            offset = self._page.dataoffsets[0] + (plane * self.size[0] + top) * row_bytes
            content = self._bytes(offset, rows * row_bytes, f"rows from {top}")
            planes.append(np.frombuffer(content, self._stored).reshape(rows, self.size[1], each))
        return np.concatenate(planes, axis=2).astype(self._type, copy=False)

    def _tile_row(self, row: int) -> np.ndarray:
        top = row * self._step
        result = np.empty((min(self._step, self.size[0] - top), self.size[1], self._found), self._type)
        down = math.ceil(self.size[0] / self._step)
        for plane in range(self._planes):
            for column in range(self._across):
                self._decode((plane * down + row) * self._across + column, result, row, column)
        return result

    def _decode(self, index: int, result: np.ndarray, row: int, column: int) -> None:
        """Put one tile or strip where it belongs in its row; one that the file leaves out is of its `nodata` value."""
        page = self._page
        kind = f"tile (row {row}, column {column})" if page.is_tiled else f"strip {row}"
        count = page.databytecounts[index]
        content = self._bytes(page.dataoffsets[index], count, kind) if count else None
        try:
            tables = {"jpegtables": page.jpegtables, "jpegheader": page.jpegheader} if page.jpegtables else {}
            pixels, (plane, _, _, left, _), shape = page.decode(content, index, **tables)
        except _DAMAGE as err:
            raise self._damaged(kind, str(err)) from err
        width = min(shape[2], self.size[1] - left)
        channels = slice(plane, plane + 1) if self._planes > 1 else slice(None)
        target = result[:, left : left + width, channels]
        target[...] = page.nodata if pixels is None else pixels[0, : len(result), :width]

    def _bytes(self, offset: int, count: int, what: str) -> bytes:
        try:
            self._file.seek(offset)
            content = self._file.read(count)
        except (OSError, ValueError) as err:
            raise self._damaged(what, str(err)) from err
        if len(content) < count:
            raise self._damaged(what, f"the file ends after {len(content)} of its {count} bytes")
        return content

    def _damaged(self, what: str, why: str) -> Exception:
        return image_error("truncated-image", self._path, f"{what} of the TIFF is damaged ({why}); copy the file again")

    def _select(self, pixels: np.ndarray) -> np.ndarray:
        """Black is zero, the channels are those that are wanted."""
        if int(self._page.photometric) == _WHITE_IS_ZERO:
            pixels = np.iinfo(self._type).max - pixels
        if self._found == self._wanted:
            return pixels
        colours = pixels[..., :-1] if self._alpha else pixels
        if colours.shape[2] == 1:
            return np.repeat(colours, self._wanted, axis=2)
        if colours.shape[2] == self._wanted:
            return colours
        raise image_error(
            "channel-mismatch",
            self._path,
            f"the image has {self._found} channels, the model takes {self._wanted}; convert the file (only alpha is "
            "dropped and only grey is repeated by itself)",
        )
