"""How many pixels each class has in a data set, and weights that make up for it."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from typing import Literal, NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray

from clearsight.data.class_map import IGNORED, read_class_map
from clearsight.data.dataset import Dataset
from clearsight.errors import ConfigError, DataError, RangeError, nearest
from clearsight.types import Record

__all__ = ["ClassPixels", "WeightMethod", "class_pixel_counts", "class_weights"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
WeightMethod = Literal["inverse", "inverse_sqrt", "median", "effective"]


class ClassPixels(NamedTuple):
    """Pixels of each of k classes.

    Args:
        pixels: `(k,)` of each class; ignored ones are left out.
        around: `(k,)` counted pixels, of all classes, of the images that have the class.
        images: `(k,)` images that have the class.
    """

    pixels: Ints
    around: Ints
    images: Ints


def class_pixel_counts(dataset: Dataset, *, workers: int = 0) -> ClassPixels:
    """Count the pixels of each class in the semantic maps of a data set, at the files' own sizes.

    Args:
        dataset: of task `semantic`; give it the training split alone.
        workers: threads; 0 takes as many as there are cores, up to 16.

    Raises:
        DataError: a map cannot be read, is missing, or has a value outside the classes; the message names it.
    """
    classes = len(dataset.classes)
    with ThreadPoolExecutor(workers or min(16, os.cpu_count() or 1)) as pool:
        rows = list(pool.map(lambda record: _image_pixels(record, classes), dataset.records))
    table = np.array(rows, np.int64).reshape(-1, classes)
    has = table > 0
    return ClassPixels(
        pixels=table.sum(axis=0),
        around=np.where(has, table.sum(axis=1, keepdims=True), 0).sum(axis=0),
        images=has.sum(axis=0),
    )


def _image_pixels(record: Record, classes: int) -> Ints:
    if record.semantic is None:
        raise DataError(f"{record.image}: the record has no semantic map, so its classes cannot be counted")
    counts = np.bincount(read_class_map(record).ravel(), minlength=max(classes, IGNORED + 1))
    counts[IGNORED] = 0
    if counts[classes:].any():
        value = classes + int(np.flatnonzero(counts[classes:])[0])
        raise DataError(
            f"{record.semantic}: {int(counts[value])} pixels have the value {value}; expected classes 0 to "
            f"{classes - 1}, or {IGNORED} for pixels that do not count"
        )
    return counts[:classes].astype(np.int64)


def class_weights(counts: ClassPixels, *, method: WeightMethod = "median", beta: float | None = None) -> Floats:
    """Weights of the classes in a loss, larger for rarer ones, with mean 1 over the classes that have pixels.

    A class without any pixel has weight 0: nothing is known of it, no loss can ask for it, and every formula below
    would give it an infinite weight.

    Args:
        counts: of the training images.
        method: `inverse`: `1 / n`, so that all classes weigh the same together. `inverse_sqrt`: `1 / √n`, halfway.
            `median`: `median(f) / f`, f the share of the class in those images that have it (Eigen and Fergus 2015,
            arXiv:1411.4734); unlike `inverse`, classes that fill few images are not raised above those that fill a
            little of each. `effective`: `(1 - β) / (1 - βⁿ)`, one over the effective number
            (Cui et al. 2019, arXiv:1901.05555).
        beta: of `effective`, in [0, 1); None takes `(N - 1) / N` for N counted pixels. The paper's 0.9 to 0.9999 are
            meant for numbers of images: they level all classes above some ten thousand pixels.

    Returns:
        `(k,)`.

    Raises:
        ConfigError: no such method, or `beta` with another one.
        RangeError: beta is out of range.
        DataError: no class has a pixel.
    """
    if method not in get_args(WeightMethod):
        raise ConfigError(f"class weights: there is no method {method!r}{nearest(method, get_args(WeightMethod))}")
    if beta is not None and method != "effective":
        raise ConfigError(f"beta: only the method 'effective' has one, got {beta} for {method!r}")
    if beta is not None and not 0 <= beta < 1:
        raise RangeError(f"beta: must be in [0, 1), got {beta}")
    there = counts.pixels > 0
    if not there.any():
        raise DataError("class weights: no class has a counted pixel; check the masks and the value that is ignored")
    pixels = counts.pixels[there].astype(np.float64)
    if method == "effective":
        raw = _inverse_effective(pixels, beta)
    elif method == "median":
        share = pixels / counts.around[there]
        raw = np.median(share) / share
    else:
        raw = 1 / (pixels if method == "inverse" else np.sqrt(pixels))
    weights = np.zeros(len(there))
    weights[there] = raw / raw.mean()
    return weights


def _inverse_effective(pixels: Floats, beta: float | None) -> Floats:
    """One over the effective number of samples, up to a factor."""
    rest = 1 / pixels.sum() if beta is None else 1 - beta
    if rest >= 1:
        return np.ones_like(pixels)  # beta 0, or one pixel in all: every number of samples is worth one
    return 1 / -np.expm1(pixels * np.log1p(-rest))
