"""Collects what the report of a run shows: curves, scores, worst images and training samples, drawn."""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from clearsight.data.class_map import read_class_map
from clearsight.data.class_pixels import class_pixel_counts
from clearsight.data.decode import read_image
from clearsight.data.samples import SampleSet
from clearsight.doctor.run.diagnose import diagnose_log
from clearsight.doctor.run.own_log import read_own_log
from clearsight.metrics.scores import Scores
from clearsight.recipe.schema import Recipe
from clearsight.report.class_map_picture import draw_class_map
from clearsight.report.content import Picture, ReportContent
from clearsight.report.html import write_report
from clearsight.report.overlay import display_image, draw_instances, draw_label
from clearsight.train.compose import Parts
from clearsight.train.evaluate import SemanticPrediction
from clearsight.train.file_pixels import truth_of
from clearsight.train.folder import RunFolder
from clearsight.types import Classification, Finding, Instances, Record

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["describe_statistics", "write_run_report"]

WORST, SAMPLES = 12, 8


def write_run_report(
    folder: RunFolder,
    recipe: Recipe,
    parts: Parts,
    scores: Mapping[str, Scores],
    predictions: Sequence[Any],
    *,
    seconds: float,
) -> Path:
    """Write `report.html`.

    Args:
        folder: of the run.
        recipe: the run's.
        parts: data, samples and statistics.
        scores: by split; the first one's worst images are drawn.
        predictions: of that split, in the order of its records.
        seconds: how long the training took.

    Returns:
        The report's path.
    """
    history = pd.read_csv(folder.metrics) if folder.metrics.is_file() else pd.DataFrame()
    worst: list[Picture] = []
    for split, found in list(scores.items())[:1]:
        worst = _worst(parts.data.whole.split(split).records, found, predictions, recipe.eval.draw_threshold)
    logged = read_own_log(folder.path)
    diagnosis = diagnose_log(logged, earlier=folder.read_findings())
    content = ReportContent(
        title=recipe.name,
        recipe_yaml=folder.recipe.read_text(encoding="utf-8"),
        environment=folder.read_environment(),
        history=history,
        scores=dict(scores),
        data_statistics=describe_statistics(parts),
        findings=[_short_paths(finding, parts.data.whole.root) for finding in diagnosis.findings],
        record=logged.record,
        worst=worst,
        samples=_samples(parts.samples),
        run_folder=folder.path.name,
        seconds=seconds,
    )
    return write_report(folder.report, content)


def _short_paths(finding: Finding, root: Path) -> Finding:
    """Files named from the data's root, as the reader of a report knows them; `findings.jsonl` has them in full."""
    prefix = f"{root}{os.sep}"
    where, explanation = (text.replace(prefix, "") for text in (finding.where, finding.explanation))
    return replace(finding, where=where, explanation=explanation)


def describe_statistics(parts: Parts) -> dict[str, Any]:
    """Images and objects of each split and class, sizes of images and objects, channel statistics.

    Of semantic maps, the share of each class among the training pixels in place of what is said of objects.
    """
    data = parts.data
    named = {"train": data.train, "val": data.val, "test": data.test}
    given = {name: part for name, part in named.items() if part is not None}
    stated = {
        "images": {name: len(part) for name, part in given.items()},
        "image_sizes": _sizes(data.train.records),
        "mean": list(parts.statistics.mean),
        "std": list(parts.statistics.std),
    }
    if data.whole.task == "semantic":
        pixels = class_pixel_counts(data.train).pixels
        shares = (pixels / max(1, pixels.sum())).tolist()
        return stated | {"share of pixels": dict(zip(data.whole.classes, shares, strict=True))}
    boxes = np.array([item.box for record in data.train.records for item in record.objects], dtype=np.float64)
    sides = boxes.reshape(-1, 4)[:, 2:] - boxes.reshape(-1, 4)[:, :2]
    return stated | {
        "counts": {name: part.counts() for name, part in given.items()},
        "object_sizes": np.sqrt(sides.prod(axis=1)).round(2).tolist(),
        "objects_per_image": [len(record.objects) for record in data.train.records],
    }


def _sizes(records: Iterable[Record]) -> dict[str, int]:
    """Number of images by `width×height`, the most frequent first."""
    found = Counter(f"{record.size[1]}×{record.size[0]}" for record in records if record.size is not None)
    return dict(sorted(found.items(), key=lambda pair: (-pair[1], pair[0])))


def _worst(records: Sequence[Record], scores: Scores, predictions: Sequence[Any], threshold: float) -> list[Picture]:
    """The worst images with predictions and truth drawn, from the score that their captions count from."""
    counted = float(scores.settings.get("threshold", math.nan))
    threshold = counted if math.isfinite(counted) else threshold
    pictures: list[Picture] = []
    for entry in scores.worst[:WORST]:
        record, found = records[entry["image"]], predictions[entry["image"]]
        image = read_image(record.image)
        caption = f"{record.image.name}: {entry['why']}"
        if isinstance(found, SemanticPrediction):
            labels, truth = found.labels.labels(), read_class_map(record)
            pictures.append((draw_class_map(image, labels, scores.classes, truth=truth), caption))
            continue
        if isinstance(found, Classification):
            said = f"{scores.classes[found.label]} ({found.score:.0%})"
            pictures.append((draw_label(image, said, good=found.label == record.label), caption))
            continue
        instances: Instances = found[0]
        if instances.scores is not None:
            instances = instances.select(instances.scores >= threshold)
        truth = truth_of(record, shapes=instances.contours is not None)
        pictures.append((draw_instances(image, instances, scores.classes, truth=truth), caption))
    return pictures


def _samples(samples: SampleSet) -> list[Picture]:
    """Training images as the model sees them, changed at random, with their targets."""
    pictures: list[Picture] = []
    step = max(1, len(samples) // SAMPLES)
    for index in range(0, len(samples), step)[:SAMPLES]:
        sample = samples[0, index]
        image = np.asarray(sample.image.permute(1, 2, 0))
        caption = sample.meta.path.name
        if sample.instances is not None:
            pictures.append((draw_instances(image, sample.instances, samples.classes), caption))
        elif sample.semantic is not None:
            pictures.append((draw_class_map(image, sample.semantic.numpy(), samples.classes), caption))
        elif isinstance(sample.label, int):
            pictures.append((draw_label(image, samples.classes[sample.label]), caption))
        else:
            pictures.append((display_image(image), caption))
    return pictures
