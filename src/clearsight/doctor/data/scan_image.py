"""One look at one image file: decoded once, at reduced size where that is enough, and measured."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from clearsight.data.decode import read_image, turn
from clearsight.data.files import printable
from clearsight.data.image_header import MAX_PIXELS, ImageHeader, parse_header, read_bytes
from clearsight.data.normalisation import stretch_percentiles
from clearsight.data.pillow_image import image_error
from clearsight.doctor.data.crop_features import PATCH, cut_patch
from clearsight.errors import DataError
from clearsight.types import Finding, Record

if TYPE_CHECKING:
    from types import ModuleType

try:
    import simplejpeg as _simplejpeg
except ImportError:
    _simplejpeg: ModuleType | None = None

__all__ = ["Look", "look_at"]

_SIDE = 240  # a JPEG is decoded at a half, a quarter or an eighth while its shorter side keeps so many pixels
_OBJECT = 12  # and so many those of its objects
_WIDTH = 256  # at which sharpness is measured
_SHARES = np.array([0.01, 0.05, 0.5, 0.95, 0.99])
_TIFF_MARKS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")

Box = tuple[float, float, float, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """What one image tells; see `scan.Scan` for the units.

    Args:
        readable: whether it could be decoded; all but `md5` and `findings` is zero where it could not.
        size: height and width of the file, after its EXIF turn.
        channels: of the file.
        md5: of the file's bytes; empty where it could not be opened.
        mean: `(3,)` of each channel.
        std: `(3,)` of each channel.
        percentiles: `(5,)` of brightness.
        sharpness: variance of the Laplacian.
        entropy: of brightness, in bits.
        patches: `(1 + k, PATCH, PATCH, 3)` uint8: the whole image, then its objects.
        objects: `k` positions in the record's `objects`; those whose box is not finite or without area in the image
            are left out.
        boxes: `(k, 2)` height and width of each object's box in the file.
        findings: why it could not be read, or what is damaged.
    """

    readable: bool
    size: tuple[int, int] = (0, 0)
    channels: int = 0
    md5: str = ""
    mean: np.ndarray
    std: np.ndarray
    percentiles: np.ndarray
    sharpness: float = 0.0
    entropy: float = 0.0
    patches: np.ndarray
    objects: tuple[int, ...] = ()
    boxes: np.ndarray
    findings: tuple[Finding, ...] = ()


def look_at(record: Record) -> Look:
    """Read and measure the image of a record. Whatever is wrong with the file becomes a finding, never an error."""
    md5 = ""
    try:
        data = read_bytes(record.image)
        md5 = hashlib.md5(data, usedforsecurity=False).hexdigest()
        header, plain = _header(data, record.image)
        pixels, damage = _pixels(data, header, record, plain=plain)
    except DataError as error:
        return _unreadable(md5, error.findings)
    except Exception as error:  # noqa: BLE001 - one file of a million ends no scan
        text = f"the image could not be read ({type(error).__name__}: {error}); look at the file"
        return _unreadable(md5, image_error("unreadable-image", record.image, text).findings)
    return _measured(record, header, pixels, md5=md5, damage=damage)


def _unreadable(md5: str, findings: tuple[Finding, ...]) -> Look:
    return Look(
        readable=False,
        md5=md5,
        mean=np.zeros(3),
        std=np.zeros(3),
        percentiles=np.zeros(len(_SHARES)),
        patches=np.zeros((1, PATCH, PATCH, 3), dtype=np.uint8),
        boxes=np.zeros((0, 2)),
        findings=findings,
    )


# ------------------------------------------------------------------------------------------------ decoding
def _header(data: bytes, path: Path) -> tuple[ImageHeader, bool]:
    """The header, and whether the file is a plain JPEG."""
    try:
        header, image = parse_header(BytesIO(data), path, max_pixels=MAX_PIXELS)
        return header, image is None and header.format == "JPEG"
    except DataError:
        if data.startswith(_TIFF_MARKS):
            _refuse_not_finite(data, path)
        raise


def _refuse_not_finite(data: bytes, path: Path) -> None:
    """Pixels of floating point are not read anyway; NaN and infinities among them are said first."""
    import tifffile  # takes 0.1 s to import

    try:
        array = tifffile.imread(BytesIO(data))
    except Exception:  # noqa: BLE001 - then the finding about the header stands
        return
    if array.dtype.kind != "f":
        return
    count = int((~np.isfinite(array)).sum())
    if count:
        text = f"{count} of {array.size} pixels are NaN or infinite; replace them, scale the rest and save it as uint16"
        raise image_error("non-finite-pixels", path, text)


def _pixels(data: bytes, header: ImageHeader, record: Record, *, plain: bool) -> tuple[np.ndarray, str]:
    """The picture `(h, w, 3)` uint8 or uint16, reduced if it is a large JPEG; and what its decoder complains of."""
    damage = ""
    if plain and _simplejpeg is not None:
        part = _reduction(header, record)
        height, width = header.size if header.orientation < 5 else header.size[::-1]
        try:
            array = _simplejpeg.decode_jpeg(
                data,
                colorspace="RGB",
                min_height=-(-height // part),
                min_width=-(-width // part),
            )
            return turn(array, header.orientation), ""
        except ValueError as error:  # Pillow forgives, or says what is wrong
            damage = str(error)
    array = read_image(record.image)
    return (array[..., :3] if array.shape[2] >= 3 else np.repeat(array[..., :1], 3, axis=2)), damage


def _reduction(header: ImageHeader, record: Record) -> int:
    """8, 4, 2 or 1: how much smaller the picture may be decoded."""
    room = min(header.size) / _SIDE
    for item in record.objects:
        room = min(room, min(item.box[2] - item.box[0], item.box[3] - item.box[1]) / _OBJECT)
    return 2 ** int(math.log2(min(room, 8.0))) if room >= 2 else 1  # NaN boxes compare as no room


# ------------------------------------------------------------------------------------------------ measuring
def _measured(record: Record, header: ImageHeader, pixels: np.ndarray, *, md5: str, damage: str) -> Look:
    height, width = header.size
    kept = tuple(index for index, item in enumerate(record.objects) if _lies_in(item.box, header.size))
    mean, std, picture = _moments(pixels)
    down, across = picture.height / height, picture.width / width
    patches, boxes = [cut_patch(picture)], np.zeros((len(kept), 2))
    for row, index in enumerate(kept):
        left, top, right, bottom = record.objects[index].box
        boxes[row] = bottom - top, right - left
        patches.append(cut_patch(picture, (left * across, top * down, right * across, bottom * down)))
    grey = picture.convert("L")
    shares = np.asarray(grey.histogram(), dtype=np.float64) / (grey.width * grey.height)
    present = shares[shares > 0]
    percentiles = np.searchsorted(np.cumsum(shares), _SHARES - 1e-9) / 255
    return Look(
        readable=True,
        size=header.size,
        channels=header.channels,
        md5=md5,
        mean=mean,
        std=std,
        percentiles=percentiles if pixels.dtype == np.uint8 else _percentiles(pixels),
        sharpness=_sharpness(grey),
        entropy=float(-(present * np.log2(present)).sum()),
        patches=np.stack(patches),
        objects=kept,
        boxes=boxes,
        findings=(_damaged(record.image, damage),) if damage else (),
    )


def _lies_in(box: Box, size: tuple[int, int]) -> bool:
    """Whether a box has area within the image; NaN has none."""
    width, height = min(box[2], size[1]) - max(box[0], 0), min(box[3], size[0]) - max(box[1], 0)
    return width > 0 and height > 0


def _moments(pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray, Image.Image]:
    """Mean and deviation of each channel in [0, 1], and the picture in 8 bits, stretched where it has 16."""
    if pixels.dtype == np.uint8:
        picture = Image.fromarray(np.ascontiguousarray(pixels))
        shares = np.asarray(picture.histogram(), dtype=np.float64).reshape(3, 256) / (picture.width * picture.height)
        levels = np.arange(256) / 255
        mean = shares @ levels
        return mean, np.sqrt((shares * (levels - mean[:, None]) ** 2).sum(axis=1)), picture
    scaled = pixels.reshape(-1, 3) / 65535
    stretched = (stretch_percentiles(pixels) >> 8).astype(np.uint8)
    return scaled.mean(axis=0), scaled.std(axis=0), Image.fromarray(np.ascontiguousarray(stretched))


def _percentiles(pixels: np.ndarray) -> np.ndarray:
    brightness = pixels.astype(np.float32) @ np.array([0.299, 0.587, 0.114], dtype=np.float32)
    return np.percentile(brightness, _SHARES * 100) / 65535


def _sharpness(grey: Image.Image) -> float:
    """Variance of the Laplacian (4 neighbours); a wider picture is made `_WIDTH` wide, a narrower one is left."""
    if grey.width > _WIDTH:
        size = (_WIDTH, max(1, round(grey.height * _WIDTH / grey.width)))
        grey = grey.resize(size, Image.Resampling.BILINEAR)
    if min(grey.size) < 3:
        return 0.0
    g = np.asarray(grey, dtype=np.float32)
    bend = g[:-2, 1:-1] + g[2:, 1:-1] + g[1:-1, :-2] + g[1:-1, 2:] - 4 * g[1:-1, 1:-1]
    return float(bend.var())


def _damaged(path: Path, damage: str) -> Finding:
    text = f"the file can be decoded, but is damaged ({damage}), so a part of the picture may be wrong; look at it"
    return Finding(id="damaged-image", severity="warning", where=printable(path), explanation=text, action="kept")
