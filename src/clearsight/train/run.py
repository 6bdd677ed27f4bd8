"""A whole run, from a recipe to a folder with weights, scores and a report."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from clearsight.data.check import format_findings
from clearsight.errors import ConfigError, DataError
from clearsight.metrics.scores import Scores
from clearsight.recipe.resolve import load_recipe
from clearsight.recipe.schema import Recipe
from clearsight.recipe.write import recipe_to_yaml
from clearsight.train.checkpoint import replace_file
from clearsight.train.compose import Data, Parts, compose, compose_evaluator, describe_data, read_data, restore_model
from clearsight.train.devices import make_fabric
from clearsight.train.early_stop import EarlyStop
from clearsight.train.evaluate import predict_split
from clearsight.train.folder import RunFolder, describe_environment
from clearsight.train.logs import MetricsLog, TimingLog
from clearsight.train.loop import fit
from clearsight.train.observe import Observer
from clearsight.train.progress import ProgressReport
from clearsight.train.state import differences
from clearsight.train.summary import write_run_report
from clearsight.train.tensorboard import TensorBoardLog
from clearsight.train.watching import Watcher

if TYPE_CHECKING:
    from lightning_fabric import Fabric

__all__ = ["evaluate_run", "train"]


def train(
    recipe: Recipe, *, out: Path, resume: bool = False, observers: Sequence[Observer] = (), quiet: bool = False
) -> RunFolder:
    """Read the data, build the model, train, score the best weights, write the report.

    Args:
        recipe: everything that decides the run.
        out: the run's folder.
        resume: go on from `out/checkpoints/last.ckpt`. The recipe must be the one that the folder holds, but for its
            length and where data and workers are (`train.state.CHANGEABLE`).
        observers: look on; see `train.observe.Observer`.
        quiet: print nothing.

    Returns:
        The folder; `interrupted` names the signal that ended the run early, and then there is no report yet.

    Raises:
        ClearsightError: the data, the recipe or the folder cannot be used; the message says what to do.
    """
    fabric = make_fabric(recipe.trainer)
    folder = RunFolder(out)
    console = Console(stderr=True, quiet=quiet or not fabric.is_global_zero)
    if resume:
        _check_recipe(folder.require(), recipe)
    elif fabric.is_global_zero:
        folder.create()
    fabric.barrier()
    parts = compose(recipe, fabric)
    try:
        if fabric.is_global_zero:
            _say(console, parts)
            _write_facts(folder, recipe, parts)
        result = fit(
            fabric,
            parts.model,
            parts.loader,
            settings=parts.settings,
            folder=folder,
            observers=[*_own_observers(folder, recipe, parts, console), *observers],
            evaluate=parts.evaluator,
            resume=resume and folder.last.is_file(),
        )
    finally:
        parts.close()
    if result.interrupted is not None:
        console.print(
            f"interrupted by {result.interrupted}; go on with: clearsight train --resume {out}", highlight=False
        )
        return RunFolder(out, interrupted=result.interrupted)
    _finish(folder, recipe, fabric, parts, seconds=result.position.elapsed)
    console.print(f"report: {folder.report}", highlight=False, soft_wrap=True)
    return folder


def evaluate_run(folder: Path, *, split: str | None = None, root: Path | None = None) -> Scores:
    """Score the best weights of a run, with intervals.

    Args:
        folder: of the run.
        split: None takes the recipe's `data.test`, or `data.val` where that has no images.
        root: where the data is now; None takes the recipe's.

    Returns:
        The scores; they are also kept in the folder's `scores.json` under the split's name.

    Raises:
        NotFound: there is no run.
        CheckpointError: the run has no weights.
        DataError: no such split.
    """
    run = RunFolder(Path(folder)).require()
    recipe = load_recipe(run.recipe)
    if root is not None:
        recipe = recipe.model_copy(update={"data": recipe.data.model_copy(update={"root": str(root)})})
    # Scoring takes one process, however many trained; under a launcher it takes as many as were started.
    alone = recipe.trainer.model_copy(update={"devices": 1, "nodes": 1, "strategy": "auto"})
    fabric = make_fabric(alone)
    data = read_data(recipe)
    name = split or _final_split(recipe, data)
    if name is None:
        raise DataError(
            f"{run.path}: neither data.test nor data.val has images; name a split of {dict(data.whole.splits)}"
        )
    scores, _ = _score(run, recipe, fabric, data, name)
    if fabric.is_global_zero:
        keep_scores(run, name, scores)
    return scores


def _score(run: RunFolder, recipe: Recipe, fabric: Fabric, data: Data, split: str) -> tuple[Scores, list[Any]]:
    """Scores with intervals and the predictions that they are of."""
    model, classes = restore_model(run, recipe)
    dataset = data.whole.split(split)
    if dataset.classes != classes:
        raise DataError(
            f"{dataset.root}: its classes are {list(dataset.classes)}, the model was trained on {list(classes)}; "
            "give them in the model's order (data.classes)"
        )
    evaluator = compose_evaluator(recipe, fabric, dataset)
    try:
        predictions = predict_split(evaluator, fabric.to_device(model))
    finally:
        evaluator.close()
    return evaluator.score(predictions, bootstrap=recipe.eval.bootstrap), predictions


def _finish(folder: RunFolder, recipe: Recipe, fabric: Fabric, parts: Parts, *, seconds: float) -> None:
    """Score the best weights on the test split, or on val where there is none, and write the report."""
    fabric.barrier()  # the first process has written the weights
    split = _final_split(recipe, parts.data)
    scored: dict[str, Scores] = {}
    predictions: list[Any] = []
    if split is not None:
        scored[split], predictions = _score(folder, recipe, fabric, parts.data, split)
    if fabric.is_global_zero:
        for name, scores in scored.items():
            keep_scores(folder, name, scores)
        write_run_report(folder, recipe, parts, scored, predictions, seconds=seconds)
    fabric.barrier()


def _final_split(recipe: Recipe, data: Data) -> str | None:
    return recipe.data.test if data.test is not None else recipe.data.val


def keep_scores(folder: RunFolder, split: str, scores: Scores) -> None:
    """Add the scores of a split to `scores.json`."""
    known = json.loads(folder.scores.read_text()) if folder.scores.is_file() else {}
    text = json.dumps({**known, split: scores.to_dict()}, indent=1, allow_nan=False) + "\n"
    replace_file(folder.scores, lambda file: file.write(text.encode()))


def _check_recipe(folder: RunFolder, recipe: Recipe) -> None:
    """A resumed run keeps its recipe, but for what may change."""
    saved = load_recipe(folder.recipe)
    changed = differences(saved.model_dump(mode="json"), recipe.model_dump(mode="json"))
    if changed:
        raise ConfigError(
            f"{folder.recipe}: a resumed run keeps its recipe, these would change: {'; '.join(changed)}; resume "
            "without them, or start a new run in another folder"
        )


def _own_observers(folder: RunFolder, recipe: Recipe, parts: Parts, console: Console) -> list[Observer]:
    stop, train = recipe.trainer.early_stop, parts.data.train
    counts = tuple(train.counts().values())
    return [
        MetricsLog(folder.metrics),
        TimingLog(folder.timing),
        TensorBoardLog(folder.tensorboard),
        *([Watcher(folder, recipe, train.classes, counts, console)] if recipe.watch.enabled else []),
        *([] if console.quiet else [ProgressReport(console)]),
        *([EarlyStop(patience=stop.patience, min_delta=stop.min_delta)] if stop else []),
    ]


def _say(console: Console, parts: Parts) -> None:
    """What was found in the data, and what is trained on."""
    data = parts.data
    if data.findings:
        console.print(format_findings(data.findings), highlight=False, markup=False, soft_wrap=True)
    for name, part in (("train", data.train), ("val", data.val), ("test", data.test)):
        if part is not None:
            counts = ", ".join(f"{label} {count}" for label, count in part.counts().items())
            counted = "" if part.task == "semantic" else f" ({counts})"
            console.print(f"{name}: {len(part)} images{counted}", highlight=False, markup=False, soft_wrap=True)
    parameters = sum(p.numel() for p in parts.model.parameters())
    console.print(f"model: {type(parts.model).__name__}, {parameters:,} parameters", highlight=False)


def _write_facts(folder: RunFolder, recipe: Recipe, parts: Parts) -> None:
    text = recipe_to_yaml(recipe)
    replace_file(folder.recipe, lambda file: file.write(text.encode()))
    facts = {**describe_environment(Path.cwd()), "data": describe_data(parts.data, parts.statistics)}
    before = folder.read_environment()
    if before:  # resumed: the machine may be another one now
        facts["started"], facts["resumed"] = before["started"], [*before.get("resumed", []), facts["started"]]
    folder.write_environment(facts)
    told = [finding for finding in folder.read_findings() if "step" in finding.evidence]  # of the run, before a resume
    folder.write_findings([*parts.data.findings, *parts.samples.findings, *told])
