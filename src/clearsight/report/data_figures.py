"""Plots of the data: classes, object sizes, objects an image."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from clearsight.report.figures import Figure, axis, hatched, named
from clearsight.report.numbers import count

__all__ = ["data_figures"]


def data_figures(statistics: Mapping[str, Any]) -> list[Figure]:
    """Objects by class and split, object sizes, objects an image: each where the statistics have it."""
    figures = [
        _class_counts(statistics.get("counts")),
        _histogram(
            statistics.get("object_sizes"),
            "object-sizes",
            "Sizes of training objects",
            "Side of a square of that area (px)",
            "Objects",
            "In pixels of the file. The model sees images at the recipe's data.size: objects of a few pixels there "
            "are hard to find.",
        ),
        _histogram(
            statistics.get("objects_per_image"),
            "objects-per-image",
            "Objects in a training image",
            "Objects in an image",
            "Images",
            "Images far from the rest are worth a look: an empty one may have lost its labels.",
        ),
    ]
    return [figure for figure in figures if figure is not None]


def _class_counts(counts: object) -> Figure | None:
    if not isinstance(counts, Mapping) or not any(counts.values()):
        return None
    names = list(dict.fromkeys(name for of_split in counts.values() for name in of_split))
    data = []
    for index, (split, of_split) in enumerate(counts.items()):
        numbers = [int(of_split.get(name, 0)) for name in names]
        data.append(
            {
                "type": "bar",
                "name": named(split),
                "x": [named(name, limit=18) for name in names],
                "y": numbers,
                "text": [count(v) for v in numbers] if len(names) * len(counts) <= 12 else None,
                "textposition": "outside",
                "textfont": {"size": 10},
                "cliponaxis": False,
                "marker": hatched(index, ("", "/", ".")[index % 3]),
                "hovertemplate": "%{x}, %{fullData.name}: %{y:,}<extra></extra>",
            }
        )
    return Figure(
        id="class-counts",
        title="Samples of each class",
        help="How often each class occurs in each split. Rare classes are learnt worse and scored less surely; a class "
        "that a split lacks cannot be scored there.",
        data=data,
        layout={
            "xaxis": axis("Class", type="category"),
            "yaxis": axis("Samples", rangemode="tozero", tickformat=",d"),
            "barmode": "group",
        },
    )


def _histogram(values: object, name: str, title: str, x: str, y: str, hint: str) -> Figure | None:
    if not isinstance(values, Sequence) or not values:
        return None
    numbers = np.asarray(values, np.float64)
    numbers = numbers[np.isfinite(numbers)]
    if not len(numbers):
        return None
    whole = bool((numbers == numbers.round()).all()) and np.ptp(numbers) < 60
    bins = np.arange(numbers.min() - 0.5, numbers.max() + 1) if whole else 40
    heights, edges = np.histogram(numbers, bins=bins)
    trace = {
        "type": "bar",
        "x": ((edges[1:] + edges[:-1]) / 2).round(3).tolist(),
        "y": heights.tolist(),
        "width": np.diff(edges).round(3).tolist(),
        "customdata": [[round(a, 1), round(b, 1)] for a, b in itertools.pairwise(edges.tolist())],
        "marker": {"color": "var(--series-1)"},
        "hovertemplate": "%{x}: %{y:,}<extra></extra>"
        if whole
        else "%{customdata[0]} to %{customdata[1]}: %{y:,}<extra></extra>",
    }
    return Figure(
        id=name,
        title=title,
        help=f"Median {np.median(numbers):.3g}, from {numbers.min():.3g} to {numbers.max():.3g}. {hint}",
        data=[trace],
        layout={"xaxis": axis(x), "yaxis": axis(y, rangemode="tozero"), "bargap": 0.06},
    )
