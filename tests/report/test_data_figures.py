import math

import plotly.graph_objects as go

from clearsight.report.data_figures import data_figures


def test_counts_and_histograms(make_content):
    figures = data_figures(make_content().data_statistics)
    assert [f.id for f in figures] == ["class-counts", "object-sizes", "objects-per-image"]
    for figure in figures:
        go.Figure([{k: v for k, v in trace.items() if k != "marker"} for trace in figure.data], figure.layout)
    counts, sizes, number = figures
    assert counts.data[0]["y"] == [100, 200, 300]
    assert counts.data[1]["text"] == ["7", "7", "7"]
    assert sum(sizes.data[0]["y"]) == 400
    assert sum(number.data[0]["y"]) == 205
    assert number.data[0]["x"] == [float(v) for v in range(12)]  # whole numbers get a bar each
    assert "Median" in sizes.help


def test_what_is_missing_is_left_out():
    assert data_figures({}) == []
    assert data_figures({"counts": {}, "object_sizes": [], "objects_per_image": None}) == []
    assert data_figures({"object_sizes": [math.nan]}) == []
    (only,) = data_figures({"object_sizes": [4.0, math.inf, 4.0]})
    assert sum(only.data[0]["y"]) == 2


def test_a_class_that_a_split_lacks_counts_zero():
    (figure,) = data_figures({"counts": {"train": {"a": 3, "b": 1}, "val": {"a": 2}}})
    assert figure.data[1]["y"] == [2, 0]
