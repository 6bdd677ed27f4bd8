"""A run explained afterwards: what is wrong with it, its remedy as a recipe, a spoiled step run again."""

from __future__ import annotations

from pathlib import Path

from clearsight.deploy.run import Run
from clearsight.doctor.apply import Applied, apply_remedy
from clearsight.doctor.diagnosis import Diagnosis
from clearsight.doctor.nonfinite import NonFinite
from clearsight.doctor.replay import load_step, replay_step
from clearsight.doctor.run.diagnose import diagnose_log
from clearsight.doctor.run.read_log import read_log
from clearsight.errors import ConfigError
from clearsight.recipe.resolve import load_recipe
from clearsight.train.compose import new_model, statistics_of
from clearsight.train.folder import RunFolder

__all__ = ["apply", "diagnose", "replay"]


def diagnose(run: str | Path | Run) -> Diagnosis:
    """What is wrong with a run, the causes first, and what cannot be told.

    Args:
        run: a run, its folder, or a log of another trainer: a CSV file, TensorBoard's event files, or a folder with
            one of them (see `doctor.run.read_log`).

    Raises:
        NotFound: there is no such file or folder.
        DataError: there is no log of a training in it.

    Example:
        >>> diagnose("lightning_logs/version_0").verdict  # doctest: +SKIP
    """
    path = Path(run.folder if isinstance(run, Run) else run).expanduser()
    logged = read_log(path)
    return diagnose_log(logged, earlier=RunFolder(path).read_findings() if path.is_dir() else ())


def apply(run: str | Path | Run, finding: str, *, choice: int = 1, out: str | Path | None = None) -> Applied:
    """A run's recipe with a remedy of one of its findings.

    Args:
        run: a run or its folder.
        finding: its number in the diagnosis (`F07`) or its id.
        choice: which of its remedies, from 1, the best.
        out: file to write the new recipe to; None writes nothing.

    Raises:
        NotFound: there is no such run or finding.
        ConfigError: no change of the recipe is its remedy, or `out` is there already.
    """
    folder = RunFolder(Path(run.folder if isinstance(run, Run) else run).expanduser()).require()
    applied = apply_remedy(load_recipe(folder.recipe), diagnose(folder.path).find(finding), choice=choice)
    if out is not None:
        path = Path(out).expanduser()
        if path.exists():
            raise ConfigError(f"{path}: is there already; give another name")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(applied.text, encoding="utf-8")
        except OSError as error:
            raise ConfigError(f"{path}: cannot be written: {error.strerror}; give another place") from error
    return applied


def replay(run: str | Path | Run) -> NonFinite:
    """Run the step of a run again in which its loss or gradient became NaN or infinite.

    Args:
        run: a run or its folder, in which `nonfinite/` was saved.

    Returns:
        Where the first such value comes from: module, direction, operation, cause, samples.

    Raises:
        NotFound: there is no such run, or no step was saved.
        CheckpointError: what was saved is damaged, or does not repeat here.
    """
    folder = RunFolder(Path(run.folder if isinstance(run, Run) else run).expanduser()).require()
    saved = load_step(folder.path)
    recipe = load_recipe(folder.recipe)
    classes, statistics = statistics_of(folder)
    bare = recipe.model.model_copy(update={"weights": None, "weights_sha256": None})
    return replay_step(new_model(recipe, bare, classes=len(classes), statistics=statistics), saved)
