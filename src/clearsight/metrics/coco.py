"""COCO's twelve figures, from torchmetrics with the faster-coco-eval backend."""

from __future__ import annotations

from collections.abc import Sequence
from math import nan

import numpy as np
from torch import Tensor

from clearsight.metrics.results import ImageResult
from clearsight.types import Instances

__all__ = ["coco_summary"]

_WANTED = ("map", "map_50", "map_75", "map_small", "map_medium", "map_large", "mar_100")


def coco_summary(results: Sequence[ImageResult]) -> dict[str, float]:
    """COCO mAP and its relatives, as `pycocotools` gives them.

    Args:
        results: one an image; ignored objects are crowds.

    Returns:
        `map`, `map_50`, `map_75`, `map_small`, `map_medium`, `map_large`, `mar_100` in [0, 1]; NaN where no object of
        that size exists.
    """
    if not any(len(r.truth) for r in results):
        return dict.fromkeys(_WANTED, nan)
    from torchmetrics.detection import MeanAveragePrecision  # takes seconds to import

    # Its own thresholds are 32-bit: a recall of exactly 0.1 then misses the level 0.1 and the figures differ from
    # pycocotools' by up to 5e-4; see tests/metrics/test_coco.py.
    metric = MeanAveragePrecision(
        backend="faster_coco_eval",
        iou_thresholds=np.linspace(0.5, 0.95, 10).tolist(),
        rec_thresholds=np.linspace(0.0, 1.0, 101).tolist(),
    )
    metric.warn_on_many_detections = False  # more than 100 an image are cut by COCO's rules, in silence
    metric.update([_predicted(r.predicted) for r in results], [_truth(r.truth) for r in results])
    figures = metric.compute()
    values = {name: float(figures[name]) for name in _WANTED}
    return {name: value if value >= 0 else nan for name, value in values.items()}


def _predicted(found: Instances) -> dict[str, Tensor]:
    scores = found.scores if found.scores is not None else found.boxes.new_zeros(len(found))
    return {
        "boxes": found.boxes.float().reshape(-1, 4).cpu(),
        "scores": scores.float().cpu(),
        "labels": found.labels.cpu(),
    }


def _truth(found: Instances) -> dict[str, Tensor]:
    truth = {"boxes": found.boxes.float().reshape(-1, 4).cpu(), "labels": found.labels.cpu()}
    if found.ignore is not None:
        truth["iscrowd"] = found.ignore.long().cpu()
    return truth
