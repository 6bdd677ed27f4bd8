"""A short description of a picture or of an object in it: shape by oriented gradients, colour, size."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image

from clearsight.errors import ShapeError

__all__ = ["FEATURES", "PATCH", "cut_patch", "describe_crop", "describe_patches"]

PATCH = 32
"""Side that every crop is resized to, whatever its aspect."""

_CELLS, _BINS, _LEVELS = 4, 9, 4
_SHAPE, _COLOUR = _CELLS * _CELLS * _BINS, _LEVELS**3
FEATURES = _SHAPE + _COLOUR + 9
"""Length of a description: 144 of gradients, 64 of colours, 9 of mean, deviation and size."""

_CHUNK = 16  # crops that are described at a time: half of the time of all at once, since they stay in the cache
_LUMA = (0.299, 0.587, 0.114)
_FLAT = 4.0  # grey levels a pixel: gradients weaker than this on average count as what they are, not as a shape


def describe_crop(image: np.ndarray, box: Sequence[float] | None = None) -> np.ndarray:
    """Describe a part of a picture.

    Method: Dalal and Triggs 2005, Histograms of oriented gradients for human detection, DOI 10.1109/CVPR.2005.177.
        Differs: 4 × 4 cells of a 32 × 32 crop, no blocks; square roots of shares (Arandjelović and Zisserman 2012, DOI
        10.1109/CVPR.2012.6248018) take the place of block norms. Beside it a joint histogram of 4 × 4 × 4 colours.

    Args:
        image: `(h, w, c)` uint8 with 1 or at least 3 channels.
        box: xyxy in pixels; None takes the whole picture.

    Returns:
        `(FEATURES,)` float32. Gradients and colours are vectors of length at most 1 each; then mean and deviation of
        three channels in [0, 1], and logarithms of height, width and aspect of the box, divided by ten.

    Raises:
        ShapeError: no such picture.
    """
    if image.ndim != 3 or image.dtype != np.uint8 or image.shape[2] == 2 or 0 in image.shape:
        raise ShapeError(f"image: expected (h, w, c) uint8 of 1 or 3 channels, got {image.shape} {image.dtype}")
    colours = np.repeat(image, 3, axis=2) if image.shape[2] == 1 else image[..., :3]
    whole = (0.0, 0.0, float(image.shape[1]), float(image.shape[0]))
    left, top, right, bottom = whole if box is None else box
    patch = cut_patch(Image.fromarray(np.ascontiguousarray(colours)), (left, top, right, bottom))
    return describe_patches(patch[None], np.array([[bottom - top, right - left]]))[0]


def cut_patch(image: Image.Image, box: tuple[float, float, float, float] | None = None) -> np.ndarray:
    """A part of a picture at the size that is described.

    Args:
        image: RGB.
        box: xyxy in pixels; cut to the picture and widened to one pixel where it has none.

    Returns:
        `(PATCH, PATCH, 3)` uint8, smoothed where it is made smaller.
    """
    if box is not None:
        (left, right), (top, bottom) = _within(box[0], box[2], image.width), _within(box[1], box[3], image.height)
        box = (left, top, right, bottom)
    return np.asarray(image.resize((PATCH, PATCH), Image.Resampling.BILINEAR, box=box, reducing_gap=2.0))


def _within(low: float, high: float, length: int) -> tuple[float, float]:
    low = min(max(low, 0.0), length - 1.0)
    return low, min(max(high, low + 1.0), float(length))


def describe_patches(patches: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Describe many crops at once.

    Args:
        patches: `(k, PATCH, PATCH, 3)` uint8.
        sizes: `(k, 2)` height and width that they had in their files, in pixels.

    Returns:
        `(k, FEATURES)` float32; see `describe_crop`.
    """
    found = np.zeros((len(patches), FEATURES), dtype=np.float32)
    for start in range(0, len(patches), _CHUNK):
        end = start + _CHUNK
        found[start:end] = _described(patches[start:end], sizes[start:end])
    return found


def _described(patches: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    planes = np.ascontiguousarray(patches.transpose(0, 3, 1, 2)).astype(np.float32)
    grey = _LUMA[0] * planes[:, 0] + _LUMA[1] * planes[:, 1] + _LUMA[2] * planes[:, 2]
    flat = planes.reshape(len(patches), 3, -1) / 255
    height, width = np.log2(np.maximum(sizes, 1.0)).T / 10
    size = np.stack((height, width, height - width), axis=1)
    parts = (_gradients(grey), _colours(patches), flat.mean(axis=2), flat.std(axis=2), size)
    return np.concatenate(parts, axis=1)


def _gradients(grey: np.ndarray) -> np.ndarray:
    """`(k, 144)` square roots of the shares of gradient in each cell and direction, opposite directions as one."""
    across, down = np.zeros_like(grey), np.zeros_like(grey)
    across[:, :, 1:-1] = grey[:, :, 2:] - grey[:, :, :-2]
    down[:, 1:-1] = grey[:, 2:] - grey[:, :-2]
    strength = np.sqrt(across * across + down * down)
    place = np.arctan2(down, across) * np.float32(_BINS / np.pi)
    place += np.float32(_BINS) * (place < 0)
    lower = np.minimum(place.astype(np.int64), _BINS - 1)
    share = place - lower
    cell = np.arange(PATCH) // (PATCH // _CELLS)
    base = (cell[:, None] * _CELLS + cell) * _BINS + np.arange(len(grey))[:, None, None] * _SHAPE
    counts = np.bincount((base + lower).ravel(), (strength * (1 - share)).ravel(), len(grey) * _SHAPE)
    counts += np.bincount((base + (lower + 1) % _BINS).ravel(), (strength * share).ravel(), len(grey) * _SHAPE)
    counts = counts.reshape(len(grey), _SHAPE)
    total = np.maximum(counts.sum(axis=1, keepdims=True), _FLAT * PATCH * PATCH)
    return np.sqrt(counts / total)


def _colours(patches: np.ndarray) -> np.ndarray:
    """`(k, 64)` square roots of the shares of 4 × 4 × 4 colours."""
    levels = (patches >> 6).astype(np.int64)
    which = (levels[..., 0] * _LEVELS + levels[..., 1]) * _LEVELS + levels[..., 2]
    which += np.arange(len(patches))[:, None, None] * _COLOUR
    counts = np.bincount(which.ravel(), minlength=len(patches) * _COLOUR).reshape(len(patches), _COLOUR)
    return np.sqrt(counts / (PATCH * PATCH))
