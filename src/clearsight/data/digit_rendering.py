"""Scenes drawn from real handwriting: scikit-learn's digits, enlarged, on textured canvases.

Everything is a function of the generator that is passed in.
"""

from __future__ import annotations

import colorsys
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy import ndimage

__all__ = ["Scene", "digit_images", "draw_scene"]

SMALLEST, LARGEST = 15.0, 40.0
"""Range of a digit's drawn height in pixels."""
FEWEST, MOST = 3, 8
"""Range of the number of digits a scene."""
STEEPEST = 15.0
"""Largest rotation in degrees."""
MAX_COVER = 0.12
"""Share of the smaller of two digits' boxes that may overlap."""
MIN_CONTRAST = 0.28
"""Least difference of luma, in [0, 1], between ink and the canvas around it."""


@dataclass(frozen=True, kw_only=True)
class Scene:
    """One drawn scene.

    Args:
        image: `(h, w, 3)` uint8.
        instances: `(h, w)` uint8; 0 is background, i + 1 the visible ink of digit i.
        labels: the digit of each instance.
        sources: which of scikit-learn's images each instance is.
    """

    image: np.ndarray
    instances: np.ndarray
    labels: tuple[int, ...]
    sources: tuple[int, ...]


@lru_cache(maxsize=1)
def digit_images() -> tuple[np.ndarray, np.ndarray]:
    """scikit-learn's handwritten digits: `(1797, 8, 8)` float64 ink in [0, 1], and their labels `(1797,)`."""
    from sklearn.datasets import load_digits  # takes a second, and only generating scenes needs it

    pixels, labels = load_digits(return_X_y=True)
    return np.asarray(pixels).reshape(-1, 8, 8) / 16.0, np.asarray(labels).astype(np.int64)


def draw_scene(pool: np.ndarray, size: tuple[int, int], rng: np.random.Generator) -> Scene:
    """Draw one scene.

    Args:
        pool: indices of the digits that may be used, `(n,)`, n >= 1.
        size: `(height, width)`, each at least 48.
        rng: every choice comes from it.

    Returns:
        A scene of 3 to 8 digits, each with at least 85 % of its ink visible.
    """
    dark = bool(rng.random() < 0.35)
    canvas = _canvas(size, rng, dark=dark)
    instances = np.zeros(size, dtype=np.uint8)
    wanted = int(rng.integers(FEWEST, MOST + 1))
    boxes: list[tuple[int, int, int, int]] = []
    labels: list[int] = []
    sources: list[int] = []
    pool_labels = digit_images()[1][pool]
    for attempt in range(wanted * 8):
        if len(boxes) == wanted:
            break
        source = _choose(pool, pool_labels, rng)
        # Later attempts are smaller: a crowded scene still gets its digits.
        ink = _enlarge(digit_images()[0][source], rng, largest=max(SMALLEST + 3, LARGEST * 0.93**attempt))
        corner = _free_corner(ink.shape, size, boxes, rng)
        if corner is None:
            continue
        boxes.append((*corner, corner[0] + ink.shape[0], corner[1] + ink.shape[1]))
        labels.append(int(digit_images()[1][source]))
        sources.append(source)
        _draw(canvas, instances, ink, corner, rng, number=len(boxes))
    grain = rng.normal(0.0, rng.uniform(0.006, 0.02), (*size, 1))
    image = np.clip(np.rint((canvas + grain) * 255), 0, 255).astype(np.uint8)
    return Scene(image=image, instances=instances, labels=tuple(labels), sources=tuple(sources))


def _choose(pool: np.ndarray, labels: np.ndarray, rng: np.random.Generator) -> int:
    """A digit: first its class, so that all are equally frequent, then one of that class."""
    order = np.argsort(labels, kind="stable")
    starts = np.flatnonzero(np.diff(labels[order], prepend=-1))
    group = int(rng.integers(len(starts)))
    end = starts[group + 1] if group + 1 < len(starts) else len(pool)
    return int(pool[order[rng.integers(starts[group], end)]])


def _enlarge(ink: np.ndarray, rng: np.random.Generator, *, largest: float) -> np.ndarray:
    """An 8×8 digit, cubic-spline enlarged and turned, as opacity `(h, w)` in [0, 1], cut tight to its ink."""
    height = np.exp(rng.uniform(np.log(SMALLEST), np.log(largest)))
    stretch = rng.uniform(0.9, 1.15)
    angle = np.deg2rad(rng.uniform(-STEEPEST, STEEPEST))
    step = np.array((8.0 / height, 8.0 / (height * stretch)))  # digit pixels per drawn pixel, down and across
    side = int(np.ceil(height * 1.5)) + 2
    turn = np.array(((np.cos(angle), -np.sin(angle)), (np.sin(angle), np.cos(angle))))
    matrix = step[:, None] * turn
    padded = np.pad(ink, 3)
    offset = np.array(padded.shape) / 2 - 0.5 - matrix @ np.full(2, side / 2 - 0.5)
    drawn = ndimage.affine_transform(
        padded, matrix, offset.tolist(), output_shape=(side, side), order=3, mode="constant"
    )
    # The scan is a blurred stroke; a steeper edge gives it back its pen.
    opacity = np.clip((drawn - 0.28) / 0.4, 0.0, 1.0)
    opacity = opacity * opacity * (3 - 2 * opacity)
    rows, columns = np.nonzero(opacity >= 0.5)
    return opacity[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]


def _free_corner(
    shape: tuple[int, ...], size: tuple[int, int], boxes: list[tuple[int, int, int, int]], rng: np.random.Generator
) -> tuple[int, int] | None:
    """A top left corner where a digit fits and hardly touches another; None if 20 tries find none."""
    height, width = shape
    for _ in range(20):
        top = int(rng.integers(1, max(2, size[0] - height)))
        left = int(rng.integers(1, max(2, size[1] - width)))
        if all(_cover((top, left, top + height, left + width), box) <= MAX_COVER for box in boxes):
            return top, left
    return None


def _cover(a: tuple[int, int, int, int], b: tuple[int, int, int, int]) -> float:
    """Shared area over the smaller area."""
    rows = max(0, min(a[2], b[2]) - max(a[0], b[0]))
    columns = max(0, min(a[3], b[3]) - max(a[1], b[1]))
    return rows * columns / min((box[2] - box[0]) * (box[3] - box[1]) for box in (a, b))


def _draw(
    canvas: np.ndarray,
    instances: np.ndarray,
    ink: np.ndarray,
    corner: tuple[int, int],
    rng: np.random.Generator,
    *,
    number: int,
) -> None:
    """Blend a digit into the scene and mark its ink, over what is there."""
    place = np.s_[corner[0] : corner[0] + ink.shape[0], corner[1] : corner[1] + ink.shape[1]]
    below = canvas[place]
    colour = _ink_colour(float(_luma(below).mean()), rng)
    # Pressure varies along the stroke.
    pressure = 1 - rng.uniform(0.0, 0.18) * _noise(ink.shape, (3, 3), rng)
    opacity = (ink * pressure)[..., None]
    canvas[place] = below * (1 - opacity) + colour * opacity
    instances[place][ink >= 0.5] = number


def _ink_colour(around: float, rng: np.random.Generator) -> np.ndarray:
    """A colour that stands out from a canvas of a given luma: darker on light, lighter on dark."""
    lighter = around < 0.5
    reach = 0.97 - around if lighter else around - 0.03
    luma = around + (1 if lighter else -1) * rng.uniform(min(MIN_CONTRAST, reach), reach)
    hue, saturation = rng.random(), rng.uniform(0.0, 0.9)
    colour = np.array(colorsys.hsv_to_rgb(hue, saturation, 1.0))
    colour *= luma / max(float(_luma(colour)), 1e-6)
    # What a saturated colour cannot reach in brightness, white makes up.
    excess = max(float(colour.max()) - 1.0, 0.0)
    if excess:
        grey = float(_luma(colour))
        colour = grey + (colour - grey) * (1 - grey) / (colour.max() - grey)
    return np.clip(colour, 0.0, 1.0)


def _luma(colour: np.ndarray) -> np.ndarray:
    return 0.299 * colour[..., 0] + 0.587 * colour[..., 1] + 0.114 * colour[..., 2]


# ------------------------------------------------------------------------------------------------ the canvas
def _canvas(size: tuple[int, int], rng: np.random.Generator, *, dark: bool) -> np.ndarray:
    """A tinted sheet `(h, w, 3)` in [0, 1]: a gradient, clouds in several octaves, sometimes fibres or ruled lines."""
    luma = rng.uniform(0.12, 0.32) if dark else rng.uniform(0.66, 0.9)
    tint = np.array(colorsys.hsv_to_rgb(rng.random(), rng.uniform(0.02, 0.3), 1.0))
    base = tint * luma / float(_luma(tint))
    light = 1 + _gradient(size, rng) * rng.uniform(0.0, 0.22)
    octaves = [_noise(size, (cells, cells), rng) * 0.6**octave for octave, cells in enumerate((3, 6, 12, 24, 48))]
    clouds = np.sum(octaves, axis=0)
    light = light * (1 + rng.uniform(0.02, 0.09) * (clouds - clouds.mean()) / clouds.std())
    if rng.random() < 0.3:  # paper fibres, along one direction
        light = light * (1 + rng.uniform(0.02, 0.05) * _fibres(size, rng))
    sheet = base * light[..., None]
    drift = np.stack([_noise(size, (2, 2), rng) for _ in range(3)], axis=-1)
    sheet = sheet * (1 + rng.uniform(0.0, 0.06) * (drift - 0.5))
    if rng.random() < 0.25:
        _rule(sheet, rng)
    return np.clip(sheet, 0.0, 1.0)


def _gradient(size: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """A plane in [-1, 1], falling in a random direction."""
    angle = rng.uniform(0, 2 * np.pi)
    rows, columns = np.linspace(-1, 1, size[0])[:, None], np.linspace(-1, 1, size[1])[None]
    return (np.sin(angle) * rows + np.cos(angle) * columns) / (abs(np.sin(angle)) + abs(np.cos(angle)))


def _noise(shape: tuple[int, ...], cells: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """Smooth noise in about [0, 1]: random values on a coarse grid, enlarged by a cubic spline."""
    grid = rng.random((cells[0] + 1, cells[1] + 1))
    # Not @: for matrices as small as these, handing them to BLAS threads takes longer than multiplying them.
    across = np.einsum("ij,xj->ix", grid, _spline_weights(cells[1], shape[1]))
    return np.einsum("yi,ix->yx", _spline_weights(cells[0], shape[0]), across)


@lru_cache(maxsize=256)
def _spline_weights(cells: int, pixels: int) -> np.ndarray:
    """Weights `(pixels, cells + 1)` of the uniform cubic B-spline, normalised at the ends."""
    distance = np.abs(np.linspace(0, cells, pixels)[:, None] - np.arange(cells + 1))
    near = 2 / 3 - distance**2 + distance**3 / 2
    far = np.clip(2 - distance, 0, None) ** 3 / 6
    weights = np.where(distance < 1, near, far)
    return weights / weights.sum(axis=1, keepdims=True)


def _fibres(size: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """Streaks of unit deviation, across or down."""
    streaks = rng.normal(size=size)
    axis = int(rng.integers(2))
    streaks = ndimage.uniform_filter1d(streaks, 15, axis=axis, mode="reflect")
    return streaks / streaks.std()


def _rule(sheet: np.ndarray, rng: np.random.Generator) -> None:
    """Faint ruled lines, as on writing paper."""
    gap, first = int(rng.integers(14, 28)), int(rng.integers(0, 14))
    colour = np.array(colorsys.hsv_to_rgb(rng.uniform(0.5, 0.7), 0.5, 0.6))
    strength = rng.uniform(0.1, 0.3)
    sheet[first::gap] = sheet[first::gap] * (1 - strength) + colour * strength
