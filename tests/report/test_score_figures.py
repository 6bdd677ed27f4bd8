import math

import plotly.graph_objects as go
import pytest

from clearsight.metrics import Scores
from clearsight.report.score_figures import score_figures


def painted(value):
    """Named colours replaced, so that Plotly's own checks can read a figure."""
    if isinstance(value, str):
        return "#123456" if value.startswith("var(--") else value
    if isinstance(value, list):
        return [painted(v) for v in value]
    return {k: painted(v) for k, v in value.items()} if isinstance(value, dict) else value


def by_id(scores):
    figures = {figure.id: figure for figure in score_figures(scores)}
    for figure in figures.values():
        go.Figure(painted(figure.data), painted(figure.layout))
        assert figure.help
        assert figure.layout["xaxis"]["title"]["text"]
        assert figure.layout["yaxis"]["title"]["text"]
    return figures


def test_a_detector_has_curves_confusion_and_sizes(detection_scores):
    figures = by_id(detection_scores)
    assert list(figures) == ["precision-recall", "confusion", "by-size"]
    lines = [trace for trace in figures["precision-recall"].data if trace["mode"] == "lines"]
    row = detection_scores.per_class[0]
    assert lines[0]["name"] == f"RBC ({row['ap_50']:.3f})"
    ring = next(trace for trace in figures["precision-recall"].data if trace["mode"] == "markers")
    assert ring["x"] == [row["recall"]]
    assert ring["y"] == [row["precision"]]


def test_a_class_keeps_its_colour_when_another_has_no_curve(detection_scores):
    curves = detection_scores.curves["pr"]
    empty = {"recall": [], "precision": [], "score": []}
    scores = Scores(
        task="detection", classes=("RBC", "WBC"), images=3, curves={"pr": {"RBC": empty, "WBC": curves["WBC"]}}
    )
    assert by_id(scores)["precision-recall"].data[0]["line"]["color"] == "var(--series-2)"


def test_the_confusion_matrix_shows_counts_and_shares(detection_scores):
    heat = by_id(detection_scores)["confusion"].data[0]
    matrix = detection_scores.confusion
    assert heat["x"] == ["RBC", "WBC", "Platelets", "background"]
    assert heat["z"][0][0] == matrix[0][0] / sum(matrix[0])
    assert heat["text"][0][0] == str(matrix[0][0])
    assert f"<b>{matrix[0][0]}</b> × RBC called RBC" in heat["hovertext"][0][0]
    assert f"<b>{matrix[0][3]}</b> × RBC missed" in heat["hovertext"][0][3]
    assert f"<b>{matrix[3][0]}</b> × RBC where nothing is labelled" in heat["hovertext"][3][0]
    assert heat["hovertext"][3][3] == ""


def test_a_classifier_has_curves_calibration_and_confusion(classification_scores):
    figures = by_id(classification_scores)
    assert list(figures) == ["precision-recall", "confusion", "roc", "calibration"]
    assert figures["roc"].data[0]["line"]["dash"] == "dot"
    assert sum(entry[1] for entry in figures["calibration"].data[0]["customdata"]) == 120
    assert len(figures["confusion"].data[0]["z"]) == 3


def test_many_classes_are_drawn_but_the_first_ten_shown():
    names = tuple(f"class {i}" for i in range(40))
    curve = {"recall": [0.5, 1.0], "precision": [1.0, 0.5], "score": [0.9, 0.1]}
    matrix = [[int(i == j) for j in range(40)] for i in range(40)]
    scores = Scores(
        task="classification",
        classes=names,
        images=40,
        curves={"pr": dict.fromkeys(names, curve)},
        confusion=matrix,
    )
    figures = by_id(scores)
    assert sum("visible" not in trace for trace in figures["precision-recall"].data) == 10
    assert "texttemplate" not in figures["confusion"].data[0]
    assert figures["confusion"].wide


@pytest.mark.parametrize("task", ["detection", "classification"])
def test_scores_of_nothing_have_no_figures(task):
    empty = {"recall": [], "precision": [], "score": []}
    scores = Scores(
        task=task,
        classes=("a",),
        images=0,
        curves={"pr": {"a": empty}, "calibration": {"all": {"confidence": [math.nan], "accuracy": [], "count": [0]}}},
        confusion=[[0, 0], [0, 0]],
    )
    assert score_figures(scores) == []
