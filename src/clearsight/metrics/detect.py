"""Scores of a detector: COCO and Pascal VOC average precision, and what explains them."""

from __future__ import annotations

from collections.abc import Sequence

from clearsight.metrics.coco import coco_summary
from clearsight.metrics.objects import finite_mean, score_objects
from clearsight.metrics.results import ImageResult
from clearsight.metrics.scores import Scores

__all__ = ["ImageResult", "score_detection"]


def score_detection(
    results: Sequence[ImageResult],
    classes: Sequence[str],
    *,
    bootstrap: int = 0,
    seed: int = 0,
    threshold: float | None = None,
    worst: int = 24,
) -> Scores:
    """All figures of a detector on one split.

    Objects marked `ignore` follow each protocol's own rule: COCO's for crowds (overlap measured by the detection's
    area, any number of detections on one), VOC's for difficult objects. They are never counted as missed.

    Args:
        results: one an image, in any order.
        classes: class names in label order.
        bootstrap: resamples of the images for the intervals; 0 gives none (and is what training uses between epochs).
        seed: of the resamples.
        threshold: score from which predictions count in the confusion matrix and the worst images; None takes the one
            with the best F1 over all classes together.
        worst: number of worst images to list.

    Returns:
        Scores, NaN where a figure does not exist. Intervals are given for `map`, `map_50` and `map_75`.

    Raises:
        RangeError: a label lies outside the classes, predictions lack scores, or `threshold` lies outside [0, 1].
    """
    found = score_objects(
        results, classes, task="detection", bootstrap=bootstrap, seed=seed, threshold=threshold, worst=worst
    )
    scores = found.scores
    scores.summary = {
        **coco_summary(results),
        "voc_map_50": finite_mean([row["voc_ap_50"] for row in scores.per_class]),
    }
    return scores
