"""Any log of a training as a `RunRecord`: a run's folder, CSV files, TensorBoard's event files."""

from __future__ import annotations

from pathlib import Path

from clearsight.doctor.run.logged import Logged, read_csv_log, read_tensorboard_log
from clearsight.doctor.run.own_log import read_own_log
from clearsight.errors import DataError, NotFound

__all__ = ["read_log"]

CSV_NAMES = ("metrics.csv", "results.csv", "summary.csv", "history.csv", "log.csv", "training.csv", "progress.csv")


def read_log(path: str | Path) -> Logged:
    """Read what there is of a run.

    Args:
        path: a run's folder; a CSV file; an event file; or a folder with one of them in it (Lightning's
            `lightning_logs/version_0`, ultralytics' `runs/detect/train`). CSV files are preferred to event files, and
            names that trainers use (`metrics.csv`, `results.csv`, `summary.csv`, …) to others.

    Raises:
        NotFound: there is no such file or folder.
        DataError: there is no log in it, or several and none of a known name, or it cannot be read.
    """
    path = Path(path).expanduser()
    if not path.exists():
        raise NotFound(f"{path}: does not exist; give a run's folder, a CSV log, or TensorBoard's event files")
    if path.is_file():
        return read_tensorboard_log(path) if "tfevents" in path.name else read_csv_log(path)
    if (path / "recipe.yaml").is_file() or (path / "environment.json").is_file():
        return read_own_log(path)
    tables = sorted(path.glob("*.csv"))
    named = [path / name for name in CSV_NAMES if path / name in tables]
    if named:
        return read_csv_log(named[0])
    if len(tables) == 1:
        return read_csv_log(tables[0])
    if any(path.rglob("*tfevents*")):
        return read_tensorboard_log(path)
    if tables:
        raise DataError(f"{path}: has {len(tables)} CSV files ({', '.join(t.name for t in tables[:5])}); name one")
    inside = sorted(child.name for child in path.iterdir())[:5]
    found = f"it has {', '.join(inside)}" if inside else "it is empty"
    raise DataError(f"{path}: no log of a training in this folder ({found}); expected recipe.yaml, a CSV, or events")
