"""Plots of scores: curves, confusion matrix, sizes and calibration."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from clearsight.metrics.scores import BACKGROUND, Scores
from clearsight.report.figures import Figure, axis, hatched, named, series
from clearsight.report.numbers import count, percent, score

__all__ = ["score_figures"]

_PR_DETECTION = "At IoU 0.5. Recall is the share of objects found, precision the share of detections that are right."
_PR_CLASSIFICATION = (
    "One class against the rest. Recall is the share of the class's images that are recognised, precision the share of "
    "answers of the class that are right."
)
_SHOWN = 10  # classes whose curve is visible at first
_NUMBERED = 24  # classes up to which a confusion matrix has numbers in it


def score_figures(scores: Scores) -> list[Figure]:
    """All plots of one split, each where the scores have what it shows."""
    detects = scores.task in ("detection", "instance")
    figures = [
        _pr(scores, _PR_DETECTION if detects else _PR_CLASSIFICATION),
        _confusion(scores),
        _roc(scores),
        _calibration(scores),
        _sizes(scores),
    ]
    return [figure for figure in figures if figure is not None]


def _unit_axis(title: str) -> dict[str, Any]:
    return axis(title, range=[0, 1.02], dtick=0.2, constrain="domain")


def _tall(lines: int) -> dict[str, Any]:
    """Room for the names of many lines above the plot."""
    return {"height": min(720, 320 + 24 * math.ceil(lines / 3))} if lines > 3 else {}


def _hidden(index: int, total: int) -> dict[str, Any]:
    return {"visible": "legendonly"} if index >= _SHOWN and total > _SHOWN else {}


def _pr(scores: Scores, how: str) -> Figure | None:
    curves = {name: curve for name, curve in scores.curves.get("pr", {}).items() if curve["recall"]}
    if not curves:
        return None
    rows = {row["class"]: row for row in scores.per_class}
    data: list[dict[str, Any]] = []
    for index, (name, curve) in enumerate(curves.items()):
        color, dash = series(scores.classes.index(name))  # the colour it has everywhere else
        row = rows.get(name, {})
        area = row.get("ap_50", row.get("ap", math.nan))
        data.append(
            {
                "type": "scatter",
                "mode": "lines",
                "x": [0.0, *curve["recall"]],
                "y": [curve["precision"][0], *curve["precision"]],
                "customdata": [curve["score"][0], *curve["score"]],
                "name": f"{named(name)} ({score(area)})",
                "legendgroup": str(index),
                "line": {"color": color, "dash": dash, "width": 2},
                "hovertemplate": "recall %{x:.3f}, precision %{y:.3f}<br>from score %{customdata:.3f}",
                **_hidden(index, len(curves)),
            }
        )
        if scores.task != "classification" and math.isfinite(row.get("f1", math.nan)) and row.get("f1"):
            data.append(_best_point(row, color, index, len(curves)))
    ringed = "The ring marks the score with the best F1, the balance of both. " if len(data) > len(curves) else ""
    return Figure(
        id="precision-recall",
        title="Precision and recall of each class",
        help=f"{how} A lower score threshold lies further right on a line. {ringed}A line that stays near the top "
        "right is good; the number in the legend is the average precision.",
        data=data,
        layout={
            "xaxis": _unit_axis("Recall"),
            "yaxis": _unit_axis("Precision"),
            "hovermode": "closest",
            **_tall(len(curves)),
        },
    )


def _best_point(row: Mapping[str, Any], color: str, index: int, total: int) -> dict[str, Any]:
    return {
        "type": "scatter",
        "mode": "markers",
        "x": [row["recall"]],
        "y": [row["precision"]],
        "customdata": [[row["f1"], row["threshold"]]],
        "name": named(row["class"]),
        "legendgroup": str(index),
        "showlegend": False,
        "marker": {"size": 11, "symbol": "circle-open", "color": color, "line": {"width": 2.5}},
        "hovertemplate": "best F1 %{customdata[0]:.3f}<br>from score %{customdata[1]:.3f}",
        **_hidden(index, total),
    }


def _confusion(scores: Scores) -> Figure | None:
    matrix, names = scores.confusion, scores.confusion_names
    if not matrix or not any(map(sum, matrix)):
        return None
    rows, columns = [sum(row) for row in matrix], [sum(column) for column in zip(*matrix, strict=True)]
    share = [[value / total if total else None for value in row] for row, total in zip(matrix, rows, strict=True)]
    detects = len(names) > len(scores.classes)
    if detects:
        share[-1] = [None if not value else 0.0 for value in matrix[-1]]  # detections of nothing have no row to share
    hover = [
        [_hover(value, rows[i], columns[j], names, i, j, detects=detects) for j, value in enumerate(row)]
        for i, row in enumerate(matrix)
    ]
    numbered = len(names) <= _NUMBERED
    short = [named(name, limit=16) for name in names]
    angle = -30 if sum(map(len, short)) > 45 else 0
    heat = {
        "type": "heatmap",
        "x": short,
        "y": short,
        "z": share,
        "text": [[count(v) if v else "" for v in row] for row in matrix],
        "hovertext": hover,
        "hovertemplate": "%{hovertext}<extra></extra>",
        "colorscale": [[0, "var(--heat-0)"], [0.5, "var(--heat-1)"], [1, "var(--heat-2)"]],
        "zmin": 0,
        "zmax": 1,
        "xgap": 2,
        "ygap": 2,
        "showscale": False,
    }
    if numbered:
        heat["texttemplate"] = "%{text}"
    threshold = scores.settings.get("threshold", math.nan)
    at = f", from score {score(threshold, digits=2)} at IoU 0.5" if math.isfinite(threshold) else ""
    nothing = (
        f" The last column ({BACKGROUND}) has the objects that were missed, the last row detections where nothing is "
        "labelled."
        if detects
        else ""
    )
    unit = "pixels" if scores.task == "semantic" else "counts"
    return Figure(
        id="confusion",
        title=f"Confusion matrix{at}",
        help=f"Rows are the truth, columns the answer; numbers are {unit}, shades the share of the row. What is right "
        f"lies on the diagonal.{nothing}",
        data=[heat],
        layout={
            "xaxis": axis("Predicted", type="category", showgrid=False, ticks="", tickangle=angle),
            "yaxis": axis("Truth", type="category", autorange="reversed", showgrid=False, ticks=""),
            "height": max(340, min(900, 150 + 46 * len(names))),
        },
        wide=len(names) > 12,
    )


def _hover(value: int, row: int, column: int, names: Sequence[str], i: int, j: int, *, detects: bool) -> str:
    last = len(names) - 1 if detects else len(names)
    truth, guess = named(names[i]), named(names[j])
    if i == last and j == last:
        return ""
    of_row, of_column = percent(value / max(row, 1)), percent(value / max(column, 1))
    if i == last:
        return f"<b>{count(value)}</b> × {guess} where nothing is labelled<br>{of_column} of all {guess} found"
    if j == last:
        return f"<b>{count(value)}</b> × {truth} missed<br>{of_row} of all {truth}"
    called = f"<b>{count(value)}</b> × {truth} called {guess}"
    return f"{called}<br>{of_row} of all {truth}<br>{of_column} of all called {guess}"


def _roc(scores: Scores) -> Figure | None:
    curves = {name: curve for name, curve in scores.curves.get("roc", {}).items() if curve["fpr"]}
    if not curves:
        return None
    areas = {row["class"]: row.get("auc", math.nan) for row in scores.per_class}
    data: list[dict[str, Any]] = [_diagonal("guessing")]
    for index, (name, curve) in enumerate(curves.items()):
        color, dash = series(scores.classes.index(name))  # the colour it has everywhere else
        data.append(
            {
                "type": "scatter",
                "mode": "lines",
                "x": curve["fpr"],
                "y": curve["tpr"],
                "name": f"{named(name)} ({score(areas.get(name, math.nan))})",
                "line": {"color": color, "dash": dash, "width": 2},
                "hovertemplate": "false positives %{x:.3f}, true positives %{y:.3f}",
                **_hidden(index, len(curves)),
            }
        )
    return Figure(
        id="roc",
        title="ROC curve of each class",
        help="One class against the rest. The number in the legend is the area under the curve: the chance that an "
        "image of the class scores higher than another. 1 is perfect, 0.5 is guessing (the dotted line).",
        data=data,
        layout={
            "xaxis": _unit_axis("False-positive rate"),
            "yaxis": _unit_axis("True-positive rate"),
            **_tall(len(curves)),
        },
    )


def _diagonal(name: str) -> dict[str, Any]:
    return {
        "type": "scatter",
        "mode": "lines",
        "x": [0, 1],
        "y": [0, 1],
        "name": name,
        "line": {"color": "var(--muted)", "dash": "dot", "width": 1.5},
        "hoverinfo": "skip",
    }


def _calibration(scores: Scores) -> Figure | None:
    bins = scores.curves.get("calibration", {}).get("all")
    if not bins or not any(bins["count"]):
        return None
    number = len(bins["count"])
    full = [k for k in range(number) if bins["count"][k]]
    bars = {
        "type": "bar",
        "x": [(k + 0.5) / number for k in full],
        "y": [bins["accuracy"][k] for k in full],
        "width": [1 / number * 0.94] * len(full),
        "customdata": [[bins["confidence"][k], bins["count"][k]] for k in full],
        "name": "share of right answers",
        "marker": {"color": "var(--series-1)"},
        "hovertemplate": "%{y:.1%} right at %{customdata[0]:.1%} confidence<br>%{customdata[1]:,} images"
        "<extra></extra>",
    }
    error = scores.summary.get("calibration_error", math.nan)
    return Figure(
        id="calibration",
        title="Calibration",
        help="How often the model is right when it says it is so sure. Bars below the dotted line mean that it is too "
        f"sure of itself. Expected calibration error: {score(error)}.",
        data=[bars, _diagonal("perfect")],
        layout={"xaxis": _unit_axis("Confidence"), "yaxis": _unit_axis("Share of right answers"), "bargap": 0},
    )


def _sizes(scores: Scores) -> Figure | None:
    rows = [row for row in scores.by_size if row["group"] == "quantile" and row["objects"]]
    if len(rows) < 2:
        return None
    places = [f"{row['low']:.0f} – {row['high']:.0f}<br>n = {count(row['objects'])}" for row in rows]
    data = []
    for index, (key, name, shape) in enumerate((("recall", "Recall", ""), ("ap_50", "AP50", "/"), ("ap", "mAP", "."))):
        data.append(
            {
                "type": "bar",
                "name": name,
                "x": places,
                "y": [row[key] if math.isfinite(row[key]) else None for row in rows],
                "marker": hatched(index, shape),
                "hovertemplate": f"{name} %{{y:.3f}}<extra></extra>",
            }
        )
    return Figure(
        id="by-size",
        title="Small and large objects",
        help="The objects of this split in groups of like number by size: the side of a square of the same area, in "
        "pixels of the file. Recall is the share found at IoU 0.5 whatever the score. A low group of small objects "
        "asks for larger images (data.size) or zoom crops.",
        data=data,
        layout={
            "xaxis": axis("Side of the object (px), and number of objects", type="category", tickangle=0),
            "yaxis": axis("Value, 0 to 1", range=[0, 1.02]),
            "barmode": "group",
        },
    )
