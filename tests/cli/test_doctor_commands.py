"""The doctor's commands as a user types them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from clearsight.cli.commands import app

LOG = "epoch,train_loss,val_loss\n" + "".join(f"{i},{2 / (i + 1)},{2 / (i + 1) + 0.1}\n" for i in range(30))


def invoke(*arguments: object):
    return CliRunner().invoke(app, [str(one) for one in arguments])


def test_diagnose_the_log_of_another_trainer(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text(LOG)
    said = invoke("diagnose", tmp_path / "log.csv")
    assert said.exit_code == 0
    assert "log: " in said.output
    whole = json.loads(invoke("diagnose", tmp_path, "--json").output)
    assert whole["subject"] == "log"


@pytest.mark.parametrize("command", ["diagnose", "replay", "apply"])
def test_a_folder_without_a_run(command: str, tmp_path: Path) -> None:
    more = ["F01"] if command == "apply" else []
    said = invoke(command, tmp_path, *more)
    assert said.exit_code != 0
    assert said.exception is not None
    assert str(tmp_path) in str(said.exception)


def test_check_ends_with_one_where_data_has_errors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A sound folder of images, then one with a file that is no image."""
    from PIL import Image
    from sklearn.datasets import load_digits

    monkeypatch.setenv("CLEARSIGHT_CACHE", str(tmp_path / "cache"))
    digits = load_digits()
    for index in range(120):
        folder = tmp_path / "data" / str(digits.target[index] % 2)
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray((digits.images[index] * 15).astype("uint8")).resize((32, 32)).save(folder / f"{index}.png")
    sound = invoke("check", tmp_path / "data")
    assert sound.exit_code == 0, sound.output
    (tmp_path / "data" / "0" / "broken.png").write_bytes(b"\x89PNG nothing")
    broken = invoke("check", tmp_path / "data", "--json")
    assert broken.exit_code == 1
    assert any("broken.png" in one["where"] for one in json.loads(broken.output)["findings"])


def test_check_takes_no_changes_for_data(tmp_path: Path) -> None:
    said = invoke("check", tmp_path, "optimizer.lr=1")
    assert "takes no changes of a recipe" in str(said.exception)
