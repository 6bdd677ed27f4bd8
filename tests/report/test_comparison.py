"""The page that sets models against each other."""

from __future__ import annotations

import json
import re

import pytest

from clearsight.errors import ConfigError
from clearsight.measure.latency import Latency
from clearsight.measure.profile import Profile
from clearsight.measure.rows import Row
from clearsight.report.comparison import write_comparison


def made(name, *, giga=1.0, seconds=0.02, scores=None, timed=True):
    time = Latency(median=seconds, quartiles=(seconds * 0.9, seconds * 1.2), runs=5, device="cpu", threads=1)
    return Profile(
        name=name,
        inputs=((1, 3, 64, 64),),
        types=("float32",),
        total=Row(name=name, kind="Net", flops=int(giga * 1e9)),
        stages=(),
        layers=(),
        uncounted={},
        notes=(),
        counted_on="meta",
        latency=time if timed else None,
        scores=scores or {},
    )


def traces(page):
    """The data of each plot, as the page gives them to Plotly."""
    found = []
    for start in re.finditer(r"Plotly\.newPlot\(\s*\"[\w-]+\",\s*", page):
        data, _ = json.JSONDecoder().raw_decode(page[start.end() :])
        found.append(data)
    return found


def test_a_point_a_model_with_quartiles(tmp_path):
    out = write_comparison([made("a"), made("b", giga=2.5, seconds=0.05)], tmp_path / "new" / "page.html")
    page = out.read_text(encoding="utf-8")
    assert "<h1>Latency against FLOPs: 1×3×64×64 on cpu</h1>" in page
    assert "FLOPs of the forward pass (G)" in page
    assert "Latency (ms)" in page
    ((first, second),) = traces(page)
    assert (first["x"], first["y"], first["name"]) == ([1.0], [20.0], "a")
    assert (second["x"], second["y"]) == ([2.5], [50.0])
    assert second["error_y"]["array"] == pytest.approx([10.0])
    assert second["error_y"]["arrayminus"] == pytest.approx([5.0])
    assert first["marker"] != second["marker"]
    assert not re.search(r"<(script|link)[^>]*\s(src|href)=", page)  # nothing is fetched


def test_scores_that_all_have_are_a_second_plot(tmp_path):
    shared = [made("a", scores={"map (test)": 0.4, "other": 1.0}), made("b", scores={"map (test)": 0.6})]
    plots = traces(write_comparison(shared, tmp_path / "page.html").read_text(encoding="utf-8"))
    assert len(plots) == 2
    assert [(one["x"], one["y"]) for one in plots[1]] == [([20.0], [0.4]), ([20.0], [0.6])]
    assert "error_x" in plots[1][0]
    lone = [shared[0], made("b")]
    assert len(traces(write_comparison(lone, tmp_path / "page.html").read_text(encoding="utf-8"))) == 1


def test_names_are_no_markup(tmp_path):
    page = write_comparison([made("<b>x</b>"), made("y")], tmp_path / "page.html").read_text(encoding="utf-8")
    assert traces(page)[0][0]["name"] == "&lt;b&gt;x&lt;/b&gt;"


def test_without_times_there_is_nothing_to_draw(tmp_path):
    with pytest.raises(ConfigError, match="latency of b was not measured; profile with runs=10"):
        write_comparison([made("a"), made("b", timed=False)], tmp_path / "page.html")
    assert list(tmp_path.iterdir()) == []
