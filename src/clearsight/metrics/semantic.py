"""Scores of a segmenter of classes: overlap and boundaries of each class, intervals over images, the worst images."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clearsight.errors import ShapeError
from clearsight.metrics.bootstrap import percentile_interval, resample_counts
from clearsight.metrics.compare_maps import SemanticResult
from clearsight.metrics.confusion_counts import (
    VOID,
    OverlapFigures,
    known_mean,
    overlap_figures,
    resampled_figures,
)
from clearsight.metrics.scores import Scores

__all__ = ["score_semantic"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

_NAMED = 3  # confusions that are listed of a bad image
_REGIONS = {
    "foreground_rand": "rand",
    "foreground_rand_split": "rand_split",
    "foreground_rand_merge": "rand_merge",
    "foreground_info": "info",
}


def score_semantic(
    results: Sequence[SemanticResult], classes: Sequence[str], *, bootstrap: int = 0, seed: int = 0, worst: int = 24
) -> Scores:
    """All figures of a segmenter on one split.

    Overlap figures come from the pixels of all images together; boundary figures are means over the images in which the
    class has a boundary, as both papers have it. Averages over classes leave out classes whose figure does not exist.

    Args:
        results: one an image, of `compare_maps`.
        classes: class names in label order.
        bootstrap: resamples of the images for the intervals; 0 gives none.
        seed: of the resamples.
        worst: number of worst images to list.

    Returns:
        Scores, NaN where a figure does not exist.

        `summary`: `miou`, `dice` (mean over classes), `pixel_accuracy`, `mean_accuracy` (mean recall), `boundary_f`,
        and `hd95`, which is in pixels, not in [0, 1], and lower is better; where `compare_maps` was given `cells`, also
        `foreground_rand`, `foreground_rand_split`, `foreground_rand_merge` and `foreground_info`, means over images.
        Intervals are given for all of these.

        `per_class`: `class`, `pixels` (true ones), `iou`, `iou_low`, `iou_high`, `dice`, `dice_low`, `dice_high`,
        `precision`, `recall`, `boundary_f`, `hd95`, and `boundary_missing`, the number of images where only the truth
        or only the prediction has a boundary: `boundary_f` counts them as 0, `hd95` leaves them out, as no distance
        stands for them.

        `confusion`: pixels; rows are the truth. `mistakes`: wrong pixels. `worst`: lowest mean IoU of the image first,
        `error` is one less that; images without a wrong pixel are not listed.

    Raises:
        ShapeError: a result is of another number of classes.
    """
    names = tuple(classes)
    counts = _stacked(results, len(names))
    total = counts.sum(axis=0)
    figures = overlap_figures(total)
    boundary = _per_image(results, "boundary_f", len(names))
    distance = _per_image(results, "hd95", len(names))
    regions = {name: _regions(results, source) for name, source in _REGIONS.items()} if _has_regions(results) else {}
    edge_f, edge_distance = known_mean(boundary, axis=0), known_mean(distance, axis=0)
    missing = np.isinf(distance).sum(axis=0)
    tolerances = sorted({one.tolerance for one in results})
    scores = Scores(
        task="semantic",
        classes=names,
        images=len(results),
        summary={
            **_overlap_summary(figures),
            "boundary_f": float(known_mean(edge_f)),
            "hd95": float(known_mean(edge_distance)),
            **{name: float(known_mean(values)) for name, values in regions.items()},
        },
        per_class=[
            {
                "class": name,
                "pixels": int(total[k].sum()),
                **{figure: float(getattr(figures, figure)[k]) for figure in ("iou", "dice", "precision", "recall")},
                "boundary_f": float(edge_f[k]),
                "hd95": float(edge_distance[k]),
                "boundary_missing": int(missing[k]),
                **dict.fromkeys(("iou_low", "iou_high", "dice_low", "dice_high"), math.nan),
            }
            for k, name in enumerate(names)
        ],
        confusion=total.tolist(),
        worst=_worst(results, counts, names, worst),
        mistakes={"wrong class": int(total.sum() - np.trace(total))},
        settings={
            "tolerance": tolerances[0] if len(tolerances) == 1 else tolerances,
            "void": VOID,
            "bootstrap": bootstrap,
            "seed": seed,
            "level": 0.95,
        },
    )
    if bootstrap and len(results) > 1:
        drawn = resample_counts(len(results), bootstrap, seed=seed)
        _add_intervals(scores, resampled_figures(counts, drawn))
        for name, values in {"boundary_f": boundary, "hd95": distance, **regions}.items():
            scores.intervals[name] = percentile_interval(_resampled_mean(values, drawn))
    return scores


def _stacked(results: Sequence[SemanticResult], classes: int) -> Ints:
    """`(n, k, k)` confusion counts."""
    for one in results:
        if one.counts.shape != (classes, classes):
            raise ShapeError(
                f"{one.path}: counts of {one.counts.shape[0]} classes, and {classes} are named; compare the maps and "
                "score them with the same classes"
            )
    return np.stack([one.counts for one in results]) if results else np.zeros((0, classes, classes), np.int64)


def _per_image(results: Sequence[SemanticResult], name: str, classes: int) -> Floats:
    return np.array([getattr(one, name) for one in results], np.float64).reshape(-1, classes)


def _has_regions(results: Sequence[SemanticResult]) -> bool:
    return any(one.rand is not None for one in results)


def _regions(results: Sequence[SemanticResult], name: str) -> Floats:
    return np.array([math.nan if one.rand is None else getattr(one.rand, name) for one in results], np.float64)


def _overlap_summary(figures: OverlapFigures) -> dict[str, float]:
    return {
        "miou": float(figures.miou),
        "dice": float(figures.mean_dice),
        "pixel_accuracy": float(figures.pixel_accuracy),
        "mean_accuracy": float(figures.mean_accuracy),
    }


# ------------------------------------------------------------------------------------------------ intervals
def _add_intervals(scores: Scores, figures: OverlapFigures) -> None:
    """Fill in the intervals of overlap: images are drawn anew, their pixels are added up anew."""
    wanted = {
        "miou": figures.miou,
        "dice": figures.mean_dice,
        "pixel_accuracy": figures.pixel_accuracy,
        "mean_accuracy": figures.mean_accuracy,
    }
    scores.intervals.update({name: percentile_interval(values) for name, values in wanted.items()})
    for k, row in enumerate(scores.per_class):
        row["iou_low"], row["iou_high"] = percentile_interval(figures.iou[:, k])
        row["dice_low"], row["dice_high"] = percentile_interval(figures.dice[:, k])


def _resampled_mean(values: Floats, drawn: Ints) -> Floats:
    """`(b,)` means over images, then over classes, of `(n, k)` or `(n,)` figures of images."""
    known, weight = np.isfinite(values), drawn.astype(np.float64)
    top, bottom = weight @ np.where(known, values, 0.0), weight @ known.astype(np.float64)
    means = np.divide(top, bottom, out=np.full(top.shape, np.nan), where=bottom > 0)
    return means if means.ndim == 1 else known_mean(means)


# ------------------------------------------------------------------------------------------------ worst images
def _worst(results: Sequence[SemanticResult], counts: Ints, names: tuple[str, ...], limit: int) -> list[dict[str, Any]]:
    """The images with the lowest mean IoU first, of equals in the order given."""
    rows: list[dict[str, Any]] = []
    wrong = counts.copy()
    wrong[:, np.arange(len(names)), np.arange(len(names))] = 0
    overlap = overlap_figures(counts).miou
    order = np.argsort(overlap, kind="stable")  # NaN comes last
    for index in order[wrong.sum(axis=(1, 2))[order] > 0][:limit].tolist():
        mistakes = _confusions(wrong[index], counts[index], names)
        rows.append(
            {
                "image": index,
                "path": str(results[index].path),
                "error": 1 - float(overlap[index]),
                "why": _why(mistakes, float(overlap[index])),
                "mistakes": mistakes,
            }
        )
    return rows


def _confusions(wrong: Ints, counts: Ints, names: tuple[str, ...]) -> list[dict[str, Any]]:
    """The most frequent confusions of an image, with their shares of its pixels and of the true class."""
    rows = []
    for place in np.argsort(-wrong, axis=None, kind="stable")[:_NAMED].tolist():
        truth, found = divmod(place, len(names))
        pixels = int(wrong[truth, found])
        if not pixels:
            break
        rows.append(
            {
                "kind": "wrong class",
                "truth": names[truth],
                "predicted": names[found],
                "pixels": pixels,
                "share": pixels / int(counts.sum()),
                "class_share": pixels / int(counts[truth].sum()),
            }
        )
    return rows


def _why(mistakes: Sequence[dict[str, Any]], overlap: float) -> str:
    """One line, for example "12% of the pixels: cell taken for membrane (15% of cell); mean IoU 0.71"."""
    parts = [
        f"{_percent(m['share'])} of the pixels: {m['truth']} taken for {m['predicted']} "
        f"({_percent(m['class_share'])} of {m['truth']})"
        for m in mistakes
    ]
    return "; ".join([*parts, f"mean IoU {overlap:.2f}"])


def _percent(share: float) -> str:
    return f"{share:.0%}" if share >= 0.095 else f"{share:.1%}" if share >= 0.001 else "under 0.1%"
