import math
from dataclasses import replace
from pathlib import Path

import torch

from clearsight.cli import show
from clearsight.deploy.prediction import Prediction, Predictions
from clearsight.metrics.scores import Scores
from clearsight.types import Instances

SCORES = Scores(
    task="detection",
    classes=("cat", "dog"),
    images=7,
    summary={"map": 0.5, "map_50": 0.75, "map_small": math.nan},
    intervals={"map": (0.25, 0.625)},
    per_class=[
        {"class": "cat", "objects": 4, "ap": 0.5, "ap_50": 0.75},
        {"class": "dog", "objects": 0, "ap": math.nan, "ap_50": math.nan},
    ],
)


def predictions(count):
    instances = Instances(
        boxes=torch.zeros(count, 4), labels=torch.ones(count, dtype=torch.int64), scores=torch.full((count,), 0.5)
    )
    return Predictions([Prediction(path=None, size=(2, 2), classes=("cat", "dog"), instances=instances)])


def test_a_summary_is_one_line(capsys):
    show.summary(SCORES, "test")
    assert capsys.readouterr().out == (
        "test: mAP (COCO, IoU 0.50 to 0.95) 0.500 (0.250 to 0.625), AP50 (IoU 0.50) 0.750 on 7 images\n"
    )


def test_scores_show_all_figures_and_never_nan(capsys):
    show.scores(SCORES, "runs/x")
    out = capsys.readouterr().out
    assert "undefined (nothing to score)" in out
    assert "nan" not in out
    assert [line.split() for line in out.splitlines() if line.startswith("dog")] == [["dog", "0", "–", "–"]]


def test_predictions_are_counted_and_cut(capsys):
    show.predictions(predictions(25), None)
    out = capsys.readouterr().out
    assert "1 images, 25 objects (dog: 25)" in out
    assert "… and 5 more" in out
    show.predictions(predictions(0), None)
    assert "nothing reached the threshold" in capsys.readouterr().out


def test_the_demo_hides_no_kind_of_mistake(capsys):
    mistakes = {"missed": 11, "wrong class": 12, "background": 13, "poor box": 14, "duplicate": 15}

    class Finished:
        folder, report = Path("runs/demo"), Path("runs/demo/report.html")
        scores = {"test": replace(SCORES, mistakes=mistakes)}  # noqa: RUF012

    show.demo(Finished())  # pyright: ignore[reportArgumentType]
    out = capsys.readouterr().out
    for count in mistakes.values():
        assert f" {count} " in out
    assert "7 test images with 4 handwritten digits" in out
    assert "Easiest: cat; hardest: cat." in out  # dog has no objects: it is neither


def test_paths_are_not_broken_when_they_are_long(capsys):
    show.say("x" * 300 + "[bold]")
    assert capsys.readouterr().out == "x" * 300 + "[bold]\n"


def test_only_the_first_process_speaks(monkeypatch):
    for name in ("RANK", "LOCAL_RANK", "SLURM_PROCID"):
        monkeypatch.delenv(name, raising=False)
    assert show.first_process()
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert not show.first_process()
