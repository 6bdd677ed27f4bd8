"""The watcher at a real training: what it keeps, what it says, and that the weights do not know of it."""

from __future__ import annotations

import pytest
import torch
from rich.console import Console

from clearsight.doctor.run.telemetry import read_telemetry
from clearsight.recipe.resolve import load_recipe
from clearsight.train.checkpoint import load_checkpoint
from clearsight.train.folder import RunFolder
from clearsight.train.observe import Position, Started, Stepped, StopRequest
from clearsight.train.watching import Watcher


def watcher(folder, *, stop=False, quiet=True):
    recipe = load_recipe("demo", [f"watch.stop={stop}", "watch.every=10"])
    return Watcher(RunFolder(folder), recipe, tuple("0123456789"), (20,) * 10, Console(stderr=True, quiet=quiet))


def test_layers_are_measured_and_a_sound_run_has_no_warning(tmp_path, digits):
    digits.train_digits(tmp_path, digits.cpu(epochs=3), observers=[watcher(tmp_path)])
    layers, facts = read_telemetry(tmp_path)
    assert layers.names[0] == "backbone.0"
    assert layers.steps[:4].tolist() == [1, 2, 4, 8]
    assert (layers.values["update_ratio"][:, 0] > 0).all()
    assert "not_in_optimizer" not in facts
    told = [finding.id for finding in RunFolder(tmp_path).read_findings() if finding.severity != "info"]
    assert told == ["not-converged"]  # 24 steps are few, and that is all


def test_the_weights_do_not_know_of_it(tmp_path, digits):
    for name, observers in (("with", [watcher(tmp_path / "with")]), ("without", [])):
        (tmp_path / name).mkdir()
        digits.train_digits(tmp_path / name, digits.cpu(epochs=2), observers=observers)
    one, other = (load_checkpoint(tmp_path / name / "checkpoints/last.ckpt") for name in ("with", "without"))
    for part in ("model", "average"):
        assert str(one[part].keys()) == str(other[part].keys())
    assert all(torch.equal(value, other["model"][name]) for name, value in one["model"].items())


@pytest.mark.parametrize("stop", [False, True])
def test_an_error_ends_the_run_only_where_it_is_told_to(tmp_path, digits, stop, capsys):
    """A cross-entropy that becomes negative is maximised."""
    recipe = load_recipe("demo", [f"watch.stop={stop}"]).model_copy(update={"task": "classification"})
    watch = Watcher(RunFolder(tmp_path), recipe, tuple("0123456789"), (20,) * 10, Console(stderr=True))
    start = Position()
    watch.on_start(
        Started(
            position=start, total_steps=400, total_epochs=None, minutes=None, steps_per_epoch=100,
            model=digits.DigitNet(), folder=tmp_path,
        )
    )  # fmt: skip
    asked = [watch.on_step(step_of(number, 2.3 - 0.02 * number)) for number in range(1, 201)]
    assert any(isinstance(one, StopRequest) for one in asked) == stop
    (told,) = [one for one in RunFolder(tmp_path).read_findings() if one.severity == "error"]
    assert told.id == "wrong-sign"
    assert capsys.readouterr().err.count("wrong-sign") == 1
    state = watch.state_dict()
    (tmp_path / "findings.jsonl").write_text("")  # as a resume writes it anew, with what was found of the data
    again = Watcher(RunFolder(tmp_path), recipe, tuple("0123456789"), (20,) * 10, Console(stderr=True))
    again.load_state_dict(state)
    assert told in RunFolder(tmp_path).read_findings()


def test_the_images_of_a_spike_are_named(tmp_path, digits):
    recipe = load_recipe("demo")
    watch = Watcher(RunFolder(tmp_path), recipe, tuple("0123456789"), (20,) * 10, Console(quiet=True))
    watch.on_start(
        Started(
            position=Position(), total_steps=400, total_epochs=None, minutes=None, steps_per_epoch=100,
            model=digits.DigitNet(), folder=tmp_path,
        )
    )  # fmt: skip
    for number in range(1, 401):
        bad = number == 205
        watch.on_step(step_of(number, 30.0 if bad else 2.3 * 0.99**number, ["good.png", "bad.png"] if bad else []))
    (spike,) = [one for one in RunFolder(tmp_path).read_findings() if one.id == "loss-spike"]
    assert spike.evidence["batches"] == [{"step": 205, "epoch": 3, "batch": 5, "images": ["good.png", "bad.png"]}]


def step_of(number, loss, files=()):
    return Stepped(
        position=Position(step=number), epoch=1, loss=loss, terms={"class": loss}, grad_norm=1.0, lr=0.1, images=4,
        files=files,
    )  # fmt: skip


def test_a_rate_far_too_high_is_told_while_it_runs(tmp_path, digits):
    digits.train_digits(tmp_path, digits.cpu(epochs=4, clip_norm=None), lr=30.0, observers=[watcher(tmp_path)])
    assert any(finding.severity != "info" for finding in RunFolder(tmp_path).read_findings())
