"""From a name, a recipe or a run to a model that can be measured, with the images that suit it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import nn

from clearsight.data.normalisation import fixed_statistics
from clearsight.deploy.named_data import is_run
from clearsight.deploy.run import Run
from clearsight.errors import ConfigError, nearest
from clearsight.metrics.scores import main_metric
from clearsight.models import BUILDERS, build_model, create_model, list_models
from clearsight.recipe.model_sections import model_task
from clearsight.recipe.resolve import load_recipe, recipe_names

__all__ = ["Subject", "profile_subject"]

CLASSES = {"classification": 1000, "detection": 80, "semantic": 21, "instance": 80}
SIZES = {"classification": (224, 224), "detection": (640, 640), "semantic": (512, 512), "instance": (640, 640)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """A model to be measured.

    Args:
        model: the module.
        name: how it was called; None where it has no name of its own.
        size: `(height, width)` of the images that suit it.
        channels: of those images.
        scores: of a trained run, by name.
    """

    model: nn.Module
    name: str | None = None
    size: tuple[int, int] | None = None
    channels: int = 3
    scores: dict[str, float] = field(default_factory=dict)


def profile_subject(
    model: nn.Module | Run | str | Path, *, classes: int | None = None, device: str | None = None
) -> Subject:
    """Find or build what is to be measured.

    Args:
        model: a module, a run or its folder, a name of `list_models`, or a recipe.
        classes: of a model by name or recipe; None for 1000 or 80, of classifiers and detectors.
        device: where it goes; None leaves it where it is.

    Raises:
        ConfigError: there is no such model, recipe, run or device; the message has the nearest name.
        CheckpointError: the run has no weights yet.
    """
    if isinstance(model, nn.Module):
        found = Subject(model=model, size=None)
    elif isinstance(model, Run):
        found = _of_run(model)
    elif str(model) in list_models():
        found = _of_name(str(model), classes)
    elif is_run(model):
        found = _of_run(Run(model))
    elif str(model) in recipe_names() or str(model).endswith((".yaml", ".yml")):
        found = _of_recipe(model, classes)
    else:
        known = [*list_models(), *recipe_names()]
        raise ConfigError(f"model: there is no model, recipe or run {str(model)!r}{nearest(str(model), known)}")
    if device is not None:
        try:
            found.model.to(torch.device(device))
        except (RuntimeError, AssertionError) as error:
            raise ConfigError(f"device: {device!r} cannot be used here: {str(error).splitlines()[0]}") from error
    return found


def _of_name(name: str, classes: int | None) -> Subject:
    task = model_task(name) if name in BUILDERS else "classification"
    model = create_model(name, num_classes=CLASSES[task] if classes is None else classes)
    return Subject(model=model, name=name, size=SIZES[task])


def _of_recipe(source: str | Path, classes: int | None) -> Subject:
    recipe = load_recipe(source)
    channels = recipe.data.channels
    model = build_model(
        recipe.model.model_copy(update={"weights": None, "weights_sha256": None}),
        num_classes=CLASSES[recipe.task] if classes is None else classes,
        channels=channels,
        statistics=fixed_statistics("imagenet" if channels == 3 else "unit", channels=channels),
    )
    return Subject(model=model, name=recipe.name, size=recipe.data.size, channels=channels)


def _of_run(run: Run) -> Subject:
    metric = main_metric(run.recipe.task)
    scores = {f"{metric} ({split})": found.summary[metric] for split, found in run.scores.items()}
    data = run.recipe.data
    return Subject(model=run.model, name=run.folder.name, size=data.size, channels=data.channels, scores=scores)
