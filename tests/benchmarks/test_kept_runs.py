"""Runs that a benchmark keeps: what their files say, and the process that a request goes to."""

from __future__ import annotations

import argparse
import math
from pathlib import Path

import harness
import kept_runs

LOG = "step,epoch,seconds,images_per_second\n1,1,2.0,4.0\n2,1,4.0,10.0\n3,2,6.0,5.0\n"


def options(*given: str) -> harness.Options:
    def extra(parser: argparse.ArgumentParser) -> None:
        kept_runs.run_arguments(parser, minutes=7.0)

    return harness.arguments("test", extra=extra, argv=given)


def test_log_gives_the_median_rate_and_the_last_epoch(tmp_path: Path) -> None:
    (tmp_path / "timing.csv").write_text(LOG)
    assert kept_runs.images_a_second(tmp_path) == 5.0
    assert kept_runs.epochs(tmp_path) == 2


def test_what_a_run_does_not_say_is_nan(tmp_path: Path) -> None:
    assert math.isnan(kept_runs.images_a_second(tmp_path))
    assert math.isnan(kept_runs.peak_mib(tmp_path))
    assert kept_runs.epochs(tmp_path) == 0
    (tmp_path / "timing.csv").write_text(LOG.splitlines()[0] + "\n")
    assert math.isnan(kept_runs.images_a_second(tmp_path))


def test_budget_follows_the_options() -> None:
    assert options().extra.minutes == 7.0
    assert kept_runs.budget(options(), minutes=0.5, seed=3) == [
        "trainer.minutes=0.5", "trainer.seed=3", "trainer.accelerator=cpu",
    ]  # fmt: skip
    assert kept_runs.budget(options("--device", "cuda"), minutes=1, seed=0)[-1] == "trainer.accelerator=auto"


def test_folder_is_kept_only_where_one_is_given(tmp_path: Path) -> None:
    with kept_runs.kept_folder(tmp_path) as folder:
        assert folder == tmp_path.resolve()
    assert tmp_path.is_dir()
    with kept_runs.kept_folder(None) as folder:
        assert folder.is_dir()
    assert not folder.exists()


def test_request_reaches_the_script_as_it_was(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text("import sys\nassert sys.argv[1] == '--train'\nprint('noise')\nprint(sys.argv[2])\n")
    request = {"recipe": "demo", "changes": ["a.b=[1, 2]", "c='x y'"], "out": None}
    assert kept_runs.in_child(str(script), request, minutes=0.1) == request
    assert options("--train", '{"recipe": "demo"}').extra.train == {"recipe": "demo"}


def test_run_is_trained_once_and_keeps_its_peak(tmp_path: Path) -> None:
    out = tmp_path / "run"
    changes = [f"data.root={tmp_path / 'scenes'}", "data.scenes=12", "trainer.steps=1", "trainer.epochs=null"]
    changes += ["loader.batch_size=2", "loader.workers=0", "eval.bootstrap=0", "trainer.accelerator=cpu"]
    request = {"recipe": "demo", "changes": changes, "out": str(out)}
    run = kept_runs.trained(request)
    images = run.scores["test"].images
    assert images > 0
    assert kept_runs.peak_mib(out) > 50
    written = (out / "weights.safetensors").stat().st_mtime_ns
    assert kept_runs.trained(request).folder == run.folder
    assert (out / "weights.safetensors").stat().st_mtime_ns == written
    (out / "scores.json").unlink()  # as one that was stopped before it was scored
    assert kept_runs.trained(request).scores["test"].images == images
    assert kept_runs.epochs(out) <= 1
