"""Trainings that a benchmark compares: each in a process of its own, in a folder that keeps it.

A run that is finished is not trained again, one that was stopped goes on. A script asks for the options with
`run_arguments`, starts itself once a run with `in_child`, and there trains with `trained`.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import statistics
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness import Options, run_child

if TYPE_CHECKING:
    from clearsight.deploy.run import Run

__all__ = ["budget", "epochs", "images_a_second", "in_child", "kept_folder", "peak_mib", "run_arguments", "trained"]

AFTER = 3600.0  # seconds that reading the data, scoring and timing may take beyond the training itself
PEAK = "peak_mib.json"


def run_arguments(parser: argparse.ArgumentParser, *, minutes: float) -> None:
    """The options of every script that keeps runs."""
    parser.add_argument("--minutes", type=float, default=minutes, help=f"of training, each (default: {minutes:g})")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--runs", type=Path, help="folder that keeps the runs (default: one that is removed)")
    parser.add_argument("--train", type=json.loads, help=argparse.SUPPRESS)  # the child's own request


@contextmanager
def kept_folder(runs: Path | None) -> Iterator[Path]:
    """The folder of all runs; a temporary one where none is given."""
    if runs is not None:
        yield runs.resolve()
        return
    with tempfile.TemporaryDirectory() as scratch:
        yield Path(scratch)


def budget(options: Options, *, minutes: float, seed: int) -> list[str]:
    """Changes of a recipe: how long it trains, from which seed, and where."""
    accelerator = "cpu" if options.device == "cpu" else "auto"
    return [f"trainer.minutes={minutes}", f"trainer.seed={seed}", f"trainer.accelerator={accelerator}"]


def in_child(script: str, request: Mapping[str, Any], *, minutes: float) -> dict[str, Any]:
    """What the script says of one run; it is started with `--train` and prints a JSON object last."""
    command = [sys.executable, script, "--train", json.dumps(request)]
    return run_child(command, timeout=minutes * 60 + AFTER).result


def trained(request: Mapping[str, Any]) -> Run:
    """A finished run: trained, gone on with, or found finished.

    Args:
        request: `recipe`, its `changes`, and `out`, the run's folder.

    Raises:
        RuntimeError: a signal stopped it; the next start goes on.
    """
    import clearsight as cs

    out = Path(request["out"])
    if (out / "scores.json").is_file():
        return cs.load(out)
    if (out / "recipe.yaml").is_file():
        run = cs.train(resume=out, quiet=True)
    else:
        run = cs.train(request["recipe"], *request["changes"], out=out, quiet=True)
    if run.interrupted is not None:
        raise RuntimeError(f"{out.name}: stopped by {run.interrupted}; start the benchmark again to go on")
    (out / PEAK).write_text(json.dumps(_own_peak()), encoding="utf-8")
    return cs.load(out)


def _own_peak() -> float:
    """Largest resident memory of this process, MiB."""
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


def peak_mib(out: Path) -> float:
    """Largest resident memory of the process that ended the training, MiB; NaN where that was not `trained`."""
    file = out / PEAK
    return float(json.loads(file.read_text(encoding="utf-8"))) if file.is_file() else math.nan


def images_a_second(out: Path) -> float:
    """Median of the run's log; NaN where it is too short to have a line."""
    timed = [float(row["images_per_second"]) for row in _timing(out) if row["images_per_second"]]
    return statistics.median(timed) if timed else math.nan


def epochs(out: Path) -> int:
    """Largest number in the run's log."""
    return max((int(row["epoch"]) for row in _timing(out)), default=0)


def _timing(out: Path) -> list[dict[str, str]]:
    file = out / "timing.csv"
    if not file.is_file():
        return []
    with file.open(newline="", encoding="utf-8") as opened:
        return list(csv.DictReader(opened))
