"""Plots of a training: metrics, loss, learning rate, gradient norm."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from clearsight.metrics.scores import main_metric
from clearsight.report.figures import SERIES, Figure, axis, named, series
from clearsight.report.numbers import count, score
from clearsight.report.verdict import FIGURE_NAMES
from clearsight.types import Task

__all__ = ["history_figures"]

Floats = NDArray[np.float64]
Frame = dict[str, Floats]

_POINTS = 1500  # of one line; more are thinned
_OTHER = {"step", "epoch", "split", "lr", "grad_norm", "images_per_second", "seconds"}


def history_figures(history: pd.DataFrame, task: Task | None) -> list[Figure]:
    """Validation metrics, loss, learning rate and gradient norm, each where the history has it."""
    if "step" not in history or "split" not in history or not len(history):
        return []
    splits = np.asarray(history["split"], dtype=object)
    numbers = {str(name): _numbers(history.loc[:, name]) for name in history.columns if name != "split"}
    numbers.setdefault("epoch", np.full(len(history), np.nan))
    train = {name: values[splits == "train"] for name, values in numbers.items()}
    val = {name: values[splits != "train"] for name, values in numbers.items()}
    candidates = [_metrics(val, task), _loss(train, val), _rate(train), _gradient(train)]
    return [figure for figure in candidates if figure is not None]


def _numbers(column: pd.Series) -> Floats:
    return np.asarray(pd.to_numeric(column, errors="coerce"), dtype=np.float64)


def _has(frame: Frame, column: str) -> bool:
    return column in frame and bool(np.isfinite(frame[column]).any())


def _xy(frame: Frame, column: str) -> tuple[list[float], list[float], list[float | None]]:
    """Steps, values and epochs, thinned evenly to what a page can carry."""
    kept = np.flatnonzero(np.isfinite(frame[column]))
    kept = kept[np.unique(np.linspace(0, len(kept) - 1, min(len(kept), _POINTS)).round().astype(int))]
    epochs = [epoch if math.isfinite(epoch) else None for epoch in frame["epoch"][kept].tolist()]
    return frame["step"][kept].tolist(), frame[column][kept].tolist(), epochs


def _steps_axis(frame: Frame) -> dict[str, Any]:
    epochs = frame["epoch"][np.isfinite(frame["epoch"])]
    length = f" ({count(epochs.max())} epochs)" if len(epochs) else ""
    return axis(f"Optimiser step, of {count(frame['step'].max())}{length}", rangemode="tozero", tickformat=",d")


def _spread(values: Sequence[float]) -> dict[str, Any]:
    """A logarithmic axis where the values span more than a factor of thirty."""
    wide = bool(values) and min(values) > 0 and max(values) > 30 * min(values)
    return {"type": "log", "dtick": 1, "exponentformat": "power"} if wide else {"rangemode": "tozero"}


def _line(frame: Frame, column: str, name: str, color: str, *, dash: str = "solid") -> list[dict[str, Any]]:
    """A line; a long and noisy one is drawn faint under its moving average."""
    x, y, epochs = _xy(frame, column)
    trace = {
        "type": "scatter",
        "mode": "lines" if len(x) > 1 else "markers",
        "x": x,
        "y": y,
        "customdata": epochs,
        "name": named(name),
        "legendgroup": named(name),
        "line": {"color": color, "dash": dash, "width": 2},
        "hovertemplate": "%{y:.4g} (epoch %{customdata})",
    }
    if len(x) < 120:
        return [trace]
    smooth = pd.Series(y).rolling(max(5, len(y) // 40), center=True, min_periods=1).mean().tolist()
    faint = {**trace, "opacity": 0.25, "showlegend": False, "hoverinfo": "skip", "line": {"color": color, "width": 1}}
    del faint["hovertemplate"]
    return [faint, {**trace, "y": smooth}]


def _loss(train: Frame, val: Frame) -> Figure | None:
    terms = [c for c in train if (c == "loss" or c.startswith("loss_")) and _has(train, c)]
    if not terms:
        return None
    data: list[dict[str, Any]] = []
    for index, term in enumerate(terms):
        name = "total" if term == "loss" else term.removeprefix("loss_").replace("_", " ")
        color = f"var(--series-{index % SERIES + 1})"
        data += _line(train, term, f"{name}, training", color)
        if _has(val, term):
            data += _line(val, term, f"{name}, validation", color, dash="dash")
    values = [v for trace in data for v in trace["y"]]
    both = " Dashed lines are the validation images." if any(_has(val, term) for term in terms) else ""
    return Figure(
        id="loss",
        title="Loss and its terms",
        help="Lower is better. Each step is drawn faint, its moving average bold."
        f"{both} A training loss that still falls at the end asks for a longer run; a validation loss that rises while "
        "the training loss falls is over-fitting.",
        data=data,
        layout={
            "xaxis": _steps_axis(train),
            "yaxis": axis("Loss (no unit)", **_spread(values)),
            "hovermode": "x unified",
        },
    )


def _metrics(val: Frame, task: Task | None) -> Figure | None:
    names = [c for c in val if c not in _OTHER and not c.startswith("loss") and _has(val, c)]
    if not names:
        return None
    main = main_metric(task) if task else names[0]
    names.sort(key=lambda name: name != main)
    data: list[dict[str, Any]] = []
    for index, name in enumerate(names):
        color, dash = series(index)
        x, y, epochs = _xy(val, name)
        trace = {
            "type": "scatter",
            "mode": "lines+markers" if len(y) < 60 else "lines",
            "x": x if None in epochs else epochs,
            "y": y,
            "name": named(FIGURE_NAMES.get(name, name)),
            "line": {"color": color, "dash": dash, "width": 2.5 if name == main else 1.5},
            "marker": {"size": 5},
            "hovertemplate": "%{y:.3f}",
        }
        data.append(trace if index < 3 else {**trace, "visible": "legendonly"})
    best = int(np.argmax(data[0]["y"]))
    text = f"best {score(data[0]['y'][best])}"
    return Figure(
        id="validation",
        title="Metrics on the validation images",
        help=f"Higher is better, 1 is perfect. The circle marks the best {FIGURE_NAMES.get(names[0], names[0])}. Click "
        "a name to show or hide its line.",
        data=[*data, _best_mark(data[0]["x"][best], data[0]["y"][best], text)],
        layout={
            "xaxis": axis("Epoch", rangemode="tozero"),
            "yaxis": axis("Value, 0 to 1", rangemode="tozero"),
            "hovermode": "x unified",
        },
    )


def _best_mark(x: float, y: float, text: str) -> dict[str, Any]:
    return {
        "type": "scatter",
        "mode": "markers+text",
        "x": [x],
        "y": [y],
        "text": [text],
        "textposition": "top left",
        "marker": {"size": 11, "symbol": "circle-open", "color": "var(--ink)", "line": {"width": 2}},
        "showlegend": False,
        "hoverinfo": "skip",
        "cliponaxis": False,
    }


def _rate(train: Frame) -> Figure | None:
    if not _has(train, "lr"):
        return None
    x, y, epochs = _xy(train, "lr")
    trace = {
        "type": "scatter",
        "mode": "lines",
        "x": x,
        "y": y,
        "customdata": epochs,
        "line": {"color": "var(--series-1)", "width": 2},
        "hovertemplate": "step %{x}: %{y:.3g} (epoch %{customdata})<extra></extra>",
    }
    return Figure(
        id="learning-rate",
        title="Learning rate",
        help="The size of the optimiser's steps: it rises during the warm-up and then follows the schedule.",
        data=[trace],
        layout={
            "xaxis": _steps_axis(train),
            "yaxis": axis("Learning rate", rangemode="tozero", tickformat="~g"),
        },
    )


def _gradient(train: Frame) -> Figure | None:
    if not _has(train, "grad_norm"):
        return None
    data = _line(train, "grad_norm", "gradient norm", "var(--series-4)")
    for trace in data:
        trace["showlegend"] = False
    return Figure(
        id="gradient-norm",
        title="Gradient norm",
        help="The length of the gradient before clipping. Steady or slowly changing is healthy; spikes that grow are a "
        "sign of a learning rate that is too high.",
        data=data,
        layout={"xaxis": _steps_axis(train), "yaxis": axis("Norm (no unit)", **_spread(data[-1]["y"]))},
    )
