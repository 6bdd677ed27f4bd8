"""Trainings in processes of their own: several at once, and ones that are told to stop."""

from __future__ import annotations

import csv
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from clearsight.recipe.write import recipe_to_yaml
from clearsight.train.average import refresh_statistics
from clearsight.train.checkpoint import load_checkpoint

HERE = Path(__file__).resolve().parent


def losses(folder: Path, split: str = "train") -> list[dict[str, float]]:
    with (folder / "metrics.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["split"] == split]
    return [{k: float(v) for k, v in row.items() if v and k != "split"} for row in rows]


def test_two_processes_equal_one(tmp_path, script):
    """Half the batch each, group norm, no dropout: the mean of the halves is the whole."""
    torchrun = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2")
    script("digits_run.py", tmp_path / "two", "--devices=2", launcher=torchrun)
    script("digits_run.py", tmp_path / "one")
    one, two = losses(tmp_path / "one"), losses(tmp_path / "two")
    assert len(one) == len(two) == 24
    for a, b in zip(one, two, strict=True):
        assert a == pytest.approx(b, rel=1e-5, abs=1e-5)
    first = load_checkpoint(tmp_path / "one/checkpoints/last.ckpt")
    second = load_checkpoint(tmp_path / "two/checkpoints/last.ckpt")
    for name, value in first["average"]["model"].items():
        torch.testing.assert_close(value, second["average"]["model"][name], rtol=1e-4, atol=1e-5)
    assert len(second["random"]) == 2  # each process has streams of its own
    assert not torch.equal(second["random"][0]["torch"], second["random"][1]["torch"])


@pytest.mark.parametrize(
    "blind", [[], pytest.param(["--blind"], marks=pytest.mark.long)]
)  # without evaluations the average is made ready at the very end
def test_the_statistics_of_an_equal_average_come_from_the_images_of_all_processes(tmp_path, script, digits, blind):
    torchrun = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2")
    script("digits_run.py", tmp_path, "--devices=2", "--swa", *blind, launcher=torchrun)
    average = load_file(tmp_path / "weights.safetensors")
    found = []
    for rank in range(2):
        own = digits.DigitNet(batch_norm=True)
        own.load_state_dict(average)
        refresh_statistics(
            own, (batch.images for batch in digits.DigitBatches(rank=rank, world=2).epoch(3 if blind else 2))
        )
        found.append(own.state_dict())
    for name in ("backbone.1.running_mean", "backbone.4.running_var"):
        assert not torch.equal(found[0][name], found[1][name])
        torch.testing.assert_close(average[name], (found[0][name] + found[1][name]) / 2, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("processes", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_sigterm_is_answered_with_a_checkpoint(tmp_path, process_environment, script, processes):
    """As SLURM does it: every process gets the signal, all stop at one step, and the run can go on."""
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"] if processes == 2 else []
    command = [sys.executable, *launcher, HERE / "digits_run.py", tmp_path / "run", f"--devices={processes}"]
    process = subprocess.Popen(
        [*command, "--epochs=1000"],
        env=process_environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    last = tmp_path / "run/checkpoints/last.ckpt"
    deadline = time.monotonic() + 60
    while not last.exists():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline, "no checkpoint within a minute"
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    said, _ = process.communicate(timeout=60)
    assert "SIGTERM" in said
    position = load_checkpoint(last)["position"]
    assert len(losses(tmp_path / "run")) == position["step"]
    if processes == 1:
        assert process.returncode == 0, said
        assert f"step {position['step']}, SIGTERM" in said


@pytest.mark.slow
def test_a_whole_run_on_two_processes(tmp_path, process_environment, small_recipe):
    """Data, training, evaluation by shares, scores and report; the same metrics as one process to rounding."""
    recipe = small_recipe(model__norm="group", augment__flip_horizontal=0.0)
    (tmp_path / "small.yaml").write_text(recipe_to_yaml(recipe))
    for processes in (1, 2):
        command = [
            sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}",
            "-m", "clearsight", "train", str(tmp_path / "small.yaml"), "--out", str(tmp_path / str(processes)),
        ]  # fmt: skip
        done = subprocess.run(command, env=process_environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    assert (tmp_path / "2/report.html").is_file()
    for one, two in zip(losses(tmp_path / "1"), losses(tmp_path / "2"), strict=True):
        assert one["loss"] == pytest.approx(two["loss"], rel=1e-3)
    first, second = (json.loads((tmp_path / name / "scores.json").read_text())["test"] for name in ("1", "2"))
    assert first["images"] == second["images"] == 6
