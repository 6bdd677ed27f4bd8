"""Pixels of each class taken for each class, and the figures that follow from them."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from clearsight.errors import RangeError, ShapeError

__all__ = [
    "VOID",
    "OverlapFigures",
    "class_map",
    "confusion_counts",
    "known_mean",
    "overlap_figures",
    "resampled_figures",
]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

VOID = 255
"""Label of true pixels that count neither way."""


class OverlapFigures(NamedTuple):
    """Figures of `…` images or data sets, in [0, 1]; NaN where one does not exist, never 0 or 1 in its place.

    Args:
        iou: `(…, k)` intersection over union (Jaccard index); NaN for a class that is neither true nor predicted.
        dice: `(…, k)` twice the intersection over the sum of both (F1 of the pixels); NaN in the same places.
        precision: `(…, k)` NaN for a class that is not predicted.
        recall: `(…, k)` NaN for a class that is not true.
        miou: `(…)` mean IoU over the classes that have one; a class that is predicted and not true has 0.
        mean_dice: `(…)` the same of Dice.
        pixel_accuracy: `(…)` share of the counted pixels that are right.
        mean_accuracy: `(…)` mean recall over the classes that are true.
    """

    iou: Floats
    dice: Floats
    precision: Floats
    recall: Floats
    miou: Floats
    mean_dice: Floats
    pixel_accuracy: Floats
    mean_accuracy: Floats


def confusion_counts(
    predicted: np.ndarray | Tensor, truth: np.ndarray | Tensor, classes: int, *, where: str = ""
) -> Ints:
    """How many pixels of each class were given each class.

    Args:
        predicted: `(h, w)` whole numbers from 0 to k - 1.
        truth: the same shape; `VOID` (255) is left out.
        classes: k.
        where: file or image, for messages.

    Returns:
        `(k, k)`, rows the truth, columns the prediction.

    Raises:
        ShapeError: not two axes, or two sizes.
        RangeError: a label lies outside the classes; the message names it and its first pixel.
    """
    found = class_map(predicted, classes, what="predicted", where=where)
    there = class_map(truth, classes, what="truth", where=where, void=True)
    if found.shape != there.shape:
        raise ShapeError(
            f"{where}{': ' if where else ''}predicted is {found.shape[0]} x {found.shape[1]} pixels, truth "
            f"{there.shape[0]} x {there.shape[1]}; bring the prediction to the size of its file"
        )
    cells = classes * classes
    place = there.astype(np.int64) * classes
    place += found
    if classes <= VOID:
        np.minimum(place, cells, out=place)  # void comes out above all of them
    else:
        place[there == VOID] = cells
    return np.bincount(place.ravel(), minlength=cells + 1)[:cells].reshape(classes, classes)


def class_map(
    labels: np.ndarray | Tensor, classes: int, *, what: str, where: str = "", void: bool = False
) -> np.ndarray:
    """A map of classes as an array, checked.

    Args:
        labels: `(h, w)` whole numbers.
        classes: k; labels from 0 to k - 1 fit.
        what: name of the argument, for messages.
        where: file or image, for messages.
        void: also allow `VOID`.

    Raises:
        ShapeError: not two axes.
        RangeError: the numbers are not whole, or one lies outside the classes.
    """
    array = labels.detach().cpu().numpy() if isinstance(labels, Tensor) else np.asarray(labels)
    name = f"{where}: {what}" if where else what
    if array.ndim != 2:
        raise ShapeError(f"{name}: expected (h, w), got {array.shape}; give one image at a time")
    if array.dtype.kind not in "uib":
        raise RangeError(f"{name}: expected a class of each pixel (whole numbers), got {array.dtype}; take the argmax")
    if array.size and (array.min() < 0 or array.max() >= classes):
        wrong = (array < 0) | (array >= classes)
        if void:
            wrong &= array != VOID
        if wrong.any():
            row, column = np.argwhere(wrong)[0].tolist()
            allowed = f"0 to {classes - 1}" + (f", or {VOID} for pixels that do not count" if void else "")
            raise RangeError(
                f"{name}: label {int(array[row, column])} at row {row}, column {column} (and {int(wrong.sum()) - 1} "
                f"more pixels); expected {allowed}"
            )
    return array


def overlap_figures(confusion: Ints) -> OverlapFigures:
    """Figures of `(…, k, k)` confusion counts; see `OverlapFigures`."""
    right = np.diagonal(confusion, axis1=-2, axis2=-1)
    return _figures(right, confusion.sum(axis=-1), confusion.sum(axis=-2))


def resampled_figures(confusion: Ints, counts: Ints) -> OverlapFigures:
    """Figures of resamples of images.

    Args:
        confusion: `(n, k, k)`, one an image.
        counts: `(b, n)` how often each image is drawn, of `bootstrap.resample_counts`.

    Returns:
        Figures of b data sets. Only right, true and predicted pixels of each class are added up, `(b, 3k)` numbers.
    """
    right = np.diagonal(confusion, axis1=-2, axis2=-1)
    sums = np.concatenate([right, confusion.sum(axis=-1), confusion.sum(axis=-2)], axis=-1)
    # As doubles, which BLAS multiplies: exact for whole numbers below 2^53.
    drawn = counts.astype(np.float64) @ sums.astype(np.float64)
    return _figures(*np.split(drawn, 3, axis=-1))


def _figures(right: np.ndarray, true: np.ndarray, called: np.ndarray) -> OverlapFigures:
    iou, dice = _ratio(right, true + called - right), _ratio(2 * right, true + called)
    recall = _ratio(right, true)
    return OverlapFigures(
        iou=iou,
        dice=dice,
        precision=_ratio(right, called),
        recall=recall,
        miou=known_mean(iou),
        mean_dice=known_mean(dice),
        pixel_accuracy=_ratio(right.sum(axis=-1), true.sum(axis=-1)),
        mean_accuracy=known_mean(recall),
    )


def known_mean(values: Floats, *, axis: int = -1) -> Floats:
    """Mean along an axis over what is finite; NaN where nothing is."""
    known = np.isfinite(values)
    return _ratio(np.where(known, values, 0.0).sum(axis=axis), known.sum(axis=axis))


def _ratio(top: np.ndarray, bottom: np.ndarray) -> Floats:
    return np.divide(top, bottom, out=np.full(np.shape(top), np.nan), where=bottom > 0)
