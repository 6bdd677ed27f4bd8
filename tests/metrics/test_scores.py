import json
import math

import pytest

from clearsight.errors import DataError, NotFound
from clearsight.metrics.scores import Scores, main_metric


def example() -> Scores:
    return Scores(
        task="detection",
        classes=("a", "b"),
        images=3,
        summary={"map": 0.25, "map_small": math.nan},
        intervals={"map": (0.1, math.nan)},
        per_class=[{"class": "a", "ap": 0.5}, {"class": "b", "ap": math.nan}],
        curves={"pr": {"a": {"recall": [0.0, 1.0], "precision": [1.0, math.nan]}}},
        confusion=[[1, 0, 0], [0, 1, 0], [0, 0, 0]],
    )


def test_json_round_trip_keeps_every_value_and_nan(tmp_path):
    before = example()
    text = json.dumps(before.to_dict(), allow_nan=False)
    after = Scores.from_dict(json.loads(text))
    assert math.isnan(after.summary["map_small"])
    assert math.isnan(after.per_class[1]["ap"])
    assert math.isnan(after.curves["pr"]["a"]["precision"][1])
    assert after.intervals["map"][0] == 0.1
    assert math.isnan(after.intervals["map"][1])
    assert after.classes == ("a", "b")
    assert after.to_dict() == before.to_dict()
    assert Scores.load(before.save(tmp_path / "s.json")).to_dict() == before.to_dict()
    assert [p.name for p in tmp_path.iterdir()] == ["s.json"]


def test_infinity_is_no_number_in_json():
    scores = example()
    scores.summary["loss"] = math.inf
    assert scores.to_dict()["summary"]["loss"] is None


def test_main_figure_and_confusion_names():
    scores = example()
    assert scores.main == 0.25
    assert scores.confusion_names == ("a", "b", "background")
    scores.confusion = [[1, 0], [0, 1]]
    assert scores.confusion_names == ("a", "b")
    assert main_metric("classification") == "accuracy"


def test_unknown_and_missing_keys_are_refused(tmp_path):
    data = example().to_dict()
    with pytest.raises(DataError, match="unknown key extra"):
        Scores.from_dict({**data, "extra": 1})
    del data["classes"]
    with pytest.raises(DataError, match="classes is missing"):
        Scores.from_dict(data)
    with pytest.raises(NotFound, match="no such file"):
        Scores.load(tmp_path / "none.json")
    (tmp_path / "bad.json").write_text("{")
    with pytest.raises(DataError, match="not valid JSON"):
        Scores.load(tmp_path / "bad.json")
    (tmp_path / "list.json").write_text("[]")
    with pytest.raises(DataError, match="expected a JSON object, found list"):
        Scores.load(tmp_path / "list.json")
