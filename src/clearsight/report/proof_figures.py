"""The plot that proves a finding of a run: the curves or the layers that it was told from, with the step marked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from clearsight.doctor.run.record import Curve, RunRecord
from clearsight.report.figures import Figure, axis, named, series
from clearsight.report.numbers import count
from clearsight.types import Finding

__all__ = ["proof_figures"]

_POINTS = 600
_LAYERS = 8
_MEASURES = {
    "grad_norm": "Gradient norm of the layer",
    "weight_norm": "Norm of the weights",
    "update_ratio": "Change of the weights in a step, relative to them",
    "inactive": "Share of units that never give anything",
    "saturated": "Share of values in the flat part",
    "bn_gap": "Distance of the means, running standard deviations",
    "bn_ratio": "Variance of the batch over the running one",
    "out_std": "Standard deviation of the output",
    "out_mean": "Mean of the output",
}
_CURVES = {
    "loss": ("Training loss", "Loss (no unit)"),
    "val/loss": ("Validation loss", "Loss (no unit)"),
    "grad_norm": ("Gradient norm", "Norm (no unit)"),
    "lr": ("Learning rate", "Learning rate"),
    "seconds": ("Duration of a step", "Seconds"),
    "waiting": ("Waiting for data", "Seconds"),
    "memory": ("Memory of the process", "Bytes"),
}


def proof_figures(findings: Sequence[Finding], record: RunRecord | None) -> list[Figure]:
    """One plot for each finding of a run whose evidence says what proves it, in their order.

    Args:
        findings: any; those of data and models have tables and files for evidence.
        record: of the run; None gives no plot.
    """
    figures: list[Figure] = []
    if record is None:
        return figures
    for number, finding in enumerate(findings, start=1):
        plot = finding.evidence.get("plot")
        if finding.severity == "info" or not isinstance(plot, Mapping):
            continue
        figure = _of_layers(plot, record) if "layers" in plot else _of_curves(plot, record)
        if figure is None:
            continue
        traces, layout = figure
        mark = plot.get("mark", finding.evidence.get("step"))
        if isinstance(mark, int):
            layout |= {"shapes": [_line_at(mark)], "annotations": [_text_at(mark)]}
        figures.append(
            Figure(
                id=f"proof-{number}",
                title=f"{finding.id}: {finding.where}",
                help=finding.explanation,
                data=traces,
                layout=layout,
            )
        )
    return figures


def _of_curves(plot: Mapping[str, Any], record: RunRecord) -> tuple[list[dict[str, Any]], dict[str, Any]] | None:
    found = [(name, curve) for name in plot.get("curves", ()) if len(curve := _curve(record, str(name)))]
    if not found:
        return None
    traces, layout = [], {"xaxis": _steps(record), "hovermode": "x unified"}
    for index, (name, curve) in enumerate(found):
        label, unit = _CURVES.get(name, (name.replace("/", ", "), "Value"))
        own = index > 0 and unit != _CURVES.get(found[0][0], ("", "Value"))[1]
        color, dash = series(index)
        curve = _thinned(curve)
        traces.append(
            {
                "type": "scatter",
                "mode": "lines+markers" if len(curve) < 40 else "lines",
                "x": curve.steps.tolist(),
                "y": curve.values.tolist(),
                "name": named(label),
                "line": {"color": color, "dash": dash, "width": 2},
                "hovertemplate": "%{y:.4g}",
                **({"yaxis": "y2"} if own else {}),
            }
        )
        if own:
            layout["yaxis2"] = axis(unit, overlaying="y", side="right", automargin=True, showgrid=False)
            layout["margin"] = {"r": 70}
        else:
            layout["yaxis"] = axis(unit, **_scale([trace for trace in traces if "yaxis" not in trace]))
    return traces, layout


def _scale(traces: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """A logarithmic axis where positive values span more than a factor of thirty."""
    numbers = np.concatenate([np.asarray(trace["y"], dtype=float) for trace in traces])
    numbers = numbers[np.isfinite(numbers)]
    wide = bool(len(numbers)) and numbers.min() > 0 and numbers.max() > 30 * numbers.min()
    return {"type": "log", "exponentformat": "power"} if wide else {"rangemode": "tozero"}


def _curve(record: RunRecord, name: str) -> Curve:
    group, _, rest = name.partition("/")
    groups: dict[str, Mapping[str, Curve]] = {
        "val": record.val,
        "train": record.train,
        "train_in_eval": record.train_in_eval,
        "terms": record.terms,
        "class_scores": record.class_scores,
    }
    if rest:
        found: Any = groups.get(group, {}).get(rest)
    else:
        found = getattr(record, name, None) or record.val.get(name) or record.train.get(name)
    return found if isinstance(found, Curve) else record.loss.between(0, 0)


def _thinned(curve: Curve) -> Curve:
    kept = np.unique(np.linspace(0, len(curve) - 1, min(len(curve), _POINTS)).round().astype(int))
    return Curve(curve.steps[kept], curve.values[kept])


def _of_layers(plot: Mapping[str, Any], record: RunRecord) -> tuple[list[dict[str, Any]], dict[str, Any]] | None:
    layers, measure = record.layers, str(plot["layers"])
    if layers is None or measure not in layers.values:
        return None
    values = layers.values[measure]
    wanted = [layers.names.index(name) for name in plot.get("names", ()) if name in layers.names][:_LAYERS]
    traces = []
    for index, column in enumerate(wanted):
        kept = np.isfinite(values[:, column])
        color, dash = series(index)
        traces.append(
            {
                "type": "scatter",
                "mode": "lines+markers",
                "x": layers.steps[kept].tolist(),
                "y": values[kept, column].tolist(),
                "name": named(layers.names[column]),
                "line": {"color": color, "dash": dash, "width": 2},
                "hovertemplate": "%{y:.3g}",
            }
        )
    if not traces:
        return None
    title = _MEASURES.get(measure, measure.replace("_", " "))
    return traces, {"xaxis": _steps(record), "yaxis": axis(title, **_scale(traces)), "hovermode": "x unified"}


def _steps(record: RunRecord) -> dict[str, Any]:
    return axis(f"Optimiser step, of {count(record.steps)}", rangemode="tozero", tickformat=",d")


def _line_at(step: int) -> dict[str, Any]:
    line = {"color": "var(--ink)", "width": 1, "dash": "dot"}
    return {"type": "line", "x0": step, "x1": step, "yref": "paper", "y0": 0, "y1": 1, "line": line}


def _text_at(step: int) -> dict[str, Any]:
    where = {"x": step, "xanchor": "left", "yref": "paper", "y": 1, "yanchor": "top", "showarrow": False}
    return {**where, "text": f"since step {count(step)}", "font": {"size": 11}}
