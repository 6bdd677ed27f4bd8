"""The verbs: every command of `clearsight` is one call of a function here, or of one that the package re-exports."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from clearsight.data.dataset import Dataset
from clearsight.data.read import read_dataset
from clearsight.data.splits import find_leaks
from clearsight.deploy.run import Run
from clearsight.errors import ConfigError, DataError
from clearsight.recipe.resolve import load_recipe
from clearsight.recipe.schema import Recipe
from clearsight.train.compose import read_data
from clearsight.train.folder import RunFolder
from clearsight.train.new_folder import chosen_folder
from clearsight.train.run import train as train_run

if TYPE_CHECKING:
    from torch import nn

    from clearsight.deploy.anchors import AnchorReport
    from clearsight.deploy.assignments import AssignmentReport
    from clearsight.deploy.fields import FieldReport
    from clearsight.deploy.prediction import Predictions
    from clearsight.deploy.sources import Source
    from clearsight.measure.count import Inputs
    from clearsight.measure.profile import Profile
    from clearsight.metrics.scores import Scores
    from clearsight.train.observe import Observer

__all__ = [
    "Run",
    "check_data",
    "demo",
    "evaluate",
    "explain_assignment",
    "export",
    "fit_anchors",
    "load",
    "predict",
    "profile",
    "receptive_field",
    "train",
]


def train(
    recipe: str | Path | Recipe | None = None,
    *overrides: str,
    resume: str | Path | None = None,
    out: str | Path | None = None,
    quiet: bool = False,
    observers: Sequence[Observer] = (),
) -> Run:
    """Train what a recipe says, and score and report the best weights.

    Args:
        recipe: a built-in name, a YAML file, a run's folder (its recipe, trained anew), or a recipe; not with `resume`.
        overrides: `a.b=VALUE` texts; see `load_recipe`.
        resume: the folder of a run that was killed or stopped: it goes on as if nothing had happened. Overrides may
            then change how long it trains (`trainer.epochs=60`), where data lies and how it is loaded, nothing else.
        out: the run's folder; None takes `runs/<name of the recipe>`, or `runs/<name>-2`, … where a finished run is.
        quiet: print nothing.
        observers: look on and may ask to stop; they never change the run.

    Returns:
        The run. `run.interrupted` names the signal (Ctrl-C is `SIGINT`) that stopped it early, after a checkpoint.

    Raises:
        ConfigError: a mistake in the recipe, or a folder that has a run already.
        DataError: the data cannot be used; every fault is listed.

    Example:
        >>> run = train("cells", "data.root=cells/", "trainer.epochs=30")  # doctest: +SKIP
        >>> run.scores["test"].summary["map"]  # doctest: +SKIP
    """
    if resume is not None:
        if recipe is not None or out is not None:
            other = "the recipe" if recipe is not None else "out"
            raise ConfigError(
                f"resume: {resume} goes on with its own recipe in its own folder; leave {other} away, "
                "or leave resume away to train anew"
            )
        run = load(resume)
        done = train_run(
            load_recipe(run.files.recipe, overrides), out=run.folder, resume=True, observers=observers, quiet=quiet
        )
        return Run(done.path, interrupted=done.interrupted)
    if recipe is None:
        raise ConfigError("recipe: nothing to train; name a recipe, see `clearsight recipes`, or a run to resume")
    resolved = load_recipe(recipe, overrides)
    _require_data(resolved)
    with chosen_folder(resolved.name, None if out is None else Path(out).expanduser(), quiet=quiet) as folder:
        done = train_run(resolved, out=folder, observers=observers, quiet=quiet)
    return Run(done.path, interrupted=done.interrupted)


def _require_data(recipe: Recipe) -> None:
    if recipe.data.root is None and recipe.data.format != "digit_scenes":
        raise ConfigError(
            f"recipe {recipe.name}: it needs your data: add data.root=PATH, a folder or an annotation file "
            f"(data.format is {recipe.data.format})"
        )


def load(folder: str | Path) -> Run:
    """Open a run's folder; nothing but its existence is checked until it is used.

    Raises:
        NotFound: there is no run; the message lists those beside it.
    """
    return Run(folder)


def evaluate(folder: str | Path | Run, split: str | None = None, *, root: str | Path | None = None) -> Scores:
    """Score a run's best weights on a split; see `Run.evaluate`."""
    return _opened(folder).evaluate(split, root=root)


def predict(
    folder: str | Path | Run,
    source: Source,
    *,
    out: str | Path | None = None,
    threshold: float | None = None,
    quiet: bool = False,
) -> Predictions:
    """Predict with a run's best weights; see `Predictor.predict`."""
    return _opened(folder).predict(source, out=out, threshold=threshold, quiet=quiet)


def _opened(run: str | Path | Run) -> Run:
    return run if isinstance(run, Run) else load(run)


def check_data(path: str | Path, *, format: str = "auto", classes: Sequence[str] | None = None) -> Dataset:
    """Read a data set, decode every image to its last pixel, and look for images that are in two splits.

    Args:
        path: a folder or an annotation file.
        format: `auto` looks at the files.
        classes: class names in label order; None takes them from the files.

    Returns:
        What is usable; `findings` says what is wrong with the rest.

    Raises:
        NotFound: the path does not exist.
        DataError: nothing is usable.
    """
    dataset = read_dataset(path, format=format, classes=classes, images="decode")
    dataset.findings += find_leaks(dataset)
    return dataset


def profile(  # noqa: PLR0913 - options
    model: nn.Module | Run | str | Path,
    inputs: Inputs | None = None,
    *,
    size: int | tuple[int, int] | None = None,
    batch: int = 1,
    classes: int | None = None,
    device: str | None = None,
    runs: int = 0,
    by_layer: bool = False,
    fields: bool = True,
) -> Profile:
    """What a model costs, by layer, by stage and in total; see `measure.profile`.

    Args:
        model: a module, a run or its folder, a name of `list_models`, or a recipe.
        inputs: one tensor, a sequence of arguments or a mapping of keyword arguments; None makes images.
        size: of those images, a side or `(height, width)`; None takes a run's or recipe's own, for names 224 for
            classifiers and 640 for detectors.
        batch: number of those images.
        classes: of a model by name or recipe; None for 1000 (classification), 80 (objects) or 21 (semantic).
        device: where to time it; None where it is, models by name on the CPU.
        runs: forward passes to time; 0 counts only, and computes nothing.
        by_layer: time each layer, too.
        fields: receptive field and stride of each layer, where the input is one tensor of images.

    Returns:
        The profile; `print` shows it.

    Raises:
        ConfigError: there is no such model, recipe, run or device; the message has the nearest name.
        ShapeError: the model does not take these inputs.

    Example:
        >>> print(profile("resnet18", size=224))  # doctest: +SKIP
    """
    from clearsight.deploy.subject import profile_subject
    from clearsight.measure.profile import profile as measure

    subject = profile_subject(model, classes=classes, device=device)
    found = measure(
        subject.model,
        inputs,
        size=subject.size if inputs is None and size is None else size,
        batch=batch,
        channels=subject.channels,
        runs=runs,
        by_layer=by_layer,
        fields=fields,
        name=subject.name,
    )
    return found.model_copy(update={"scores": subject.scores})


def receptive_field(
    model: nn.Module | Run | str | Path,
    *,
    data: Dataset | str | Path | None = None,
    size: int | tuple[int, int] | None = None,
    levels: Sequence[str] = (),
    images: int = 0,
    classes: int | None = None,
) -> FieldReport:
    """What a place of each layer and level sees, in theory and by gradient, and how many objects are larger.

    Args:
        model: a module, a run or its folder, a name of `list_models`, or a recipe.
        data: a data set, a folder or annotation file, or a recipe or run, whose training images are taken.
        size: side of the images that the model sees, or `(height, width)`; None takes that of the data's recipe, else
            the model's own.
        levels: names of levels (`c5`, `p3`) or layers to set against the objects and to measure; none takes all levels.
        images: number of images to measure effective fields on: those of the data, else random ones; 0 measures none.
        classes: of a model by name or recipe; None for 1000 (classification), 80 (objects) or 21 (semantic).

    Returns:
        A report with `fields`, `effective` and `objects`; `print` shows it, `plot` draws it.

    Raises:
        ConfigError: there is no such model, recipe, run or level; the message has the nearest name.
        ShapeError: the model does not take images of this size.
        DataError: the data has no boxes.

    Example:
        >>> str(receptive_field("resnet18").fields["c5"])
        '435'
    """
    from clearsight.deploy.fields import report_fields

    return report_fields(model, data=data, size=size, levels=tuple(levels), images=images, classes=classes)


def export(run: str | Path | Run, out: str | Path, *, size: int | tuple[int, int] | None = None) -> Path:
    """Write a run's model as ONNX: uint8 pixels in, answers out, suppression included; checked in ONNX Runtime.

    Args:
        run: a run or its folder. CornerNet cannot be exported.
        out: the file; of Deep Snake, which becomes two, the folder.
        size: side of the images, or `(height, width)`; None takes that of the recipe.

    Returns:
        The file, or the folder. Inputs and outputs are described at `deploy.onnx.export_onnx`.

    Raises:
        NotFound: there is no such run.
        MissingExtra: the packages for ONNX are not installed.
        ConfigError: this model cannot be exported, or ONNX Runtime does not answer as the model does.
    """
    from clearsight.deploy.onnx import export_onnx
    from clearsight.train.evaluate import selection_of

    opened = _opened(run)
    data = opened.recipe.data
    sides = data.size if size is None else (size, size) if isinstance(size, int) else size
    return export_onnx(
        opened.model,
        out,
        size=sides,
        channels=data.channels,
        selection=selection_of(opened.recipe.eval),
        classes=opened.classes,
    )


def fit_anchors(
    data: Dataset | str | Path,
    *,
    count: int = 9,
    size: int | tuple[int, int] | None = None,
    restarts: int = 32,
    seed: int = 0,
    model: nn.Module | Run | str | Path | None = None,
) -> AnchorReport:
    """Anchors that fit the objects of a data set, how many objects they fit, and what a model's own anchors miss.

    Args:
        data: a data set, a folder or annotation file (its `train` split where it has one), or a recipe or run. Of more
            than 20,000 objects a sample is taken.
        count: number of anchors; three a level where it is a multiple of three.
        size: side of the images that the model sees, or `(height, width)`; None takes that of the data's recipe, else
            the model's recipe or run, else 320.
        restarts: of k-means.
        seed: of its draws.
        model: a module, run, recipe or name whose own anchors are checked too; None checks none.

    Returns:
        A report with `anchors`, `overrides`, `ratio`, `overlap` and `check`; `print` shows it, `plot` draws it.

    Raises:
        ConfigError: there are fewer different objects than anchors, or no such model.
        DataError: the data has no boxes.
    """
    from clearsight.deploy.anchors import report_anchors

    return report_anchors(data, count=count, size=size, restarts=restarts, seed=seed, model=model)


def explain_assignment(
    image: str | Path,
    *,
    data: Dataset | str | Path | None = None,
    model: nn.Module | Run | str | Path = "retinanet",
    assigners: Sequence[str] = (),
    size: int | tuple[int, int] | None = None,
) -> AssignmentReport:
    """Which points of a detector each object of an image gets, under several methods of label assignment.

    Args:
        image: a file of a data set.
        data: the data set, its folder or annotation file, or a recipe or run; None looks in the folders above.
        model: a detector whose head assigns: a module, a run or its folder, a name, or a recipe. Methods that look at
            predictions see those of this model; without training these are random.
        assigners: names of `clearsight.assign.ASSIGNERS`, with their defaults, the model's own as it is set; none takes
            all.
        size: side of the images that the model sees, or `(height, width)`; None takes that of the run or recipe,
            else 320.

    Returns:
        A report with `found` and `rows()`; `print` shows it, `plot` draws it.

    Raises:
        NotFound: there is no such image.
        DataError: no data set with this image is found.
        ConfigError: there is no such assigner, model, recipe or run, or the model does not assign.
    """
    from clearsight.deploy.assignments import report_assignments

    return report_assignments(image, data=data, model=model, assigners=tuple(assigners), size=size)


def demo(out: str | Path = "runs/demo", *, quiet: bool = False) -> Run:
    """Train the built-in detector of handwritten digits, and draw what it finds on test images.

    The data is generated, nothing is downloaded. A finished demo is used again, an unfinished one goes on.

    Args:
        out: the run's folder; pictures go to its `predictions/`.
        quiet: print nothing.

    Returns:
        The run, with a report.
    """
    folder = RunFolder(Path(out).expanduser())
    if not folder.recipe.is_file():
        run = train("demo", out=folder.path, quiet=quiet)
    elif not folder.report.is_file():
        run = train(resume=folder.path, quiet=quiet)
    else:
        run = load(folder.path)
    if run.interrupted is None:
        test = read_data(run.recipe).test
        if test is None:
            raise DataError(f"{run.folder}: the demo's data has no test split; remove the folder and run it again")
        pictures = [record.image for record in test.records[:12]]
        run.predict(pictures, out=run.folder / "predictions", quiet=quiet)
    return run
