"""Scores of a detector: COCO and Pascal VOC average precision, and what explains them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from clearsight.metrics.scores import Scores
from clearsight.types import Instances

__all__ = ["ImageResult", "score_detection"]


@dataclass(slots=True, kw_only=True)
class ImageResult:
    """What was found in one image beside what is there, both in the file's own pixels.

    Args:
        path: the image file.
        size: `(height, width)` of the image.
        predicted: instances with scores.
        truth: instances without; `ignore` marks crowds and VOC's difficult objects.
    """

    path: Path
    size: tuple[int, int]
    predicted: Instances
    truth: Instances


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

    Args:
        results: one an image, in any order.
        classes: class names in label order.
        bootstrap: resamples of the images for the intervals; 0 gives none (and is what training uses between epochs).
        seed: of the resamples.
        threshold: score from which predictions count in the confusion matrix and the worst images; None takes the one
            with the best F1 over all classes together.
        worst: number of worst images to list.

    Returns:
        Scores, NaN where a figure does not exist.
    """
    raise NotImplementedError
