"""Scores of a model on a split: predictions over the loader, mapped to the files' pixels, gathered and scored."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import nn

from clearsight.data.class_map import read_class_map
from clearsight.data.dataset import Dataset
from clearsight.data.kept_map import KeptMap
from clearsight.errors import ConfigError, DataError, nearest
from clearsight.metrics.classify import score_classification
from clearsight.metrics.compare_maps import SemanticResult, compare_maps
from clearsight.metrics.detect import score_detection
from clearsight.metrics.instances import score_instances
from clearsight.metrics.results import ImageResult
from clearsight.metrics.scores import Scores
from clearsight.metrics.semantic import score_semantic
from clearsight.ops.selection import Selection
from clearsight.recipe.schema import EvalConfig
from clearsight.train.file_pixels import labels_in_file, to_file_pixels, truth_of
from clearsight.train.state import SizedBatches
from clearsight.types import Batch, Classification, ImageMeta, Task

if TYPE_CHECKING:
    import numpy as np
    from lightning_fabric import Fabric

    from clearsight.types import Instances

__all__ = ["Evaluator", "SemanticPrediction", "predict_split", "region_class", "selection_of"]


class SemanticPrediction(NamedTuple):
    """What is kept of a segmenter's answer.

    Args:
        result: how it compares with the truth, at the file's size.
        labels: its classes, packed, for a picture.
    """

    result: SemanticResult
    labels: KeptMap


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluator:
    """Scores models on one split; what `fit` takes as `evaluate`.

    Args:
        fabric: launched; with several processes each predicts its share and all get all results.
        dataset: the split.
        loader: its batches in order, without augmentation, `drop_last` off.
        config: the recipe's `eval` section.
        task: the recipe's.
    """

    fabric: Fabric
    dataset: Dataset
    loader: SizedBatches
    config: EvalConfig
    task: Task

    def __call__(self, model: nn.Module) -> dict[str, float]:
        """The summary figures, without intervals: fast enough for every epoch."""
        return self.score(predict_split(self, model), bootstrap=0).summary

    def score(self, predictions: Sequence[Any], *, bootstrap: int) -> Scores:
        """All figures of `predict_split`'s result.

        Args:
            predictions: one an image of the split.
            bootstrap: resamples for the intervals; 0 gives none.
        """
        records, classes = self.dataset.records, self.dataset.classes
        if self.task == "classification":
            probs = torch.stack([one.probs for one in predictions])
            labels = torch.tensor([-1 if record.label is None else record.label for record in records])
            paths = [record.image for record in records]
            return score_classification(probs, labels, classes, bootstrap=bootstrap, paths=paths)
        if self.task == "semantic":
            return score_semantic([one.result for one in predictions], classes, bootstrap=bootstrap)
        score = score_instances if self.task == "instance" else score_detection
        return score(self.results(predictions), classes, bootstrap=bootstrap)

    def close(self) -> None:
        """Stop the loader's workers."""
        close = getattr(self.loader, "close", None)
        if close is not None:
            close()

    def results(self, predictions: Sequence[tuple[Instances, tuple[int, int]]]) -> list[ImageResult]:
        """Predictions beside what the files say."""
        shapes = self.task == "instance"
        pairs = zip(self.dataset.records, predictions, strict=True)
        return [
            ImageResult(path=record.image, size=size, predicted=found, truth=truth_of(record, shapes=shapes))
            for record, (found, size) in pairs
        ]

    def predict(self, model: nn.Module, batch: Batch) -> list[Any]:
        """What is kept of a model's answers to one batch; see `predict_split`."""
        answer: Callable[..., list[Any]] = model.predict  # pyright: ignore[reportAssignmentType]
        if self.task == "classification":
            return [Classification(probs=one.probs.float().cpu()) for one in answer(batch.images, batch.sizes)]
        if self.task == "semantic":
            found = answer(batch.images, batch.sizes)
            return [
                self._compare(labels_in_file(one, meta.size), meta) for one, meta in zip(found, batch.meta, strict=True)
            ]
        found = answer(batch.images, batch.sizes, selection_of(self.config))
        return [(to_file_pixels(one, meta), meta.size) for one, meta in zip(found, batch.meta, strict=True)]

    def _compare(self, labels: np.ndarray, meta: ImageMeta) -> SemanticPrediction:
        truth = read_class_map(self.dataset.records[meta.index])
        result = compare_maps(
            labels,
            truth,
            len(self.dataset.classes),
            path=meta.path,
            tolerance=self.config.boundary_tolerance,
            cells=region_class(self.config, self.dataset.classes),
        )
        return SemanticPrediction(result, KeptMap.of(labels))


def region_class(config: EvalConfig, classes: Sequence[str]) -> int | None:
    """The label of the class whose regions are compared.

    Raises:
        ConfigError: there is no class of that name.
    """
    if config.regions is None:
        return None
    if config.regions not in classes:
        raise ConfigError(f"eval.regions: there is no class {config.regions!r}{nearest(config.regions, classes)}")
    return tuple(classes).index(config.regions)


def predict_split(evaluator: Evaluator, model: nn.Module) -> list[Any]:
    """Predictions of a model for each image of the split, in the order of its records.

    Args:
        evaluator: split, loader and thresholds.
        model: on the device, in eval mode.

    Returns:
        One an image: `Classification`; `SemanticPrediction`; of models of objects a pair of `Instances` in the file's
        pixels, masks as contours, and the file's size.

    Raises:
        DataError: the loader left an image out.
    """
    fabric = evaluator.fabric
    found: dict[int, Any] = {}
    with torch.no_grad(), fabric.autocast():
        for batch in evaluator.loader.epoch(0):
            answers = evaluator.predict(model, batch.to(fabric.device))
            found |= {meta.index: one for meta, one in zip(batch.meta, answers, strict=True)}
    if fabric.world_size > 1:
        parts: list[Any] = [None] * fabric.world_size
        torch.distributed.all_gather_object(parts, found)
        found = {index: one for part in parts for index, one in part.items()}
    missing = [i for i in range(len(evaluator.dataset)) if i not in found]
    if missing:
        raise DataError(f"evaluation: {len(missing)} of {len(evaluator.dataset)} images were not loaded: {missing[:5]}")
    return [found[i] for i in range(len(evaluator.dataset))]


def selection_of(config: EvalConfig) -> Selection:
    """Which of a detector's boxes a recipe keeps."""
    return Selection(**config.model_dump(include={field.name for field in fields(Selection)}))
