"""Looks for what is wrong before anything is trained: with the data, with the model, with the first batch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from clearsight.data.dataset import Dataset
from clearsight.data.progress_bar import progress_bar
from clearsight.data.read import read_dataset
from clearsight.data.splits import split_dataset
from clearsight.doctor.data.evidence import DataEvidence
from clearsight.doctor.data.rules import RULES as DATA_RULES
from clearsight.doctor.diagnosis import Diagnosis, ranked
from clearsight.doctor.model.evidence import ModelEvidence
from clearsight.doctor.model.rules import PROBES
from clearsight.doctor.model.rules import RULES as MODEL_RULES
from clearsight.doctor.model.take_images import take_images
from clearsight.doctor.rule import Examination, examine
from clearsight.errors import ConfigError, DataError
from clearsight.recipe.resolve import load_recipe
from clearsight.recipe.schema import Recipe, SplitConfig
from clearsight.train.compose import Parts, compose
from clearsight.train.devices import make_fabric
from clearsight.train.optimise import build_optimizer
from clearsight.train.random_state import kept_random_state
from clearsight.types import Finding, Targets

if TYPE_CHECKING:
    from lightning_fabric import Fabric

__all__ = ["check"]


def check(
    source: str | Path | Recipe | Dataset, *overrides: str, probes: bool = True, progress: bool = False
) -> Diagnosis:
    """Look for what is wrong with data and model before anything is trained; nothing is written.

    Args:
        source: a recipe (a built-in name, a YAML file, a run's folder, or one that is loaded); or data alone: a folder,
            an annotation file, or a data set.
        overrides: of the recipe, `a.b=VALUE` texts.
        probes: train a copy of the model on a few images and try its gradients, too, which takes up to a minute.
        progress: show bars.

    Returns:
        What was found, causes first; `print` shows it.

    Raises:
        NotFound: there is no such file.
        ConfigError: a mistake in the recipe.
        DataError: the data cannot be used at all; every fault is listed.

    Example:
        >>> check("cells", "data.root=cells/").worst  # doctest: +SKIP
        'error'
    """
    if isinstance(source, Dataset):
        return _check_data(source, progress=progress)
    if not isinstance(source, Recipe) and _is_data(Path(source).expanduser()):
        if overrides:
            raise ConfigError(f"{source}: is data, and takes no changes of a recipe ({overrides[0]}); name a recipe")
        return _check_data(read_dataset(Path(source).expanduser()), progress=progress)
    recipe = load_recipe(source, overrides)
    fabric = make_fabric(recipe.trainer.model_copy(update={"devices": 1, "nodes": 1, "strategy": "auto"}))
    with kept_random_state():
        parts = compose(recipe, fabric)
        try:
            seen = _data_evidence(parts, recipe, progress=progress)
            tried = _model_evidence(parts, recipe, fabric)
            rules = (*MODEL_RULES, *(PROBES if probes else ()))
            _ = seen.scan  # has a bar of its own
            with _bar(len(DATA_RULES) + len(rules), progress=progress) as begins:
                data = examine(DATA_RULES, seen, begins=begins)
                model = examine(rules, tried, begins=begins)
        finally:
            parts.close()
    found = _diagnosis(recipe.name, [*parts.data.findings, *parts.samples.findings], data, model)
    return replace(found, recipe=recipe.model_dump(mode="json"))


def _is_data(path: Path) -> bool:
    """Whether a path leads to data: a folder that is no run's, or a file that is no recipe."""
    if path.is_dir():
        return not (path / "recipe.yaml").is_file()
    return path.is_file() and path.suffix.lower() not in (".yaml", ".yml")


def _check_data(dataset: Dataset, *, progress: bool) -> Diagnosis:
    """Of data alone; records without splits are split as a recipe would."""
    if not dataset.records:
        raise DataError(f"{dataset.root}: no image of it can be used", dataset.findings)
    whole = dataset
    if all(record.split is None for record in dataset.records):
        whole = split_dataset(dataset, SplitConfig())
    train, val, test = (whole.split(name) if name in whole.splits else None for name in ("train", "val", "test"))
    evidence = DataEvidence(dataset=whole, train=train, val=val, test=test, progress=progress)
    _ = evidence.scan  # has a bar of its own
    with _bar(len(DATA_RULES), progress=progress) as begins:
        found = examine(DATA_RULES, evidence, begins=begins)
    return _diagnosis(str(dataset.root), dataset.findings, found)


@contextmanager
def _bar(rules: int, *, progress: bool) -> Iterator[Callable[[str], object]]:
    """A bar over the rules; gives what to call as each begins."""
    with progress_bar("Looking for {task.description}", shown=progress) as bar:
        task = bar.add_task("faults", total=rules + 1)
        yield lambda name: bar.update(task, advance=1, description=name)


def _data_evidence(parts: Parts, recipe: Recipe, *, progress: bool) -> DataEvidence:
    data = parts.data
    return DataEvidence(
        dataset=data.whole,
        train=data.train,
        val=data.val,
        test=data.test,
        recipe=recipe,
        model=parts.model,
        statistics=parts.statistics,
        progress=progress,
    )


def _model_evidence(parts: Parts, recipe: Recipe, fabric: Fabric) -> ModelEvidence:
    with closing(parts.loader.epoch(0)) as batches:  # pyright: ignore[reportArgumentType]
        batch = next(iter(batches)).to(fabric.device)
    model = parts.model.to(fabric.device)
    counts = tuple(parts.data.train.counts().values())
    return ModelEvidence(
        model=model,
        images=batch.images,
        targets=batch.targets,
        loss=_loss,
        take=take_images,
        task=recipe.task,
        classes=len(parts.data.whole.classes),
        class_counts=counts if any(counts) else (),
        optimizer=build_optimizer(model, recipe.optimizer),
        recipe=recipe.model_dump(mode="json"),
    )


def _loss(model: nn.Module, images: Tensor, targets: Targets) -> Tensor:
    """The sum of the terms, as the trainer adds them up."""
    terms: dict[str, Any] = model.loss(images, targets)  # pyright: ignore[reportCallIssue]
    return torch.stack([term.float() for term in terms.values()]).sum()


def _diagnosis(subject: str, before: list[Finding], *examined: Examination) -> Diagnosis:
    findings = ranked([*before, *(finding for part in examined for finding in part.findings)])
    counts = {name: sum(finding.severity == name for finding in findings) for name in ("error", "warning", "info")}
    told = [f"{count} {name}{'s' if count > 1 and name != 'info' else ''}" for name, count in counts.items() if count]
    return Diagnosis(
        subject=subject,
        findings=findings,
        verdict=f"Found: {', '.join(told)}." if told else "Nothing was found that would cost quality.",
        passed=tuple(name for part in examined for name in part.passed),
        silent={name: why for part in examined for name, why in part.silent.items()},
    )
