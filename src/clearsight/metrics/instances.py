"""Scores of instance segmentation: everything that a detector's scores have, by the overlap of masks, and more."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from clearsight.errors import RangeError
from clearsight.metrics.average_precision import average_precision
from clearsight.metrics.bootstrap import percentile_interval, resample_counts
from clearsight.metrics.boundary import boundary_f
from clearsight.metrics.mask_overlap import mask_overlap
from clearsight.metrics.match import COCO_AREAS, COCO_IOUS, flatten, match_coco
from clearsight.metrics.objects import LIMIT, ObjectScores, finite_mean, ignored_objects, score_objects
from clearsight.metrics.overlaps import Overlap
from clearsight.metrics.results import ImageResult
from clearsight.metrics.scores import Scores
from clearsight.ops.outlines import polygons_to_masks
from clearsight.types import Instances

__all__ = ["score_instances"]

Floats = NDArray[np.float64]

_TOLERANCE = 2.0  # px, of the boundary F
_COVERED = 0.5  # share of a prediction on an ignored region from which it is no mistake


class _Parts(NamedTuple):
    """A figure as the ratio of two sums over the images, which a bootstrap resample weights.

    Args:
        part: `(n,)` numerators.
        whole: `(n,)` denominators; an image with 0 has no say.
    """

    part: Floats
    whole: Floats

    def ratio(self, counts: NDArray[np.int64]) -> Floats:
        """`(b,)` of `(b, n)` counts; NaN where nothing is there to be measured."""
        part, whole = counts @ self.part, counts @ self.whole
        return np.divide(part, whole, out=np.full(len(counts), np.nan), where=whole > 0)


def score_instances(
    results: Sequence[ImageResult],
    classes: Sequence[str],
    *,
    bootstrap: int = 0,
    seed: int = 0,
    threshold: float | None = None,
    worst: int = 24,
) -> Scores:
    """All figures of an instance segmenter on one split.

    Predictions are matched to objects of their class by the IoU of masks, which are drawn from contours (see
    `mask_overlap`); sizes are numbers of pixels. An object without pixels is never found. Ignored objects are crowds,
    by COCO's rule, in every figure.

    Figures of the summary, beside COCO's own of masks (`map` … `mar_100`, as pycocotools gives them for `segm`):

    - `box_map`, `box_map_50`: COCO's of the boxes.
    - `dsb_ap`, `dsb_ap_50`: TP / (TP + FP + FN) of the predictions above the threshold, mean over IoU 0.5 … 0.95 (or at
      0.5), then over images; classes are pooled. Method: Caicedo et al. 2019, doi 10.1038/s41592-019-0612-7, and the
      rules of the 2018 Data Science Bowl. An image where nothing is and nothing is found does not count.
    - `aji`: aggregated Jaccard index, mean over images. Method: Kumar et al. 2017, doi 10.1109/TMI.2017.2677499,
      algorithm 1. Differs from it: within classes, and an object that nothing meets adds only itself to the union.
    - `boundary_f`: F of the boundaries at 2 px, of each object with the prediction that found it (IoU 0.5, threshold),
      0 for a missed one; mean over the objects of all images. False detections do not lower it. A pair that fills the
      image has no boundary and does not count.
    - `matched_iou`: mean IoU of these pairs.

    Args:
        results: one an image, in any order, with contours.
        classes: class names in label order.
        bootstrap: resamples of the images for the intervals; 0 gives none.
        seed: of the resamples.
        threshold: score from which predictions count in all but average precision; None takes the one with the best
            F1 at IoU 0.5 over all classes together.
        worst: number of worst images to list.

    Returns:
        Scores, NaN where a figure does not exist. Intervals are given for `map`, `map_50`, `map_75`, `dsb_ap`, `aji`
        and `boundary_f`.

    Raises:
        RangeError: a label lies outside the classes, predictions lack scores, objects lack contours, or `threshold`
            lies outside [0, 1].
    """
    names = tuple(classes)
    overlaps = [_overlap(result) for result in results]
    found = score_objects(
        results,
        names,
        task="instance",
        bootstrap=bootstrap,
        seed=seed,
        threshold=threshold,
        worst=worst,
        overlaps=overlaps,
    )
    scores = found.scores
    least = found.least
    by_iou = _challenge(results, names, overlaps, least)
    parts = {
        "dsb_ap": by_iou[-1],
        "dsb_ap_50": by_iou[0],
        "aji": _aggregated_jaccard(results, overlaps, least),
        "boundary_f": _boundaries(results, found),
        "matched_iou": _matched_iou(found),
    }
    once = np.ones((1, len(results)), np.int64)
    scores.summary = {
        **_coco_figures(found),
        **_box_figures(results, names),
        **{name: float(figure.ratio(once)[0]) for name, figure in parts.items()},
    }
    scores.settings["tolerance"] = _TOLERANCE
    if bootstrap and len(results) > 1:
        counts = resample_counts(len(results), bootstrap, seed=seed)
        for name in ("dsb_ap", "aji", "boundary_f"):
            scores.intervals[name] = percentile_interval(parts[name].ratio(counts))
    return scores


def _overlap(result: ImageResult) -> Overlap:
    try:
        return mask_overlap(result.predicted, result.truth, result.size)
    except RangeError as err:
        raise RangeError(f"{result.path}: {err}") from err


# ------------------------------------------------------------------------------------------------ average precision
def _coco_figures(found: ObjectScores) -> dict[str, float]:
    ap = found.table.ap[0]  # a t k
    figures = {
        "map": finite_mean(ap[0]),
        "map_50": finite_mean(ap[0, 0]),
        "map_75": finite_mean(ap[0, COCO_IOUS.round(2).tolist().index(0.75)]),
    }
    for place, size in enumerate(("small", "medium", "large"), start=1):
        figures[f"map_{size}"] = finite_mean(ap[place])
    return figures | {"mar_100": finite_mean(found.table.recall[0, 0])}


def _box_figures(results: Sequence[ImageResult], names: Sequence[str]) -> dict[str, float]:
    found = flatten(results, len(names), predicted=True, limit=LIMIT)
    truth = flatten(results, len(names), predicted=False)
    matches = match_coco(found, truth, images=len(results), classes=len(names), areas=[COCO_AREAS["all"]])
    ap = average_precision(matches).ap[0, 0]
    return {"box_map": finite_mean(ap), "box_map_50": finite_mean(ap[0])}


# ------------------------------------------------------------------------------------------------ by image
def _challenge(
    results: Sequence[ImageResult], names: Sequence[str], overlaps: Sequence[Overlap], least: float
) -> list[_Parts]:
    """TP / (TP + FP + FN) of each image at each IoU threshold, and last the mean over them."""
    count = len(results)
    found = flatten(results, len(names), predicted=True, least=least, areas=[one.found for one in overlaps])
    truth = flatten(results, len(names), predicted=False, areas=[one.truth for one in overlaps])
    pairs = [one.iou(ignored_objects(result)) for one, result in zip(overlaps, results, strict=True)]
    matches = match_coco(found, truth, images=count, classes=len(names), areas=[COCO_AREAS["all"]], overlaps=pairs)
    objects = matches.truth[0].sum(axis=1)  # n
    figures: list[_Parts] = []
    for hit, skip in zip(matches.hit[0], matches.skip[0], strict=True):
        right = np.bincount(matches.image[hit], minlength=count)
        every = objects + np.bincount(matches.image[~hit & ~skip], minlength=count)
        figures.append(_Parts(right / np.maximum(every, 1), (every > 0).astype(np.float64)))
    # An image has a say at all thresholds or (when crowds take its only predictions at some) at some of them.
    part, whole = (np.stack(arrays) for arrays in zip(*figures, strict=True))  # t n
    known = whole.any(axis=0)
    mean = np.divide(part.sum(axis=0), whole.sum(axis=0), out=np.zeros(count), where=known)
    return [*figures, _Parts(mean, np.asarray(known, np.float64))]


def _aggregated_jaccard(results: Sequence[ImageResult], overlaps: Sequence[Overlap], least: float) -> _Parts:
    part, whole = np.zeros(len(results)), np.zeros(len(results))
    for index, (result, overlap) in enumerate(zip(results, overlaps, strict=True)):
        predicted, ignored = result.predicted, ignored_objects(result)
        kept = np.zeros(0, bool) if predicted.scores is None else predicted.scores.double().cpu().numpy() >= least
        labels = predicted.labels.cpu().numpy()[kept]
        same = labels[:, None] == result.truth.labels.cpu().numpy()[None, ~ignored]
        shared = np.where(same, overlap.intersection[kept][:, ~ignored], 0.0)
        union = overlap.found[kept][:, None] + overlap.truth[None, ~ignored] - shared
        iou = np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)
        met = np.flatnonzero(iou.max(axis=0, initial=0.0) > 0)  # objects that a prediction meets
        best = iou[:, met].argmax(axis=0) if len(met) else np.zeros(0, np.int64)
        missed = np.ones(shared.shape[1], bool)
        missed[met] = False
        unused = np.all(overlap.covered()[kept][:, ignored] < _COVERED, axis=1)
        unused[best] = False
        total = union[best, met].sum() + overlap.truth[~ignored][missed].sum() + overlap.found[kept][unused].sum()
        part[index], whole[index] = shared[best, met].sum() / max(total, 1.0), float(total > 0)
    return _Parts(part, whole)


def _matched_iou(found: ObjectScores) -> _Parts:
    part = [sum(iou for _, _, iou in image.matched) for image in found.images]
    return _Parts(np.array(part, np.float64), np.array([len(image.matched) for image in found.images], np.float64))


def _boundaries(results: Sequence[ImageResult], found: ObjectScores) -> _Parts:
    part, whole = np.zeros(len(results)), np.zeros(len(results))
    for index, (result, image) in enumerate(zip(results, found.images, strict=True)):
        rings = _rings(result.predicted), _rings(result.truth)
        pairs = [(rings[0][mine], rings[1][other]) for mine, other, _ in image.matched]
        values = np.array([_pair_boundary(pair, result.size) for pair in pairs], np.float64)
        part[index] = np.nansum(values)
        whole[index] = (~ignored_objects(result)).sum() - np.isnan(values).sum()
    return _Parts(part, whole)


def _pair_boundary(pair: tuple[list[np.ndarray], list[np.ndarray]], size: tuple[int, int]) -> float:
    """Of the rings of one prediction and one object, in a window around both."""
    height, width = size
    points = np.concatenate([ring for rings in pair for ring in rings])
    # One pixel of surroundings: what ends at the window's frame would not be a boundary.
    low = np.clip(np.floor(points.min(axis=0)) - 1, 0, (width, height)).astype(int)
    high = np.clip(np.ceil(points.max(axis=0)) + 1, 0, (width, height)).astype(int)
    window = int(high[1] - low[1]), int(high[0] - low[0])
    drawn = polygons_to_masks([[ring - low for ring in rings] for rings in pair], window)
    return float(boundary_f(drawn[0], drawn[1], tolerance=_TOLERANCE))


def _rings(instances: Instances) -> list[list[np.ndarray]]:
    """The rings of each object."""
    rings: list[list[np.ndarray]] = [[] for _ in range(len(instances))]
    if instances.contours is not None and instances.ring_object is not None:
        contours = instances.contours.detach().double().cpu().numpy()
        for ring, owner in zip(contours, instances.ring_object.tolist(), strict=True):
            rings[owner].append(ring)
    return rings
