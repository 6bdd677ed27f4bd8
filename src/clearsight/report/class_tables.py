"""The table of the classes, as each task has it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from clearsight.metrics.scores import Scores
from clearsight.report.cells import Cell, Column, Table, count_cell, number_cell, score_cell
from clearsight.report.numbers import DASH, general, interval
from clearsight.report.palette import class_color, to_hex

__all__ = ["class_table"]


def class_table(scores: Scores) -> Table | None:
    """A row a class; None where nothing was scored by class."""
    if not scores.per_class:
        return None
    if scores.task == "classification":
        return _classifier_classes(scores)
    return _segmenter_classes(scores) if scores.task == "semantic" else _detector_classes(scores)


def _segmenter_classes(scores: Scores) -> Table:
    columns = [
        Column("Class", number=False),
        Column("Pixels", help="Of this class in the truth, over all images"),
        Column("IoU", help="Pixels that truth and prediction share, of those that either has"),
        Column("IoU, 95 % interval", help="Percentile bootstrap over images; the axis runs from 0 to 1"),
        Column("Dice", help="Twice what they share, of the pixels of both together; the F1 of pixels"),
        Column("Precision", help="Share of the pixels called so that are right"),
        Column("Recall", help="Share of the class's pixels that are found"),
        Column("Boundary F", help="F1 of the boundary's pixels, right within a small distance; mean over images"),
        Column("HD95 (px)", help="95th percentile of the distance between the boundaries; mean over images"),
    ]
    rows = []
    for row in scores.per_class:
        distance = float(row.get("hd95", math.nan))
        figures = [score_cell(row, key) for key in ("dice", "precision", "recall", "boundary_f")]
        figures = [score_cell(row, "iou"), _spread(row, "iou"), *figures, number_cell(distance, general(distance))]
        rows.append([_name(scores, row), count_cell(row, "pixels"), *figures])
    tolerance = scores.settings.get("tolerance", math.nan)
    return Table(
        "classes",
        "Each class",
        f"Boundaries are right within {tolerance:g} pixels. A dash means that the figure does not exist, for example "
        "because neither truth nor prediction has the class. Click a head to sort.",
        columns,
        rows,
    )


def _spread(row: Mapping[str, Any], key: str) -> Cell:
    """The interval of a figure, drawn on an axis from 0 to 1."""
    low, value, high = (float(row.get(name, math.nan)) for name in (f"{key}_low", key, f"{key}_high"))
    known = all(math.isfinite(v) for v in (low, value, high))
    text = interval((low, high)) or DASH
    return Cell(text, high - low if known else math.nan, whisker=(low, value, high) if known else None)


def _name(scores: Scores, row: Mapping[str, Any]) -> Cell:
    return Cell(row["class"], row["class"], color=to_hex(class_color(scores.classes.index(row["class"]))))


def _detector_classes(scores: Scores) -> Table:
    columns = [
        Column("Class", number=False),
        Column("Objects", help="Annotated objects, without ignored ones"),
        Column("AP", help="Average precision, mean over IoU 0.50 to 0.95 (COCO)"),
        Column("AP, 95 % interval", help="Percentile bootstrap over images; the axis runs from 0 to 1"),
        Column("AP50", help="Average precision at IoU 0.50"),
        Column("AP75", help="Average precision at IoU 0.75"),
        Column("Score", help="The score from which F1 is best"),
        Column("Precision", help="Share of detections from that score on that are right"),
        Column("Recall", help="Share of objects that they find"),
        Column("F1", help="Harmonic mean of precision and recall"),
    ]
    rows = []
    for row in scores.per_class:
        figures = [score_cell(row, key) for key in ("ap_50", "ap_75", "threshold", "precision", "recall", "f1")]
        rows.append(
            [_name(scores, row), count_cell(row, "objects"), score_cell(row, "ap"), _spread(row, "ap"), *figures]
        )
    return Table(
        "classes",
        "Each class",
        "Precision, recall and F1 are given at IoU 0.5 and at each class's own best score. A dash means that the "
        "figure does not exist, for example because the split has no object of the class. Click a head to sort.",
        columns,
        rows,
    )


def _classifier_classes(scores: Scores) -> Table:
    columns = [
        Column("Class", number=False),
        Column("Images", help="Images of this class"),
        Column("Precision", help="Share of answers of this class that are right"),
        Column("Recall", help="Share of the class's images that are recognised"),
        Column("F1", help="Harmonic mean of precision and recall"),
        Column("AUC", help="Area under the ROC curve, the class against the rest"),
        Column("AP", help="Average precision, the class against the rest"),
    ]
    rows = [
        [_name(scores, row), count_cell(row, "support")]
        + [score_cell(row, key) for key in ("precision", "recall", "f1", "auc", "ap")]
        for row in scores.per_class
    ]
    return Table(
        "classes",
        "Each class",
        "A dash means that the figure does not exist, for example because the split has no image of the class. Click a "
        "head to sort.",
        columns,
        rows,
    )
