import pytest
import torch

from clearsight.deploy.run import Run
from clearsight.errors import CheckpointError, NotFound
from clearsight.recipe.resolve import load_recipe
from clearsight.recipe.write import recipe_to_yaml
from clearsight.train.run import train

SMALL = [
    "data.scenes=20",
    "data.size=[64,64]",
    "model.widths=[8,8,8,8]",
    "model.fpn_channels=8",
    "loader.batch_size=4",
    "loader.workers=0",
    "trainer.epochs=1",
    "trainer.precision=32-true",
    "eval.bootstrap=0",
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("run")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CLEARSIGHT_CACHE", str(place / "cache"))
        yield train(load_recipe("demo", SMALL), out=place / "small", quiet=True).path


def test_what_a_run_holds_is_read_when_it_is_asked_for(folder):
    run = Run(str(folder))
    assert run.folder == folder
    assert run.recipe == load_recipe("demo", SMALL)
    assert run.classes == tuple("0123456789")
    assert list(run.scores) == ["test"]
    assert len(run.metrics) > 0
    assert run.report.read_text(encoding="utf-8").lstrip().lower().startswith("<!doctype html")
    assert run.model is run.model


def test_the_predictor_is_set_up_as_the_recipe_says(folder):
    run = Run(folder)
    predictor = run.predictor
    assert predictor.data == run.recipe.data
    assert predictor.batch_size == run.recipe.loader.eval_batch_size
    assert predictor.scale == 255
    (found,) = run.predict(torch.zeros((3, 50, 40), dtype=torch.uint8), threshold=0.0, quiet=True)
    assert found.size == (50, 40)
    assert found.classes == run.classes


def test_a_run_that_only_began(tmp_path):
    (tmp_path / "recipe.yaml").write_text(recipe_to_yaml(load_recipe("demo")), encoding="utf-8")
    run = Run(tmp_path, interrupted="SIGTERM")
    assert repr(run) == f"Run({str(tmp_path)!r}, unfinished)"
    assert run.metrics.empty
    assert run.scores == {}
    assert run.findings == []
    with pytest.raises(NotFound, match="it has no report yet; go on with: clearsight train --resume"):
        _ = run.report
    with pytest.raises(CheckpointError, match="the run has no weights yet"):
        _ = run.model


def test_a_folder_without_a_run(tmp_path):
    with pytest.raises(NotFound, match="no run here"):
        Run(tmp_path)
