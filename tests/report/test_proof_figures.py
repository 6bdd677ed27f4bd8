"""The plots that prove findings: what they show, where the step is marked, what gives none."""

from __future__ import annotations

from typing import Any

import numpy as np

from clearsight.doctor.run.record import Curve, LayerSeries, RunRecord
from clearsight.report.proof_figures import proof_figures
from clearsight.types import Finding, Severity

STEPS = np.arange(1, 2001)
LAYERS = LayerSeries(
    names=("first", "second"),
    kinds=("Conv2d", "Conv2d"),
    activations=("", ""),
    exempt=(False, False),
    steps=np.array([10, 20, 30]),
    values={"grad_norm": np.array([[1e-6, 1.0], [np.nan, 1.0], [1e-7, 2.0]])},
)
RECORD = RunRecord(
    loss=Curve.of(STEPS, 1 / STEPS), val={"loss": Curve.of([500, 1000], [0.5, 0.7])}, lr=Curve.of(STEPS, 0.1 / STEPS),
    layers=LAYERS,
)  # fmt: skip


def finding(plot: dict[str, Any], severity: Severity = "warning", **more: Any) -> Finding:
    return Finding(
        id="some-fault", severity=severity, where="here", explanation="It shows.", evidence={"plot": plot, **more}
    )


def test_curves_with_the_step_marked() -> None:
    (figure,) = proof_figures([finding({"curves": ["loss", "val/loss"], "mark": 700})], RECORD)
    assert figure.title == "some-fault: here"
    assert figure.help == "It shows."
    assert [trace["name"] for trace in figure.data] == ["Training loss", "Validation loss"]
    assert len(figure.data[0]["x"]) == 600
    assert figure.data[1]["y"] == [0.5, 0.7]
    assert figure.layout["yaxis"]["title"]["text"] == "Loss (no unit)"
    assert "yaxis2" not in figure.layout
    assert figure.layout["shapes"][0]["x0"] == 700
    assert figure.layout["annotations"][0]["text"] == "since step 700"


def test_another_unit_has_an_axis_of_its_own() -> None:
    (figure,) = proof_figures([finding({"curves": ["loss", "lr"]}, step=5)], RECORD)
    assert figure.layout["yaxis2"]["title"]["text"] == "Learning rate"
    assert figure.data[1]["yaxis"] == "y2"
    assert figure.layout["shapes"][0]["x0"] == 5


def test_layers_on_a_logarithmic_axis_where_they_differ_much() -> None:
    (figure,) = proof_figures([finding({"layers": "grad_norm", "names": ["first", "second", "third"]})], RECORD)
    assert [trace["name"] for trace in figure.data] == ["first", "second"]
    assert figure.data[0]["x"] == [10, 30]
    assert figure.layout["yaxis"]["type"] == "log"
    assert figure.layout["yaxis"]["title"]["text"] == "Gradient norm of the layer"


def test_what_gives_no_plot() -> None:
    nothing = [
        finding({"curves": ["memory"]}),
        finding({"layers": "inactive", "names": ["first"]}),
        finding({"curves": ["loss"]}, severity="info"),
        Finding(id="leak", severity="warning", where="a.jpg", explanation="twice"),
    ]
    assert proof_figures(nothing, RECORD) == []
    assert proof_figures([finding({"curves": ["loss"]})], None) == []
