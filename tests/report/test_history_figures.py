import math

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from clearsight.report.history_figures import history_figures


def painted(value):
    """Named colours replaced, so that Plotly's own checks can read a figure."""
    if isinstance(value, str):
        return "#123456" if value.startswith("var(--") else value
    if isinstance(value, list):
        return [painted(v) for v in value]
    return {k: painted(v) for k, v in value.items()} if isinstance(value, dict) else value


def test_plotly_accepts_every_figure(training_history):
    figures = history_figures(training_history, "detection")
    assert [f.id for f in figures] == ["validation", "loss", "learning-rate", "gradient-norm"]
    for figure in figures:
        go.Figure(painted(figure.data), painted(figure.layout))
        assert figure.help
        assert figure.layout["xaxis"]["title"]["text"]
        assert figure.layout["yaxis"]["title"]["text"]


def test_the_best_value_of_the_main_metric_is_marked(training_history):
    validation = history_figures(training_history, "detection")[0]
    assert [trace.get("name") for trace in validation.data[:2]] == ["mAP", "AP50"]
    mark = validation.data[-1]
    values = training_history["map"].dropna()
    assert mark["y"] == [values.max()]
    assert mark["x"] == [15]
    assert validation.layout["xaxis"]["title"]["text"] == "Epoch"


def test_losses_are_drawn_by_term_with_their_moving_average(training_history):
    loss = history_figures(training_history, "detection")[1]
    assert [t["name"] for t in loss.data[::2]] == ["total, training", "box, training", "class, training"]
    faint, smooth = loss.data[0], loss.data[1]
    assert np.std(np.diff(smooth["y"])) < np.std(np.diff(faint["y"])) / 2
    assert loss.layout["xaxis"]["title"]["text"] == "Optimiser step, of 300 (15 epochs)"


def test_a_validation_loss_is_dashed():
    frame = pd.DataFrame(
        {"step": [1, 2, 2], "epoch": [1, 1, 1], "split": ["train", "train", "val"], "loss": [3.0, 2.0, 2.5]}
    )
    (figure,) = history_figures(frame, None)
    assert [(t["name"], t["line"]["dash"]) for t in figure.data] == [
        ("total, training", "solid"),
        ("total, validation", "dash"),
    ]


def test_wide_ranges_are_logarithmic():
    frame = pd.DataFrame({"step": [1, 2, 3], "split": ["train"] * 3, "loss": [1000.0, 10.0, 1.0]})
    assert history_figures(frame, None)[0].layout["yaxis"]["type"] == "log"
    frame["loss"] = [3.0, 0.0, 1000.0]
    assert "type" not in history_figures(frame, None)[0].layout["yaxis"]


def test_long_histories_are_thinned_and_gaps_left_out():
    steps = np.arange(20_000)
    loss = np.where(steps % 7 == 0, np.nan, 1.0)
    frame = pd.DataFrame({"step": steps, "epoch": steps // 100, "split": "train", "loss": loss})
    (figure,) = history_figures(frame, None)
    assert all(len(trace["x"]) <= 1500 for trace in figure.data)
    assert figure.data[0]["x"][-1] >= 19_990
    assert all(math.isfinite(v) for v in figure.data[0]["y"])


def test_an_empty_or_foreign_history_has_no_figures():
    assert history_figures(pd.DataFrame(), None) == []
    assert history_figures(pd.DataFrame({"a": [1]}), None) == []
    nothing = pd.DataFrame({"step": [1], "epoch": [1], "split": ["train"], "loss": [math.nan], "lr": [math.nan]})
    assert history_figures(nothing, "detection") == []
