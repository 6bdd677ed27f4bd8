"""A small real run diagnosed, its remedy applied, a spoiled step of it run again."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from clearsight.deploy.treat import apply, diagnose, replay
from clearsight.errors import CheckpointError, ConfigError, DataError, NonFiniteLoss, NotFound
from clearsight.recipe.resolve import load_recipe
from clearsight.train.observe import Observer, Started, Stepped
from clearsight.train.run import train

SMALL = [
    "data.scenes=20",
    "data.size=[64,64]",
    "model.widths=[8,8,8,8]",
    "model.fpn_channels=8",
    "loader.batch_size=4",
    "loader.workers=0",
    "trainer.epochs=4",
    "trainer.precision=32-true",
    "eval.bootstrap=0",
]


class Spoil(Observer):
    """After the fifth step, as a fault of the memory would do it."""

    name = "spoil"

    def on_start(self, event: Started) -> None:
        self.weight = next(event.model.parameters())

    def on_step(self, event: Stepped) -> None:
        if event.position.step == 5:
            self.weight.data[0] = float("inf")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Runs: one `sound`, one `spoiled` by an infinite weight, one that a rate far too high has made `diverged`."""
    folder = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CLEARSIGHT_CACHE", str(folder / "cache"))
        train(load_recipe("demo", SMALL), out=folder / "sound", quiet=True)
        wild = [*SMALL, "optimizer.name=sgd", "optimizer.lr=100", "trainer.clip_norm=null", "schedule.warmup=0"]
        with pytest.raises(NonFiniteLoss, match="clearsight replay"):
            train(load_recipe("demo", SMALL), out=folder / "spoiled", quiet=True, observers=[Spoil()])
        with pytest.raises(NonFiniteLoss, match="gradient's norm is inf"):
            train(load_recipe("demo", wild), out=folder / "diverged", quiet=True)
        yield folder


def test_a_sound_run_has_no_fault(place: Path) -> None:
    found = diagnose(place / "sound")
    assert found.worst in ("", "info")
    assert (
        found.verdict == "Too little was logged to tell how it learned. Nothing was found that would have cost quality."
    )
    assert "vanishing-gradient" not in found.silent


def test_layers_were_watched(place: Path) -> None:
    lines = (place / "sound/telemetry.jsonl").read_text().splitlines()
    assert len(lines) > 3
    found = diagnose(place / "sound")
    assert not any("layers were not watched" in note for note in found.notes)


def test_the_spoiled_run_names_the_operation_and_repeats_it(place: Path) -> None:
    found = diagnose(place / "spoiled").find("non-finite")
    assert (found.severity, found.evidence["direction"]) == ("error", "parameter")
    again = replay(place / "spoiled")
    assert again.as_finding().evidence["operation"] == found.evidence["operation"]
    assert again.as_finding().evidence["counts"] == tuple(found.evidence["counts"])


def test_a_remedy_becomes_a_recipe_that_loads(place: Path, tmp_path: Path) -> None:
    finding = diagnose(place / "diverged").find("non-finite")
    assert finding.remedy
    applied = apply(place / "diverged", "non-finite", out=tmp_path / "new.yaml")
    recipe = load_recipe(tmp_path / "new.yaml")
    for key, value in finding.remedy.items():
        section, name = key.split(".")
        assert getattr(getattr(recipe, section), name) == pytest.approx(value)
    assert [line[0] for line in applied.difference.splitlines()] == ["-", "+"] * len(finding.remedy)
    with pytest.raises(ConfigError, match="is there already"):
        apply(place / "diverged", "non-finite", out=tmp_path / "new.yaml")


def test_mistakes(place: Path, tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="no finding 'F99'"):
        apply(place / "diverged", "F99")
    with pytest.raises(NotFound, match="no step was saved"):
        replay(place / "sound")
    with pytest.raises(NotFound, match="no run here"):
        replay(tmp_path)
    with pytest.raises(NotFound, match="does not exist"):
        diagnose(tmp_path / "nowhere")
    with pytest.raises(DataError, match="it is empty"):
        diagnose(tmp_path)


def test_what_was_saved_of_another_model_is_refused(place: Path, tmp_path: Path) -> None:
    import shutil

    shutil.copytree(place / "spoiled", tmp_path / "run")
    recipe = (tmp_path / "run/recipe.yaml").read_text()
    (tmp_path / "run/recipe.yaml").write_text(recipe.replace("fpn_channels: 8", "fpn_channels: 16"))
    with pytest.raises(CheckpointError, match="another model"):
        replay(tmp_path / "run")


def test_half_a_run(place: Path, tmp_path: Path) -> None:
    """What a run leaves when it is killed early, or a disk loses files."""
    (tmp_path / "recipe.yaml").write_text((place / "sound/recipe.yaml").read_text())
    found = diagnose(tmp_path)
    assert found.verdict == "Nothing was logged, so that nothing can be said of the run."
    assert any("metrics.csv is missing" in note for note in found.notes)
    text = (place / "sound/metrics.csv").read_text()
    (tmp_path / "metrics.csv").write_text(text[: len(text) // 2 - 3])
    assert any("half-written" in note for note in diagnose(tmp_path).notes)
    (tmp_path / "environment.json").write_text("{")
    assert any("environment.json is damaged" in note for note in diagnose(tmp_path).notes)


def test_as_json_it_is_whole(place: Path) -> None:
    values = json.loads(diagnose(place / "spoiled").to_json())
    assert values["findings"][0]["number"] == "F01"
