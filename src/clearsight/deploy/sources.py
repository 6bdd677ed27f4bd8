"""What can be predicted on: files, folders, patterns, arrays, tensors, PIL images; nothing is decoded yet."""

from __future__ import annotations

import glob
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from PIL import Image
from torch import Tensor

from clearsight.data.decode import read_image
from clearsight.data.files import IMAGE_SUFFIXES, list_images
from clearsight.errors import DataError, NotFound, RangeError, ShapeError

__all__ = ["Item", "Source", "list_items"]

Source: TypeAlias = str | Path | np.ndarray | Tensor | Image.Image | Sequence[Any]


@dataclass(frozen=True, slots=True)
class Item:
    """One image that is still to be read.

    Args:
        image: a file's path, or `(h, w, c)` pixels, uint8 or uint16.
        name: how results are called: the path below the folder that was given, else the file's name or a number.
        required: it was named by itself, so that a fault in it is an error and not a finding.
    """

    image: Path | np.ndarray
    name: str
    required: bool = False

    @property
    def path(self) -> Path | None:
        """The file, if it is one."""
        return self.image if isinstance(self.image, Path) else None

    def read(self, channels: int) -> np.ndarray:
        """The pixels `(h, w, channels)`: alpha dropped, grey repeated.

        Raises:
            DataError: the file cannot be decoded.
            ShapeError: the channels do not fit.
        """
        if isinstance(self.image, Path):
            return read_image(self.image, channels=channels)
        return _with_channels(self.image, channels, self.name)


def list_items(source: Source, *, leave_out: Path | None = None) -> list[Item]:
    """Every image of a source, files sorted by path.

    Args:
        source: an image file; a folder, searched to its depths; a pattern such as `photos/*.jpg`; a NumPy array
            `(h, w)` or `(h, w, c)`, uint8 or uint16; a tensor `(c, h, w)`, uint8, uint16, or float in [0, 1]; a PIL
            image; or a list of these.
        leave_out: a folder whose images are not taken: that of the results of an earlier run.

    Raises:
        NotFound: no such file or folder, or nothing fits the pattern.
        DataError: a folder without images.
        ShapeError: an array that is no image.
        RangeError: a float tensor outside [0, 1].
    """
    if isinstance(source, str | Path):
        return _files(source, leave_out)
    if isinstance(source, np.ndarray | Tensor | Image.Image):
        return [Item(_pixels(source, "image"), "image", required=True)]
    if not isinstance(source, Iterable):
        raise ShapeError(
            f"source: found {type(source).__name__}, expected a path, an array, a PIL image, or a list of these"
        )
    items = []
    for index, one in enumerate(source):
        if isinstance(one, np.ndarray | Tensor | Image.Image):
            name = f"image_{index:05d}"
            items.append(Item(_pixels(one, name), name, required=True))
        else:
            items += list_items(one, leave_out=leave_out)
    if not items:
        raise DataError("source: the list is empty; give at least one image")
    return items


# ------------------------------------------------------------------------------------------------ files
def _files(source: str | Path, leave_out: Path | None) -> list[Item]:
    text, path = str(source), Path(source).expanduser()
    if "://" in text:
        raise NotFound(f"{text}: addresses are not fetched; download the image and give its file")
    if path.is_dir():
        found = _outside(list_images(path), leave_out)
        if not found:
            kinds = " ".join(sorted(IMAGE_SUFFIXES))
            raise DataError(f"{path}: the folder has no images; expected files ending in one of {kinds}")
        return [Item(image, image.relative_to(path).as_posix()) for image in found]
    if path.exists():
        return [Item(path, path.name, required=True)]
    if any(sign in text for sign in "*?["):
        found = sorted(Path(name) for name in glob.glob(str(path), recursive=True))  # noqa: PTH207 - absolute too
        found = _outside([one for one in found if one.is_file()], leave_out)
        if not found:
            raise NotFound(f"{text}: no file fits this pattern")
        return [Item(image, image.name) for image in found]
    raise NotFound(f"{path}: there is no such file or folder{_nearest(path)}")


def _outside(images: list[Path], folder: Path | None) -> list[Path]:
    if folder is None or not folder.exists():
        return images
    inside = folder.resolve()
    return [image for image in images if not image.resolve().is_relative_to(inside)]


def _nearest(path: Path) -> str:
    if not path.parent.is_dir():
        return f"; the folder {path.parent} does not exist either"
    near = get_close_matches(path.name, [one.name for one in path.parent.iterdir()], n=1)
    return f"; did you mean {path.with_name(near[0])}?" if near else ""


# ------------------------------------------------------------------------------------------------ pixels
def _pixels(image: np.ndarray | Tensor | Image.Image, name: str) -> np.ndarray:
    """`(h, w, c)` uint8 or uint16."""
    if isinstance(image, Image.Image):
        deep = image.mode.startswith("I;16")
        plain = image if deep or image.mode in ("L", "LA", "RGB", "RGBA") else image.convert("RGB")
        return _pixels(np.array(plain), name)
    layout = "(h, w) or (h, w, c)"
    if isinstance(image, Tensor):
        layout = "(h, w) or (c, h, w)"
        image = _tensor_pixels(image, name)
    array = image[:, :, None] if image.ndim == 2 else image
    if array.ndim != 3 or 0 in array.shape:
        several = "; give several images as a list" if array.ndim == 4 else ""
        raise ShapeError(f"{name}: found shape {tuple(image.shape)}, expected {layout}{several}")
    if array.dtype not in (np.uint8, np.uint16):
        raise ShapeError(
            f"{name}: found {array.dtype} pixels, expected uint8 (0 to 255) or uint16; convert them, for example "
            "(array * 255).astype('uint8')"
        )
    return np.ascontiguousarray(array)


def _tensor_pixels(image: Tensor, name: str) -> np.ndarray:
    image = image.detach().cpu()
    if image.is_floating_point():
        low, high = (float(image.min()), float(image.max())) if image.numel() else (0.0, 0.0)
        if not (low >= 0 and high <= 1):
            raise RangeError(
                f"{name}: found float values from {low:.4g} to {high:.4g}, expected [0, 1]; give the pixels as they "
                "are (uint8), the model normalises them itself"
            )
        image = (image * 255).round().byte()
    return image.numpy() if image.ndim != 3 else image.permute(1, 2, 0).numpy()


def _with_channels(array: np.ndarray, wanted: int, name: str) -> np.ndarray:
    found = array.shape[2]
    if found == wanted:
        return array
    colours = array[:, :, : found - 1] if found in (2, 4) else array
    if colours.shape[2] == wanted:
        return colours
    if colours.shape[2] == 1:
        return np.repeat(colours, wanted, axis=2)
    raise ShapeError(f"{name}: found {found} channels, the model takes {wanted} (alpha is dropped, grey is repeated)")
