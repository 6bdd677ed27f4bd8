"""How well regions agree, whatever their labels: Rand scores, those of the challenge on neurons among them."""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

from clearsight.errors import RangeError, ShapeError

__all__ = ["RandScores", "foreground_rand", "rand_scores"]

Floats = NDArray[np.float64]


class RandScores(NamedTuple):
    """Agreement of two partitions of the counted pixels; all NaN where there are none.

    With p, s and t the shares of pixels in each overlap, each predicted and each true region, I the mutual information
    and H entropies:

    Args:
        rand: V^Rand `= Σp² / (α Σs² + (1-α) Σt²)`, in [0, 1]; 1 is perfect.
        rand_split: `Σp² / Σt²`: two pixels of one true region are in one predicted region. Low: regions are split.
        rand_merge: `Σp² / Σs²`: two pixels of one predicted region are in one true region. Low: regions are merged.
        info: V^Info `= I / ((1-α) H(S) + α H(T))`, in [0, 1]; 1 is perfect, and is given where both have one region.
        info_split: `I / H(S)`; 1 where there is one predicted region, as nothing is split.
        info_merge: `I / H(T)`; 1 where there is one true region, as nothing is merged.
        adapted_error: `1 - V^Rand` over pairs of two different pixels (SNEMI3D's; scikit-image's). It tends to
            `1 - rand` as regions grow, and is NaN where no two pixels share a region on either side.
        adjusted_error: one less the adjusted Rand index of Hubert and Arabie 1985, which is 0 on average by chance.
        pixels: counted ones.
    """

    rand: float
    rand_split: float
    rand_merge: float
    info: float
    info_split: float
    info_merge: float
    adapted_error: float
    adjusted_error: float
    pixels: int


_NOTHING = RandScores(*[math.nan] * 8, pixels=0)


def rand_scores(
    predicted: np.ndarray | Tensor,
    truth: np.ndarray | Tensor,
    *,
    ignore: int | None = 0,
    alpha: float = 0.5,
    unassigned: Literal["region", "single"] = "region",
) -> RandScores:
    """Rand and information scores of two label maps, over the true foreground.

    Method: Arganda-Carreras et al. 2015, doi:10.3389/fnana.2015.00142, V^Rand and V^Info of the ISBI 2012 challenge;
    two pixels are drawn with replacement, so that a pixel also makes a pair with itself.

    Args:
        predicted: whole numbers of any shape, one number a region; the numbers themselves mean nothing.
        truth: the same shape.
        ignore: true pixels of this label are left out; None leaves out none.
        alpha: weight of merges against splits, in [0, 1]; the challenge and the F-score have 0.5.
        unassigned: what counted pixels are that the prediction gave the label `ignore`: one `region` like all others
            (as scikit-image has it), or each a `single` region of its own (as the challenge's program has it).

    Raises:
        ShapeError: the shapes differ.
        RangeError: labels are not whole numbers, or alpha is out of range.

    Example:
        >>> scores = rand_scores(np.array([[1, 1, 1, 1]]), np.array([[1, 1, 2, 2]]))
        >>> scores.rand_split, scores.rand_merge
        (1.0, 0.5)
    """
    if not 0 <= alpha <= 1:
        raise RangeError(f"alpha: must be in [0, 1], got {alpha}")
    found, there = _labels(predicted, "predicted"), _labels(truth, "truth")
    if found.shape != there.shape:
        raise ShapeError(f"predicted: expected the shape of truth, {there.shape}, got {found.shape}")
    counted = np.ones(there.shape, bool) if ignore is None else there != ignore
    found, there = found[counted], there[counted]
    if not len(there):
        return _NOTHING
    alone = found == ignore if unassigned == "single" and ignore is not None else None
    return _scores(found, there, alone, alpha)


def foreground_rand(
    predicted: np.ndarray | Tensor,
    truth: np.ndarray | Tensor,
    *,
    threshold: float = 0.5,
    thin: bool = True,
    alpha: float = 0.5,
) -> RandScores:
    """Foreground-restricted Rand score of cells that thin borders separate, as membranes do.

    Regions are the 4-connected components of the cells. True border pixels are left out, so that it does not matter how
    wide borders are drawn; what matters is whether they close.

    Method: as `rand_scores`; the challenge thinned predicted borders to a line of one pixel before. Differs: `thin`
    leaves no line, each border pixel joins its nearest predicted cell (the first of equally near ones), so that wide
    borders cost nothing. The challenge also took the best of eleven thresholds; here the threshold is one number.

    Args:
        predicted: `(h, w)` cells: bool or whole numbers, non-zero inside; or probabilities of *cell* (not of membrane).
        truth: `(h, w)` cells, non-zero inside; borders and void are zero.
        threshold: probabilities above it are cell; masks do not need it.
        thin: let predicted cells grow over predicted borders; else each predicted border pixel is a region of its own.
        alpha: see `rand_scores`.

    Raises:
        ShapeError: not two axes, or two sizes.
        RangeError: alpha is out of range.
    """
    found, there = _array(predicted), _array(truth)
    if found.ndim != 2 or found.shape != there.shape:
        raise ShapeError(f"cells: expected two maps (h, w) of one size, got {found.shape} and {there.shape}")
    cells = found > threshold if found.dtype.kind == "f" else found != 0
    regions = _components(cells)
    if thin and regions.any():
        near = ndimage.distance_transform_edt(~cells, return_distances=False, return_indices=True)
        regions = regions[tuple(np.asarray(near))]
    return rand_scores(regions, _components(there != 0), alpha=alpha, unassigned="single")


def _components(cells: np.ndarray) -> NDArray[np.int32]:
    """Numbers from 1 of the 4-connected regions, 0 outside."""
    regions = np.zeros(cells.shape, np.int32)
    ndimage.label(cells, output=regions)
    return regions


def _array(values: np.ndarray | Tensor) -> np.ndarray:
    return values.detach().cpu().numpy() if isinstance(values, Tensor) else np.asarray(values)


def _labels(values: np.ndarray | Tensor, name: str) -> np.ndarray:
    array = _array(values)
    if array.dtype.kind not in "uib":
        raise RangeError(f"{name}: expected whole numbers, one a region, got {array.dtype}")
    return array


def _dense(labels: np.ndarray) -> NDArray[np.int32]:
    """The same partition with small numbers from 0."""
    if labels.min() >= 0 and labels.max() <= 4 * len(labels):
        return labels.astype(np.int32)
    return np.unique(labels, return_inverse=True)[1].astype(np.int32)


def _scores(found: np.ndarray, there: np.ndarray, alone: np.ndarray | None, alpha: float) -> RandScores:
    """Scores of `(m,)` labels; pixels that are `alone` are regions of one pixel in the prediction."""
    pixels = len(there)
    true = _dense(there)
    true_sizes = np.bincount(true).astype(np.float64)
    singles = 0
    if alone is not None and alone.any():
        singles = int(alone.sum())
        found, true = found[~alone], true[~alone]
    overlap = found_sizes = np.zeros(0)
    if len(found):
        label = _dense(found)
        found_sizes = np.bincount(label).astype(np.float64)
        overlap = _pair_sizes(true, label, len(found_sizes)).astype(np.float64)
    # Whole numbers in doubles: exact up to 2^53, so for one region of 94 million pixels.
    p, s, t = (
        (sizes @ sizes) + extra for sizes, extra in ((overlap, singles), (found_sizes, singles), (true_sizes, 0))
    )
    h_s, h_t, h_p = (_entropy(sizes, pixels) for sizes in (found_sizes, true_sizes, overlap))
    shared = max(h_s + h_t - h_p, 0.0)
    pairs = alpha * (s - pixels) + (1 - alpha) * (t - pixels)
    return RandScores(
        rand=float(p / (alpha * s + (1 - alpha) * t)),
        rand_split=float(p / t),
        rand_merge=float(p / s),
        info=_share(shared, (1 - alpha) * h_s + alpha * h_t),
        info_split=_share(shared, h_s),
        info_merge=_share(shared, h_t),
        adapted_error=float(1 - (p - pixels) / pairs) if pairs > 0 else math.nan,
        adjusted_error=_adjusted_error(float(p), float(s), float(t), pixels),
        pixels=pixels,
    )


def _pair_sizes(true: np.ndarray, label: np.ndarray, columns: int) -> NDArray[np.int64]:
    """Pixels of each pair of regions, in any order; pairs without pixels may be there."""
    pair = true.astype(np.int64) * columns + label
    if int(pair.max()) <= 4 * len(pair):
        return np.bincount(pair)
    return np.unique(pair, return_counts=True)[1]


def _entropy(sizes: Floats, pixels: int) -> float:
    """Nats, of regions of these sizes and single pixels for the rest, whose part is 0 in `Σ n log n`."""
    kept = sizes[sizes > 0]
    return max(math.log(pixels) - float(kept @ np.log(kept)) / pixels, 0.0)


def _share(part: float, whole: float) -> float:
    return min(part / whole, 1.0) if whole > 1e-15 else 1.0


def _adjusted_error(p: float, s: float, t: float, pixels: int) -> float:
    """From the pairs that both, only the prediction, only the truth, and none put together."""
    both, only_found, only_true = p - pixels, s - p, t - p
    none = float(pixels) ** 2 - s - t + p
    if only_found == 0 and only_true == 0:
        return 0.0  # the same partition; also where chance allows no other
    bottom = (both + only_true) * (only_true + none) + (both + only_found) * (only_found + none)
    return 1 - 2 * (both * none - only_true * only_found) / bottom
