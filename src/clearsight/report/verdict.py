"""The first thing that a reader sees: what was trained, on what, for how long, how well it does, and what to know."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import PurePath
from typing import Any

import numpy as np

from clearsight.metrics.scores import Scores, main_metric
from clearsight.report.content import ReportContent
from clearsight.report.numbers import count, duration, interval, percent, score

__all__ = ["FIGURE_NAMES", "verdict"]

FIGURE_NAMES = {
    "map": "mAP",
    "map_50": "AP50",
    "map_75": "AP75",
    "map_small": "mAP, small objects",
    "map_medium": "mAP, medium objects",
    "map_large": "mAP, large objects",
    "mar_100": "Average recall",
    "voc_map_50": "VOC AP50",
    "accuracy": "Accuracy",
    "balanced_accuracy": "Balanced accuracy",
    "macro_f1": "Macro F1",
    "auc": "AUC",
    "calibration_error": "Calibration error",
    "loss": "Loss",
    "miou": "Mean IoU",
    "dice": "Mean Dice",
    "pixel_accuracy": "Pixel accuracy",
    "mean_accuracy": "Mean accuracy",
    "boundary_f": "Boundary F",
    "hd95": "HD95 (px)",
    "foreground_rand": "Rand score, foreground",
    "dsb_ap": "AP of the Data Science Bowl",
    "dsb_ap_50": "the same at IoU 0.5",
    "aji": "Aggregated Jaccard",
    "matched_iou": "IoU of found objects",
    "box_map": "mAP of boxes",
    "box_map_50": "AP50 of boxes",
}
"""Figures as they are called in print."""

_MODELS = {
    "light": "light detector",
    "classifier": "classifier",
    "retinanet": "RetinaNet",
    "fcos": "FCOS",
    "ssd": "SSD",
    "yolov3": "YOLOv3",
    "efficientdet": "EfficientDet",
    "reppoints": "RepPoints",
    "densebox": "DenseBox",
    "centernet": "CenterNet",
    "cornernet": "CornerNet",
    "rcnn": "R-CNN",
    "fast_rcnn": "Fast R-CNN",
    "faster_rcnn": "Faster R-CNN",
    "cascade_rcnn": "Cascade R-CNN",
    "unet": "U-Net",
    "transunet": "TransUNet",
    "swin_unet": "Swin-Unet",
    "semantic_fpn": "Semantic FPN",
    "danet": "DANet",
    "mask_rcnn": "Mask R-CNN",
    "deep_snake": "Deep Snake",
}
_KINDS = {
    "missed": "objects that were missed",
    "background": "detections where nothing is labelled",
    "poor box": "boxes that fit poorly",
    "wrong class": "objects given the wrong class",
    "duplicate": "objects found twice",
}


def verdict(content: ReportContent) -> list[str]:
    """Plain sentences, the most important first."""
    sentences = [_lead(content)]
    if content.main is not None:
        scores = content.main[1]
        sentences += [text for text in (_classes(scores), _mistakes(scores)) if text]
    sentences.append(_findings(content))
    return sentences


def _lead(content: ReportContent) -> str:
    recipe = content.recipe()
    model = recipe.get("model") or {}
    name = _MODELS.get(str(model.get("name", "")), "model")
    backbone = model.get("backbone")
    what = f"The {name}" + (f" on {backbone}" if backbone else "")
    how = [text for text in (_trained_on(content, recipe), _how_long(content)) if text]
    trained = f", trained {' '.join(how)}," if how else ""
    if content.main is None:
        return f"{what}{trained} has not been scored yet."
    split, scores = content.main
    metric = main_metric(scores.task)
    value = scores.summary.get(metric, math.nan)
    where = f"on the {count(scores.images)} images of the {split} split"
    if not math.isfinite(value):
        return f"{what}{trained} could not be scored {where}: they have nothing that could be found."
    figure = FIGURE_NAMES.get(metric, metric)
    figure = figure if figure.isupper() or figure == "mAP" else figure[0].lower() + figure[1:]
    within = interval(scores.intervals.get(metric))
    sure = f" (95 % interval {within})" if within else ""
    return f"{what}{trained} reaches {figure} {score(value)}{sure} {where}."


def _trained_on(content: ReportContent, recipe: dict[str, Any]) -> str:
    data = recipe.get("data") or {}
    images = content.data_statistics.get("images")
    number = images.get("train") if isinstance(images, dict) else None
    root = data.get("root") or data.get("format")
    named = PurePath(str(root)).name if root and root != "auto" else ""
    if number is None:
        return f"on {named}" if named else ""
    return f"on {count(number)} images" + (f" of {named}" if named else "")


def _how_long(content: ReportContent) -> str:
    steps, epochs = _highest(content, "step"), _highest(content, "epoch")
    parts = [duration(content.seconds)]
    if math.isfinite(epochs):
        parts.append(f"{count(epochs)} epoch{'s' if epochs != 1 else ''}")
    elif math.isfinite(steps):
        parts.append(f"{count(steps)} steps")
    parts = [part for part in parts if part]
    return f"for {parts[0]}" + (f" ({parts[1]})" if len(parts) > 1 else "") if parts else ""


def _highest(content: ReportContent, column: str) -> float:
    if column not in content.history or not len(content.history):
        return math.nan
    return float(np.asarray(content.history[column], dtype=np.float64).max())


def _classes(scores: Scores) -> str:
    """The best and the weakest class, and AP50 for detectors."""
    key, called = {"classification": ("recall", "recall"), "semantic": ("iou", "IoU")}.get(scores.task, ("ap", "AP"))
    known = [row for row in scores.per_class if math.isfinite(row.get(key, math.nan))]
    parts = []
    if math.isfinite(scores.summary.get("map_50", math.nan)):
        shapes = "masks" if scores.task == "instance" else "boxes"
        parts.append(f"AP50, for which {shapes} need to overlap only by half, is {score(scores.summary['map_50'])}.")
    if len(known) > 1:
        best, weak = max(known, key=lambda row: row[key]), min(known, key=lambda row: row[key])
        if score(best[key]) != score(weak[key]):
            parts.append(
                f"It does best on {best['class']} ({called} {score(best[key])}) and worst on {weak['class']} "
                f"({called} {score(weak[key])})."
            )
    return " ".join(parts)


def _mistakes(scores: Scores) -> str:
    total = sum(scores.mistakes.values())
    if scores.task == "classification":
        return f"It gives {count(total)} of {count(scores.images)} images the wrong class." if scores.images else ""
    if scores.task == "semantic":
        pixels = sum(map(sum, scores.confusion))
        return f"It gives {percent(total / pixels)} of the pixels the wrong class." if pixels else ""
    if not total:
        return ""
    kind, most = max(scores.mistakes.items(), key=lambda item: item[1])
    threshold = scores.settings.get("threshold", math.nan)
    at = f"From score {score(threshold, digits=2)} on it" if math.isfinite(threshold) else "It"
    if total == most:
        return f"{at} makes {count(total)} mistakes, all of them {_KINDS.get(kind, kind)}."
    part = "most" if 2 * most > total else "the largest part"
    return f"{at} makes {count(total)} mistakes, {part} of them {_KINDS.get(kind, kind)} ({percent(most / total)})."


def _findings(content: ReportContent) -> str:
    if not content.findings:
        return "The checks of data and run found nothing to report."
    parts = []
    for severity, word in (("error", "error"), ("warning", "warning"), ("info", "note")):
        kinds = Counter(f.id for f in content.findings if f.severity == severity)
        if not kinds:
            continue
        named = ", ".join(f"{kind} ×{count(number)}" if number > 1 else kind for kind, number in kinds.most_common(3))
        more = ", …" if len(kinds) > 3 else ""
        parts.append(f"{count(kinds.total())} {word}{'s' if kinds.total() != 1 else ''} ({named}{more})")
    listed = parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"
    return f"The checks of data and run gave {listed}."
