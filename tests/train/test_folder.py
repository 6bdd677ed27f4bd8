from __future__ import annotations

import json
import subprocess

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from clearsight.errors import ConfigError, NotFound
from clearsight.train.folder import RunFolder, describe_environment, write_weights
from clearsight.types import Finding


def test_a_new_folder_and_one_in_use(tmp_path):
    folder = RunFolder(tmp_path / "runs" / "a").create()
    assert folder.checkpoints.is_dir()
    folder.create()  # nothing in it yet
    folder.recipe.write_text("name: a\n")
    with pytest.raises(ConfigError, match="there is a run in this folder already"):
        folder.create()
    assert folder.require() is folder
    with pytest.raises(NotFound, match=r"no run here.*runs in .*: a"):
        RunFolder(tmp_path / "runs" / "b").require()
    with pytest.raises(NotFound, match="has no runs"):
        RunFolder(tmp_path / "elsewhere" / "b").require()


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot be made"):
        RunFolder(tmp_path / "file" / "run").create()


def test_findings_and_environment_round_trip(tmp_path):
    folder = RunFolder(tmp_path)
    findings = [
        Finding(id="box-outside", severity="warning", where="a.xml:3", explanation="…", evidence={"n": 1}),
        Finding(id="empty-class", severity="info", where="data", explanation="é"),
    ]
    assert folder.read_findings() == []
    folder.write_findings(findings)
    assert folder.read_findings() == findings
    assert len(folder.findings.read_text().splitlines()) == 2
    with folder.findings.open("a") as file:
        file.write('{"id": "cut o')
    assert folder.read_findings() == findings
    assert folder.read_environment() == {}
    folder.write_environment({"a": [1, None]})
    assert folder.read_environment() == {"a": [1, None]}


def test_environment(tmp_path):
    facts = describe_environment(tmp_path)
    assert facts["commit"] is None
    assert facts["packages"]["torch"] == torch.__version__.split("+")[0] or facts["packages"]["torch"]
    assert facts["processor"]
    json.dumps(facts)


def test_the_commit_around_a_folder(tmp_path):
    def git(*arguments):
        identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
        subprocess.run(["git", *identity, *arguments], cwd=tmp_path, check=True, capture_output=True)

    git("init")
    (tmp_path / "a").write_text("1")
    git("add", "a")
    git("commit", "-m", "one")
    clean = describe_environment(tmp_path)["commit"]
    assert len(clean) == 40
    (tmp_path / "a").write_text("2")
    assert describe_environment(tmp_path)["commit"] == f"{clean} with uncommitted changes"


def test_weights(tmp_path):
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)).to(memory_format=torch.channels_last)
    write_weights(tmp_path / "weights.safetensors", model)
    back = load_file(tmp_path / "weights.safetensors")
    assert back.keys() == model.state_dict().keys()
    for name, value in model.state_dict().items():
        assert torch.equal(back[name], value)


def test_shared_weights(tmp_path):
    one = nn.Linear(2, 2)
    model = nn.Sequential(one, one)
    write_weights(tmp_path / "weights.safetensors", model)
    assert set(load_file(tmp_path / "weights.safetensors")) == set(model.state_dict())
