"""From a recipe to what a run is made of: data sets, statistics, model, loaders."""

from __future__ import annotations

import math
import os
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from clearsight.data.class_pixels import class_pixel_counts, class_weights
from clearsight.data.dataset import Dataset
from clearsight.data.digit_scenes import read_digit_scenes
from clearsight.data.loader import Loader
from clearsight.data.normalisation import Statistics, measure_statistics
from clearsight.data.read import read_dataset
from clearsight.data.samples import SampleSet
from clearsight.data.seeds import derive
from clearsight.data.splits import find_leaks, split_dataset
from clearsight.errors import CheckpointError, ConfigError, DataError
from clearsight.measure.anchor_check import anchor_findings
from clearsight.metrics.scores import main_metric
from clearsight.models import build_model
from clearsight.models.segment.segmenter import Segmenter
from clearsight.recipe.model_sections import ModelConfig
from clearsight.recipe.schema import Recipe
from clearsight.recipe.segment_sections import SegmenterSection
from clearsight.train.checkpoint import check_same_model
from clearsight.train.evaluate import Evaluator, region_class
from clearsight.train.folder import RunFolder
from clearsight.train.random_state import kept_random_state
from clearsight.train.state import Settings
from clearsight.types import Finding

if TYPE_CHECKING:
    from lightning_fabric import Fabric

__all__ = [
    "Data",
    "Parts",
    "compose",
    "compose_evaluator",
    "describe_data",
    "read_data",
    "restore_model",
    "statistics_of",
]

DOES = {
    "classification": ("classification",),
    "detection": ("detection", "instance"),
    "semantic": ("semantic",),
    "instance": ("instance",),
}
"""Tasks of data sets that a recipe's task can be trained on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Data:
    """The data of a run.

    Args:
        whole: all records, with splits.
        train: what is trained on.
        val: what is watched, or None.
        test: what is scored at the end, or None.
    """

    whole: Dataset
    train: Dataset
    val: Dataset | None
    test: Dataset | None

    @property
    def findings(self) -> list[Finding]:
        """Everything that was found while reading."""
        return self.whole.findings


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What `fit` is given.

    Args:
        data: the data sets.
        samples: of the training split.
        statistics: of the training images.
        model: with random or published weights.
        loader: training batches.
        evaluator: of the validation split, or None.
        settings: what else decides the run.
    """

    data: Data
    samples: SampleSet
    statistics: Statistics
    model: nn.Module
    loader: Loader
    evaluator: Evaluator | None
    settings: Settings

    def close(self) -> None:
        """Stop the loaders' workers."""
        self.loader.close()
        if self.evaluator is not None:
            self.evaluator.close()


def read_data(recipe: Recipe) -> Data:
    """Read, check and split a recipe's data.

    Raises:
        NotFound: the path does not exist.
        DataError: nothing usable is left, a split that the recipe names does not exist, or the annotations do not serve
            the task.
        ConfigError: no path is given.
    """
    config = recipe.data
    if config.format == "digit_scenes":
        whole = read_digit_scenes(config.root, scenes=config.scenes, seed=config.scenes_seed)
    elif config.root is None:
        raise ConfigError("data.root: no path is given; set it to a folder or annotation file: data.root=PATH")
    else:
        whole = read_dataset(config.root, format=config.format, classes=config.classes, strict=config.strict)
    if whole.task not in DOES[recipe.task]:
        raise DataError(
            f"{whole.root}: its annotations are for {whole.task}, the recipe's task is {recipe.task}; choose a "
            f"recipe for {whole.task}, or data with annotations for {' or '.join(DOES[recipe.task])}"
        )
    if all(record.split is None for record in whole.records):
        whole = split_dataset(whole, config.split)
    train = whole.split(config.train)
    val = None if config.val is None else whole.split(config.val)
    found = config.test is not None and config.test in whole.splits
    return Data(whole=whole, train=train, val=val, test=whole.split(config.test) if found and config.test else None)


def compose(recipe: Recipe, fabric: Fabric) -> Parts:
    """Everything that `fit` is given, as the recipe says.

    Raises:
        ClearsightError: the data or the recipe cannot be used; see `read_data`.
    """
    if recipe.data.val is None and (recipe.trainer.early_stop or recipe.schedule.name == "plateau"):
        raise ConfigError(
            "data.val: is null, but early stopping and the plateau schedule need evaluations; name a split"
        )
    with fabric.rank_zero_first(local=True):  # generated data is written by one process and read by all
        data = read_data(recipe)
    region_class(recipe.eval, data.whole.classes)  # a wrong name is said now, not after the training
    data.whole.findings.extend(find_leaks(data.whole))
    samples = SampleSet(
        data.train,
        data=recipe.data,
        augment=recipe.augment,
        seed=recipe.trainer.seed,
        cache=recipe.loader.cache,
        mosaic_until=_mosaic_until(recipe, len(data.train)),
        task=recipe.task,
    )
    statistics = measure_statistics(samples, seed=recipe.trainer.seed)
    model = new_model(recipe, recipe.model, classes=len(data.whole.classes), statistics=statistics)
    weigh_classes(model, recipe.model, data.train)
    data.whole.findings.extend(anchor_findings(model, data.train, recipe.data.size, fit=recipe.data.fit))
    loader = Loader(
        samples,
        batch_size=recipe.loader.batch_size,
        workers=worker_count(recipe, fabric),
        seed=recipe.trainer.seed,
        rank=fabric.global_rank,
        world=fabric.world_size,
        pin_memory=fabric.device.type == "cuda",
        read_ahead=True,
    )
    evaluator = None if data.val is None else compose_evaluator(recipe, fabric, data.val)
    settings = Settings(
        optimizer=recipe.optimizer,
        schedule=recipe.schedule,
        trainer=recipe.trainer,
        monitor=recipe.trainer.monitor or main_metric(recipe.task),
        identity={
            "recipe": recipe.model_dump(mode="json"),
            "data": data.whole.fingerprint(),
            "classes": list(data.whole.classes),
        },
    )
    return Parts(
        data=data,
        samples=samples,
        statistics=statistics,
        model=model,
        loader=loader,
        evaluator=evaluator,
        settings=settings,
    )


def compose_evaluator(recipe: Recipe, fabric: Fabric, dataset: Dataset) -> Evaluator:
    """An evaluator of one split."""
    samples = SampleSet(
        dataset, data=recipe.data, seed=recipe.trainer.seed, cache=recipe.loader.cache, task=recipe.task
    )
    loader = Loader(
        samples,
        batch_size=max(recipe.loader.eval_batch_size, fabric.world_size),
        workers=worker_count(recipe, fabric) if recipe.loader.cache == "none" else 0,
        shuffle=False,
        drop_last=False,
        rank=fabric.global_rank,
        world=fabric.world_size,
        pin_memory=fabric.device.type == "cuda",
    )
    return Evaluator(fabric=fabric, dataset=dataset, loader=loader, config=recipe.eval, task=recipe.task)


def weigh_classes(model: nn.Module, config: ModelConfig, train: Dataset) -> None:
    """Tell a segmenter's loss how much each class counts, by how rare its pixels are in training images."""
    if isinstance(model, Segmenter) and isinstance(config, SegmenterSection) and config.class_weights != "none":
        weights = class_weights(class_pixel_counts(train), method=config.class_weights)
        model.objective.set_class_weights(torch.from_numpy(weights).float())


def new_model(recipe: Recipe, config: ModelConfig, *, classes: int, statistics: Statistics) -> nn.Module:
    """The recipe's model; its random weights depend on the recipe's seed alone."""
    with kept_random_state():
        torch.manual_seed(derive(recipe.trainer.seed, "model"))
        return build_model(config, num_classes=classes, channels=recipe.data.channels, statistics=statistics)


def restore_model(folder: RunFolder, recipe: Recipe) -> tuple[nn.Module, tuple[str, ...]]:
    """The trained model of a run and its class names.

    Args:
        folder: of the run; has `weights.safetensors` and `environment.json`.
        recipe: the run's.

    Returns:
        The model on the CPU in eval mode with the best weights, and the classes in label order.

    Raises:
        CheckpointError: the run has no weights yet, or they are damaged or of another model.
    """
    if not folder.weights.is_file():
        raise CheckpointError(
            f"{folder.path}: the run has no weights yet (they are written at its first evaluation); "
            f"resume it (clearsight train --resume {folder.path})"
        )
    classes, statistics = statistics_of(folder)
    bare = recipe.model.model_copy(update={"weights": None, "weights_sha256": None})
    model = new_model(recipe, bare, classes=len(classes), statistics=statistics)
    try:
        weights = load_file(folder.weights)
    except (SafetensorError, OSError) as err:
        raise CheckpointError(f"{folder.weights}: damaged or not a safetensors file: {err}") from err
    check_same_model(folder.weights, weights, model.state_dict())
    model.load_state_dict(weights)
    return model.eval(), classes


def statistics_of(folder: RunFolder) -> tuple[tuple[str, ...], Statistics]:
    """Class names and statistics of the training images of a run.

    Raises:
        CheckpointError: the run has not got so far as to know them.
    """
    known = folder.read_environment().get("data")
    if known is None:
        raise CheckpointError(
            f"{folder.path}: the run ended before its data was read; start it anew, or resume it "
            f"(clearsight train --resume {folder.path})"
        )
    numbers = known["statistics"]
    statistics = Statistics(
        mean=tuple(numbers["mean"]), std=tuple(numbers["std"]), scale=numbers["scale"], mode=numbers["mode"]
    )
    return tuple(known["classes"]), statistics


def describe_data(data: Data, statistics: Statistics) -> dict[str, Any]:
    """Facts about the data for `environment.json`: what a predictor needs, and what tells two data sets apart."""
    parts = {"train": data.train, "val": data.val, "test": data.test}
    return {
        "classes": list(data.whole.classes),
        "statistics": asdict(statistics),
        "fingerprint": data.whole.fingerprint(),
        "format": data.whole.format,
        "images": {name: len(part) for name, part in parts.items() if part is not None},
        "counts": {name: part.counts() for name, part in parts.items() if part is not None},
    }


def worker_count(recipe: Recipe, fabric: Fabric) -> int:
    """Loader processes of this process: `auto` leaves one core a process to the model, at most 8."""
    if recipe.loader.workers != "auto":
        return recipe.loader.workers
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    local = max(1, fabric.world_size // max(1, getattr(fabric.strategy, "num_nodes", 1)))
    return max(0, min(8, cores // local - 1))


def _mosaic_until(recipe: Recipe, images: int) -> int | None:
    """First epoch without mosaic and mixup; None where the length in epochs is not known beforehand."""
    trainer = recipe.trainer
    epochs = trainer.epochs
    if trainer.steps is not None:
        batches = max(1, images // recipe.loader.batch_size)
        epochs = math.ceil(trainer.steps / math.ceil(batches / trainer.accumulate))
    return None if epochs is None else math.ceil(epochs * (1 - recipe.augment.close_mosaic))
