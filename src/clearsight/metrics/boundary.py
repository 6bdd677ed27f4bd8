"""How well outlines agree: boundary F and Hausdorff distances, in pixels.

Which pixels form a boundary: those of a mask with at least one of their four neighbours outside it. It lies inside the
mask, and its pixels hang together by eight neighbours. The frame of the image is no boundary, as an object that it cuts
goes on behind it; neither is the rim of pixels that do not count (void). So a mask that fills its image has none.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import KDTree
from torch import Tensor

from clearsight.errors import RangeError, ShapeError

__all__ = ["BoundaryScores", "boundary_f", "boundary_pixels", "compare_boundaries", "hausdorff"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

_REACH = 32  # columns that are looked through one by one; what is farther is left to a tree
_GRID = 1 << 24  # pixels of the largest grid of distances; a tree needs no grid
_NONE = 30_000  # rows to the next source in a column without any, fits 16 bits with room for one more


class BoundaryScores(NamedTuple):
    """How well the boundaries of k classes agree in one image.

    Args:
        f: `(k,)` boundary F; NaN for a class without boundary on either side, 0 where only one side has one.
        distance: `(k,)` symmetric Hausdorff distance, pixels; NaN and infinite in the same places.
    """

    f: Floats
    distance: Floats


def boundary_pixels(masks: np.ndarray | Tensor, *, counted: np.ndarray | None = None) -> Bools:
    """The boundary of each mask: pixels inside with one of their four neighbours outside.

    Args:
        masks: `(…, h, w)`, bool or any number; non-zero is inside.
        counted: `(h, w)` bool, False for pixels that are neither inside nor outside; None counts all.

    Returns:
        `(…, h, w)` bool.

    Raises:
        ShapeError: `masks` has fewer than two axes.
    """
    inside = _masks(masks, "masks")
    return _edges(inside, counted) & inside


def boundary_f(predicted: np.ndarray | Tensor, truth: np.ndarray | Tensor, *, tolerance: float = 2.0) -> Floats:
    """F measure of boundary pixels: harmonic mean of precision and recall.

    Precision is the share of predicted boundary pixels with a true one within `tolerance`, recall the share of true
    ones with a predicted one.

    Method: Csurka et al. 2013, "What is a good evaluation measure for semantic segmentation?" (BMVC), for each class
    and image; Perazzi et al. 2016 (DAVIS), measure F, whose discs of a whole radius give the same pairs. Differs from
    DAVIS: the tolerance is in pixels and not 0.008 of the diagonal, and the boundary lies inside the mask.

    Args:
        predicted: `(…, h, w)` masks, bool or any number; non-zero is inside.
        truth: the same shape.
        tolerance: largest distance of a pair, pixels between centres.

    Returns:
        `(…)` in [0, 1]: 0 where only one mask has a boundary, NaN where none has.

    Raises:
        ShapeError: the shapes differ, or have fewer than two axes.
        RangeError: the tolerance is negative.

    Example:
        >>> square = np.pad(np.ones((4, 4), bool), 3)
        >>> float(boundary_f(np.roll(square, 1, axis=1), square, tolerance=1))
        1.0
    """
    _check_tolerance(tolerance)
    return _each(predicted, truth, lambda ahead, back: _f(ahead, back, tolerance))


def hausdorff(predicted: np.ndarray | Tensor, truth: np.ndarray | Tensor, *, percentile: float = 95) -> Floats:
    """Hausdorff distance of the boundaries: how far the worst pixels lie off, the same in both directions.

    The larger of two figures: the percentile of the distances from each predicted boundary pixel to the nearest true
    one, and of those from true to predicted ones (interpolated linearly). A mask that was moved by d pixels, in any
    direction and without touching the frame, has d at 100 %, and at most d at 95 %.

    Method: Huttenlocher et al. 1993 for 100 %; 95 % (HD95) is less a matter of single pixels. Some tools pool both
    directions before they take the percentile; this does not.

    Args:
        predicted: `(…, h, w)` masks, bool or any number; non-zero is inside.
        truth: the same shape.
        percentile: of the distances, in (0, 100]; 100 is the Hausdorff distance itself.

    Returns:
        `(…)` pixels, not in [0, 1]: infinite where only one mask has a boundary, NaN where none has.

    Raises:
        ShapeError: the shapes differ, or have fewer than two axes.
        RangeError: the percentile is out of range.

    Example:
        >>> square = np.pad(np.ones((4, 4), bool), 3)
        >>> float(hausdorff(np.roll(square, 2, axis=0), square, percentile=100))
        2.0
    """
    _check_percentile(percentile)
    return _each(predicted, truth, lambda ahead, back: _distance(ahead, back, percentile))


def compare_boundaries(
    predicted: np.ndarray,
    truth: np.ndarray,
    classes: int,
    *,
    counted: np.ndarray | None = None,
    tolerance: float = 2.0,
    percentile: float = 95,
) -> BoundaryScores:
    """`boundary_f` and `hausdorff` of every class of two label maps at once.

    Args:
        predicted: `(h, w)` class of each pixel.
        truth: the same shape.
        classes: k; pixels of other labels are on no side.
        counted: `(h, w)` bool, False for void; None counts all.
        tolerance: see `boundary_f`.
        percentile: see `hausdorff`.

    Raises:
        ShapeError: the shapes differ.
        RangeError: as for the two.

    Cost: O(h w) once, and for each class the area of the smallest box around its boundaries.
    """
    _check_tolerance(tolerance)
    _check_percentile(percentile)
    if predicted.shape != truth.shape or predicted.ndim != 2:
        raise ShapeError(f"maps: expected two of one size (h, w), got {predicted.shape} and {truth.shape}")
    found, there = (_class_points(labels, classes, counted) for labels in (predicted, truth))
    scores = BoundaryScores(f=np.full(classes, np.nan), distance=np.full(classes, np.nan))
    for label in range(classes):
        pair = _both_ways(found[label], there[label])
        scores.f[label] = _f(*pair, tolerance)
        scores.distance[label] = _distance(*pair, percentile)
    return scores


# ------------------------------------------------------------------------------------------------ boundaries
def _masks(values: np.ndarray | Tensor, name: str) -> Bools:
    array = values.detach().cpu().numpy() if isinstance(values, Tensor) else np.asarray(values)
    if array.ndim < 2:
        raise ShapeError(f"{name}: expected (…, h, w), got {array.shape}")
    return array if array.dtype == bool else array != 0


def _edges(labels: np.ndarray, counted: np.ndarray | None) -> Bools:
    """Pixels `(…, h, w)` with a neighbour above, below, left or right that has another label; void is no neighbour."""
    edges = np.zeros(labels.shape, bool)
    for axis in (-2, -1):
        size = labels.shape[axis]
        before, after = (
            tuple(part if other == axis else slice(None) for other in (-2, -1))
            for part in (slice(0, max(size - 1, 0)), slice(1, None))
        )
        differ = labels[(..., *before)] != labels[(..., *after)]
        if counted is not None:
            differ &= counted[before] & counted[after]
        edges[(..., *before)] |= differ
        edges[(..., *after)] |= differ
    return edges


def _class_points(labels: np.ndarray, classes: int, counted: np.ndarray | None) -> list[Ints]:
    """`(2, m)` rows and columns of the boundary pixels of each class."""
    place = np.flatnonzero(_edges(labels, counted))
    label = labels.ravel()[place]
    return [np.stack(np.divmod(place[label == k], labels.shape[1])) for k in range(classes)]


def _each(
    predicted: np.ndarray | Tensor, truth: np.ndarray | Tensor, figure: Callable[[Floats, Floats], float]
) -> Floats:
    """A figure of each pair of masks."""
    found, there = boundary_pixels(_masks(predicted, "predicted")), boundary_pixels(_masks(truth, "truth"))
    if found.shape != there.shape:
        raise ShapeError(f"predicted: expected the shape of truth, {there.shape}, got {found.shape}")
    values = [
        figure(*_both_ways(np.stack(np.nonzero(found[index])), np.stack(np.nonzero(there[index]))))
        for index in np.ndindex(found.shape[:-2])
    ]
    return np.array(values, np.float64).reshape(found.shape[:-2])


# ------------------------------------------------------------------------------------------------ distances
def _both_ways(found: Ints, there: Ints) -> tuple[Floats, Floats]:
    """Distances from each predicted pixel to the nearest true one, and back; infinite where there is none."""
    if not found.size or not there.size:
        return np.full(found.shape[1], np.inf), np.full(there.shape[1], np.inf)
    return _nearest(found, there), _nearest(there, found)


def _nearest(points: Ints, sources: Ints) -> Floats:
    """Exact distance of each point `(2, m)` to the nearest of the sources.

    The distances down the columns are known everywhere after two sweeps, as in a distance transform; a point then looks
    left and right only as far as something nearer can still be. A full transform (SciPy's) takes four times as long, as
    boundary pixels are few and most lie near their partners.
    """
    low = np.minimum(points.min(axis=1), sources.min(axis=1))
    height, width = (np.maximum(points.max(axis=1), sources.max(axis=1)) - low + 1).tolist()
    if height * width > _GRID or height >= _NONE:
        return KDTree(sources.T).query(points.T)[0]
    gaps = _column_gaps(*(sources - low[:, None]), height=height, width=width)
    place = (points[0] - low[0]) * gaps.shape[1] + (points[1] - low[1] + _REACH)
    gaps = gaps.ravel()
    squared = gaps.take(place).astype(np.int32) ** 2
    left = np.flatnonzero(squared > 1)
    for reach in range(1, _REACH + 1):
        if not len(left):
            break
        here = place.take(left)
        near = np.minimum(gaps.take(here - reach), gaps.take(here + reach)).astype(np.int32)
        near = np.minimum(near * near + reach * reach, squared.take(left))
        squared[left] = near
        left = left[near > (reach + 1) ** 2]
    distances = np.sqrt(squared, dtype=np.float64)
    if len(left):
        distances[left] = KDTree(sources.T).query(points[:, left].T)[0]
    return distances


def _column_gaps(row: Ints, column: Ints, *, height: int, width: int) -> NDArray[np.int16]:
    """Rows from each pixel to the nearest source in its column; there are `_REACH` empty columns on both sides."""
    gap = np.full((height, width + 2 * _REACH), _NONE, np.int16)
    gap[row, column + _REACH] = 0
    one = np.int16(1)
    for upper, lower in itertools.pairwise(gap):
        np.minimum(lower, upper + one, out=lower)
    for lower, upper in itertools.pairwise(gap[::-1]):
        np.minimum(upper, lower + one, out=upper)
    return gap


def _f(ahead: Floats, back: Floats, tolerance: float) -> float:
    if not len(ahead) and not len(back):
        return math.nan
    if not len(ahead) or not len(back):
        return 0.0
    precision, recall = float((ahead <= tolerance).mean()), float((back <= tolerance).mean())
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def _distance(ahead: Floats, back: Floats, percentile: float) -> float:
    if not len(ahead) and not len(back):
        return math.nan
    if not len(ahead) or not len(back):
        return math.inf
    return float(max(np.percentile(ahead, percentile), np.percentile(back, percentile)))


def _check_tolerance(tolerance: float) -> None:
    if not tolerance >= 0:
        raise RangeError(f"tolerance: must be at least 0 pixels, got {tolerance}")


def _check_percentile(percentile: float) -> None:
    if not 0 < percentile <= 100:
        raise RangeError(f"percentile: must be in (0, 100], got {percentile}")
