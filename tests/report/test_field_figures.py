"""The page of receptive fields."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch
from torch import nn

from clearsight.errors import ConfigError
from clearsight.measure.effective_field import EffectiveField, effective_field
from clearsight.measure.field_and_objects import compare_with_objects
from clearsight.measure.receptive_field import receptive_field
from clearsight.report.field_figures import effective_figure, objects_figure, write_fields

NET = nn.Sequential(nn.Conv2d(3, 4, 5, 2, 2), nn.Conv2d(4, 4, 3, padding=1))


def test_the_map_has_the_square_and_the_circle_in_pixels():
    found = effective_field(NET, torch.rand(1, 3, 32, 40), level="1")
    figure = effective_figure(found)
    square, circle = figure["layout"]["shapes"]
    assert (square["y0"], square["x0"], square["y1"], square["x1"]) == found.box == (16 - 4, 20 - 4, 16 + 5, 20 + 5)
    assert circle["x1"] - circle["x0"] == pytest.approx(found.diameter)
    assert figure["layout"]["yaxis"]["range"] == [32, 0]
    (trace,) = figure["data"]
    assert (len(trace["z"]), len(trace["z"][0]), trace["x0"], trace["dx"]) == (32, 40, 0.5, 1)
    assert np.max(trace["z"]) == 1


def test_large_maps_are_drawn_in_squares_of_pixels():
    weights = torch.zeros(650, 400, dtype=torch.float64)
    weights[649, 399] = 1
    found = EffectiveField(
        level="<c5>", weights=weights, place=(1, 1), centre=(649.5, 399.5), sigma=(0.0, 0.0), diameter=1.0, box=None,
        inside=1.0, images=1,
    )  # fmt: skip
    figure = effective_figure(found)
    (trace,) = figure["data"]
    assert (len(trace["z"]), trace["dx"], trace["z"][-1][-1]) == (217, 3, 1.0)
    assert len(figure["layout"]["shapes"]) == 1
    assert "&lt;c5&gt;" in figure["layout"]["title"]["text"]


def test_the_page_has_everything_and_fetches_nothing(tmp_path):
    fields = receptive_field(NET, size=40, name="net & co")
    measured = effective_field(NET, torch.rand(1, 3, 40, 40), level="1")
    objects = compare_with_objects(fields.main, np.array([[30.0, 4.0]]), name="net & co", effective={"1": 7.0})
    lines = objects_figure(objects)["layout"]["shapes"]
    assert [(one["x0"], one["line"]["dash"]) for one in lines] == [(9, "solid"), (7.0, "dash")]
    page = write_fields(fields, [measured], objects, tmp_path / "new" / "page.html").read_text(encoding="utf-8")
    assert "<h1>Receptive fields of net &amp; co at 40×40</h1>" in page
    assert "100 % of your objects are larger than the field at 1 (net &amp; co, 9 px)" in page
    assert page.count("Plotly.newPlot(") >= 2
    assert not re.search(r"<(script|link)[^>]*\s(src|href)=", page)
    with pytest.raises(ConfigError, match=r"must end in \.html"):
        write_fields(fields, [], None, tmp_path / "page.png")
