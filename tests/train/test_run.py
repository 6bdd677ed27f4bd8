"""Whole runs: from a recipe to a folder with a report, interrupted and resumed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from clearsight.errors import ConfigError, DataError, NotFound
from clearsight.metrics.scores import Scores
from clearsight.recipe.resolve import load_recipe
from clearsight.recipe.schema import Recipe
from clearsight.train.checkpoint import load_checkpoint
from clearsight.train.observe import Observer, Stepped
from clearsight.train.run import evaluate_run, train
from clearsight.types import Finding


class Terminate(Observer):
    def __init__(self, step: int) -> None:
        self.step = step

    def on_step(self, event: Stepped) -> None:
        if event.position.step == self.step:
            os.kill(os.getpid(), signal.SIGTERM)


@pytest.fixture(scope="module")
def whole(tmp_path_factory, small_recipe) -> Path:
    return train(small_recipe(), out=tmp_path_factory.mktemp("runs") / "whole", quiet=True).path


def test_a_run_leaves_everything_behind(whole, small_recipe):
    names = {path.relative_to(whole).as_posix() for path in whole.rglob("*") if path.is_file()}
    assert {
        "recipe.yaml", "environment.json", "metrics.csv", "findings.jsonl", "scores.json", "weights.safetensors",
        "report.html", "checkpoints/last.ckpt", "checkpoints/best.ckpt",
    } <= names  # fmt: skip
    assert any(name.startswith("tensorboard/events") for name in names)
    assert load_recipe(whole / "recipe.yaml") == small_recipe()
    facts = json.loads((whole / "environment.json").read_text())
    assert facts["data"]["images"] == {"train": 28, "val": 6, "test": 6}
    assert len(facts["data"]["fingerprint"]) == 64
    scores = Scores.from_dict(json.loads((whole / "scores.json").read_text())["test"])
    assert scores.images == 6
    assert "map" in scores.intervals


def test_evaluating_again_gives_the_same_figures(whole):
    kept = json.loads((whole / "scores.json").read_text())["test"]
    assert evaluate_run(whole).to_dict() == kept
    assert evaluate_run(whole, split="val").images == 6
    assert set(json.loads((whole / "scores.json").read_text())) == {"test", "val"}
    with pytest.raises(DataError, match=r"no images in split 'tset'.*did you mean 'test'"):
        evaluate_run(whole, split="tset")
    with pytest.raises(NotFound, match="no run here"):
        evaluate_run(whole.parent / "other")


def test_interrupted_and_resumed_is_the_same_run(tmp_path, whole, small_recipe, capfd):
    out = tmp_path / "cut"
    folder = train(small_recipe(), out=out, observers=[Terminate(4)])
    assert folder.interrupted == "SIGTERM"
    assert not folder.report.exists()
    said = capfd.readouterr().err.replace("\n", "")
    assert "interrupted by SIGTERM; go on with: clearsight train --resume" in said
    told = Finding(id="non-finite", severity="error", where="head", explanation="NaN.", evidence={"step": 3})
    folder.write_findings([*folder.read_findings(), told])
    folder = train(small_recipe(), out=out, resume=True, observers=[Terminate(-1)], quiet=True)
    assert folder.interrupted is None
    assert folder.read_findings().count(told) == 1
    assert len({json.dumps(one.as_dict()) for one in folder.read_findings()}) == len(folder.read_findings())
    for name in ("weights.safetensors", "metrics.csv"):
        assert (out / name).read_bytes() == (whole / name).read_bytes(), name
    assert json.loads((out / "environment.json").read_text())["resumed"]
    assert capfd.readouterr() == ("", "")


def test_a_resumed_run_keeps_its_recipe(tmp_path, small_recipe):
    train(small_recipe(trainer__steps=1, trainer__epochs=None), out=tmp_path / "run", quiet=True)
    with pytest.raises(ConfigError, match=r"a resumed run keeps its recipe.*optimizer\.lr: 0\.001 → 0\.5"):
        train(
            small_recipe(trainer__steps=1, trainer__epochs=None, optimizer__lr=0.5),
            out=tmp_path / "run", resume=True, quiet=True,
        )  # fmt: skip
    with pytest.raises(ConfigError, match="there is a run in this folder already"):
        train(small_recipe(), out=tmp_path / "run", quiet=True)
    with pytest.raises(NotFound, match=r"no run here.*runs in .*: run"):
        train(small_recipe(), out=tmp_path / "other", resume=True, quiet=True)


def test_a_run_that_died_before_its_first_checkpoint_starts_anew(tmp_path, whole, small_recipe):
    out = tmp_path / "run"
    folder = train(small_recipe(), out=out, observers=[Terminate(1)], quiet=True)
    folder.last.unlink()
    train(small_recipe(), out=out, resume=True, quiet=True)
    assert (out / "weights.safetensors").read_bytes() == (whole / "weights.safetensors").read_bytes()
    assert (out / "metrics.csv").read_bytes() == (whole / "metrics.csv").read_bytes()


FULL_DISK = """
import resource, signal, sys
from pathlib import Path
from clearsight.errors import ClearsightError
from clearsight.recipe.schema import Recipe
from clearsight.train.checkpoint import load_checkpoint
from clearsight.train.observe import Observer
from clearsight.train.run import train
class Fill(Observer):
    def on_step(self, event):
        if event.position.step == 4:
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
recipe = Recipe.model_validate_json(sys.argv[1])
try:
    train(recipe, out=Path(sys.argv[2]), observers=[Fill()], quiet=True)
except ClearsightError as err:
    print(type(err).__name__, err)
"""


def test_a_full_disk_ends_a_run_that_then_goes_on(tmp_path, whole, small_recipe, process_environment):
    out = tmp_path / "run"
    command = [sys.executable, "-c", FULL_DISK, small_recipe().model_dump_json(), str(out)]
    done = subprocess.run(command, env=process_environment, capture_output=True, text=True, check=True)
    assert "CheckpointError" in done.stdout
    assert "the disk or the quota is full" in done.stdout
    assert load_checkpoint(out / "checkpoints/last.ckpt")["position"]["step"] == 3
    train(small_recipe(), out=out, resume=True, observers=[Idle()], quiet=True)
    assert (out / "weights.safetensors").read_bytes() == (whole / "weights.safetensors").read_bytes()
    assert (out / "metrics.csv").read_bytes() == (whole / "metrics.csv").read_bytes()


class Idle(Observer):
    """Another observer than before: its state is not in the checkpoint."""


def test_without_validation_and_test(tmp_path, small_recipe):
    recipe = small_recipe(data__val=None, data__test=None, trainer__epochs=1)
    folder = train(recipe, out=tmp_path / "run", quiet=True)
    assert folder.weights.is_file()
    assert folder.report.is_file()
    assert not folder.scores.exists()
    with pytest.raises(DataError, match=r"neither data\.test nor data\.val has images; name a split of"):
        evaluate_run(folder.path)


def test_a_classifier_on_image_folders(tmp_path, digits):
    dataset = digits.digit_files(tmp_path / "flat", 60)
    for record in dataset.records:
        place = tmp_path / "data" / dataset.classes[record.label]
        place.mkdir(parents=True, exist_ok=True)
        record.image.rename(place / record.image.name)
    recipe = Recipe.model_validate(
        {
            "name": "digits", "task": "classification",
            "data": {"root": str(tmp_path / "data"), "size": [16, 16], "channels": 1},
            "model": {"name": "classifier", "small_input": True, "norm": "group"},
            "loader": {"batch_size": 8, "workers": 0},
            "trainer": {"steps": 3, "accelerator": "cpu", "precision": "32-true", "early_stop": {"patience": 3}},
        }
    )  # fmt: skip
    folder = train(recipe, out=tmp_path / "run", quiet=True)
    assert 0 <= evaluate_run(folder.path).summary["accuracy"] <= 1
    assert folder.report.is_file()


@pytest.mark.real
def test_blood_cells(tmp_path, shared_data, capfd):
    """The faults of the real set are found, counted and kept beside the run."""
    changes = ["trainer.steps=1", "loader.batch_size=4", "loader.workers=0", "data.size=[64, 96]"]
    recipe = load_recipe("cells", [f"data.root={shared_data / 'bccd'}", *changes])
    folder = train(recipe, out=tmp_path / "cells")
    findings = folder.read_findings()
    assert {"BloodImage_00338", "BloodImage_00343"} <= {
        Path(one.where.split(":")[0]).stem for one in findings if one.severity == "error"
    }
    assert "box-empty" in capfd.readouterr().err
