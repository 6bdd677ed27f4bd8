import os

import numpy as np
import pytest
import torch
from PIL import Image

import clearsight as cs
from clearsight.data.digit_scenes import write_digit_scenes
from clearsight.train.observe import Observer

TINY = (
    "data.scenes=30",
    "data.size=[64,64]",
    "loader.batch_size=4",
    "loader.workers=0",
    "trainer.epochs=2",
    "trainer.eval_every=1",
    "trainer.precision=32-true",
    "model.widths=[8,8,8,8]",
    "model.fpn_channels=8",
    "eval.bootstrap=0",
    "eval.draw_threshold=0.0",
)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder to work in, with a cache of its own."""
    folder = tmp_path_factory.mktemp("work")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("CLEARSIGHT_CACHE", str(folder / "cache"))
        yield folder


@pytest.fixture(scope="module")
def run(place):
    return cs.train("demo", *TINY, quiet=True)


def test_a_run_has_everything(run, place):
    assert run.folder.resolve() == place / "runs" / "demo"
    assert run.finished
    assert run.interrupted is None
    assert run.recipe.data.scenes == 30
    assert run.classes == tuple("0123456789")
    assert {"step", "epoch", "split", "loss"} <= set(run.metrics.columns)
    assert set(run.scores) == {"test"}
    assert run.report.is_file()
    assert repr(run) == "Run('runs/demo')"
    assert not run.model.training


def test_evaluating_again_gives_the_scores_of_the_training(run):
    assert cs.evaluate(run).summary == pytest.approx(run.scores["test"].summary, nan_ok=True)
    assert cs.evaluate(run.folder, "val").images == 4
    assert set(cs.load(run.folder).scores) == {"test", "val"}
    with pytest.raises(cs.DataError, match="did you mean 'test'"):
        cs.evaluate(run, "tset")


def test_predicting_in_memory_and_from_files(run, place):
    image = np.random.default_rng(0).integers(0, 256, (90, 120, 3), dtype=np.uint8)
    Image.fromarray(image).save(place / "a.png")
    (one,) = run.predict(image, quiet=True)
    (two,) = cs.predict(run.folder, place / "a.png", out=place / "out", quiet=True)
    torch.testing.assert_close(one.instances.boxes, two.instances.boxes)
    assert one.size == (90, 120)
    assert len(one) > 0
    assert one.instances.boxes.max() <= 120
    assert {path.name for path in (place / "out").iterdir()} == {"a.jpg", "predictions.csv", "predictions.json"}


def test_a_second_run_goes_beside_a_finished_one(run, capsys):
    second = cs.train("demo", *TINY, "trainer.epochs=1")
    assert str(second.folder) == "runs/demo-2"
    assert "runs/demo has a finished run; this one goes to runs/demo-2" in capsys.readouterr().err


def test_an_unfinished_run_is_not_passed_over(run, place):
    folder = place / "runs" / "open"
    folder.mkdir()
    (folder / "recipe.yaml").write_text("base: demo\nname: open\n")
    with pytest.raises(cs.ConfigError, match=r"unfinished run is here; go on with it: .*--resume runs/open"):
        cs.train("demo", "name=open")
    opened = cs.load(folder)
    assert not opened.finished
    with pytest.raises(cs.NotFound, match="it has no report yet"):
        _ = opened.report


class StopAfterOneEpoch(Observer):
    """Ends the process's work as Ctrl-C would."""

    name = "stop_after_one_epoch"

    def on_evaluate(self, event):
        del event
        os.kill(os.getpid(), 2)


def test_a_stopped_run_goes_on_to_the_same_weights(run):
    stopped = cs.train("demo", *TINY, out="runs/stopped", quiet=True, observers=[StopAfterOneEpoch()])
    assert stopped.interrupted == "SIGINT"
    assert not stopped.finished
    resumed = cs.train(resume="runs/stopped", quiet=True)
    assert resumed.finished
    for name, value in run.model.state_dict().items():
        torch.testing.assert_close(resumed.model.state_dict()[name], value, rtol=0, atol=0)


def test_mistakes_in_calling_train(run, place):
    with pytest.raises(cs.ConfigError, match="nothing to train"):
        cs.train()
    with pytest.raises(cs.ConfigError, match="leave the recipe away"):
        cs.train("demo", resume=run.folder)
    with pytest.raises(cs.ConfigError, match="leave out away"):
        cs.train(resume=run.folder, out="x")
    with pytest.raises(cs.ConfigError, match=r"it needs your data: add data\.root=PATH"):
        cs.train("cells")
    with pytest.raises(cs.ConfigError, match="there is a run in this folder already"):
        cs.train("demo", *TINY, out=run.folder, quiet=True)
    with pytest.raises(cs.NotFound, match=r"no run here .*demo"):
        cs.load(place / "runs" / "dmeo")


def test_several_processes_need_a_folder_they_agree_on(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(cs.ConfigError, match="several processes must agree on a new folder"):
        cs.train("demo")


def test_data_is_checked_to_the_last_pixel(place):
    root = write_digit_scenes(place / "scenes", scenes=8, seed=0, size=(64, 64))
    good = cs.check_data(root)
    victim = good.records[0].image
    assert [finding for finding in good.findings if finding.severity == "error"] == []
    victim.write_bytes(victim.read_bytes()[:-200])
    found = cs.check_data(root)
    assert len(found) == len(good) - 1
    assert any(str(victim) in finding.where for finding in found.findings if finding.severity == "error")


def test_profiling_by_name_by_run_and_of_a_module(run):
    named = cs.profile("light", size=64, classes=3)
    assert isinstance(named, cs.Profile)
    assert (named.name, named.inputs, named.scores) == ("light", ((1, 3, 64, 64),), {})
    trained = cs.profile(run, runs=1)
    assert trained.inputs == ((1, 3, 64, 64),)  # the recipe's size
    assert list(trained.scores) == ["map (test)", "map (val)"][: len(trained.scores)]
    assert trained.latency is not None
    module = cs.profile(torch.nn.Linear(4, 5), torch.zeros(2, 4))
    assert (module.name, module.total.multiply_adds) == ("Linear", 40)
    with pytest.raises(cs.ConfigError, match="did you mean 'light'"):
        cs.profile("lihgt")
    with pytest.raises(cs.ConfigError, match="give either inputs or size"):
        cs.profile("light", torch.zeros(1, 3, 64, 64), size=64)
