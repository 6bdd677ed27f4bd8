"""From what a user calls a model to the model."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from clearsight.deploy.run import Run
from clearsight.deploy.subject import profile_subject
from clearsight.errors import ConfigError, NotFound
from clearsight.recipe.resolve import load_recipe
from clearsight.recipe.write import recipe_to_yaml
from clearsight.train.run import train

SMALL = (
    "data.scenes=20", "data.size=[64,96]", "model.widths=[8,8,8,8]", "model.fpn_channels=8", "loader.batch_size=4",
    "loader.workers=0", "trainer.epochs=1", "trainer.precision=32-true", "eval.bootstrap=0",
)  # fmt: skip


def test_a_module_is_itself():
    model = nn.Linear(2, 2)
    found = profile_subject(model)
    assert found.model is model
    assert (found.name, found.size, found.channels, found.scores) == (None, None, 3, {})


@pytest.mark.parametrize(
    ("name", "classes", "size", "outputs"),
    [("resnet18", None, 224, 1000), ("resnet18", 7, 224, 7), ("light", None, 640, 80), ("retinanet", 5, 640, 5)],
)
def test_a_name_is_a_model_with_the_usual_classes_and_size(name, classes, size, outputs):
    found = profile_subject(name, classes=classes)
    assert (found.name, found.size) == (name, (size, size))
    out = found.model.eval()(torch.zeros(1, 3, 64, 64))
    assert (out if isinstance(out, torch.Tensor) else out.logits).shape[-1] == outputs


def test_a_recipe_has_its_own_size_and_needs_no_weights(tmp_path):
    recipe = load_recipe("demo", ["data.size=[64,128]", "data.channels=1", "model.weights=missing.safetensors"])
    (tmp_path / "mine.yaml").write_text(recipe_to_yaml(recipe), encoding="utf-8")
    found = profile_subject(tmp_path / "mine.yaml", classes=3)
    assert (found.name, found.size, found.channels) == ("demo", (64, 128), 1)
    assert found.model.eval()(torch.zeros(1, 1, 64, 64)).logits.shape[-1] == 3
    assert profile_subject("demo").name == "demo"


def test_a_run_is_its_trained_model_with_its_scores(tmp_path, monkeypatch):
    monkeypatch.setenv("CLEARSIGHT_CACHE", str(tmp_path / "cache"))
    folder = train(load_recipe("demo", SMALL), out=tmp_path / "small", quiet=True).path
    for given in (folder, str(folder), Run(folder)):
        found = profile_subject(given)
        assert (found.name, found.size) == ("small", (64, 96))
        assert found.scores == {"map (test)": Run(folder).scores["test"].summary["map"]}


def test_unknown_names_and_devices_are_named():
    with pytest.raises(ConfigError, match="there is no model, recipe or run 'resnet81'; did you mean 'resnet18'"):
        profile_subject("resnet81")
    with pytest.raises(ConfigError, match="did you mean 'demo'"):
        profile_subject("demoo")
    with pytest.raises(NotFound):
        profile_subject("missing.yaml")
    with pytest.raises(ConfigError, match="device: 'cdua' cannot be used here"):
        profile_subject("light", device="cdua")
