"""Tables of the report as rows of text with what they sort by."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from clearsight.metrics.scores import Scores
from clearsight.report.cells import Cell, Column, Table, count_cell, number_cell, score_cell
from clearsight.report.class_tables import class_table
from clearsight.report.content import ReportContent
from clearsight.report.numbers import DASH, count, general, interval, percent, score
from clearsight.report.verdict import FIGURE_NAMES

__all__ = ["data_table", "flat", "key_figures", "score_tables", "statistics_rows"]


_SHOWN_ELSEWHERE = {"images", "counts", "object_sizes", "objects_per_image", "image_sizes"}


# ------------------------------------------------------------------------------------------------ scores
def _key_names(scores: Scores) -> list[str]:
    """The figures of the summary that matter most, the most telling first."""
    wanted = {
        "classification": ("accuracy", "balanced_accuracy", "macro_f1", "auc", "calibration_error", "loss"),
        "semantic": ("miou", "dice", "pixel_accuracy", "boundary_f", "foreground_rand"),
        "instance": ("map", "map_50", "map_75", "dsb_ap", "aji", "boundary_f"),
    }.get(scores.task, ("map", "map_50", "map_75", "voc_map_50", "mar_100"))
    return [name for name in wanted if name in scores.summary] or list(scores.summary)


def key_figures(scores: Scores) -> list[tuple[str, str, str]]:
    """`(name, value, interval)` of the figures that matter most, the most telling first."""
    return [
        (FIGURE_NAMES.get(name, name), score(scores.summary[name]), interval(scores.intervals.get(name)))
        for name in _key_names(scores)
    ]


def score_tables(content: ReportContent) -> list[Table]:
    """All tables of the scores: splits side by side, classes, sizes, kinds of mistakes."""
    if content.main is None:
        return []
    scores = content.main[1]
    tables = [_splits(content), class_table(scores), _sizes(scores), _mistakes(scores)]
    return [table for table in tables if table is not None]


def _splits(content: ReportContent) -> Table | None:
    if len(content.scores) < 2:
        return None
    names = _key_names(next(iter(content.scores.values())))
    columns = [Column("Split", number=False), Column("Images"), *(Column(FIGURE_NAMES.get(n, n)) for n in names)]
    rows = [
        [Cell(split, split), number_cell(s.images, count(s.images)), *(score_cell(s.summary, name) for name in names)]
        for split, s in content.scores.items()
    ]
    return Table("splits", "Splits side by side", "Everything below is of the first split.", columns, rows)


_QUARTERS = ("smallest quarter", "second quarter", "third quarter", "largest quarter")
_THIRDS = ("smallest third", "middle third", "largest third")
_HALVES = ("smaller half", "larger half")


def _sizes(scores: Scores) -> Table | None:
    if not scores.by_size:
        return None
    columns = [
        Column("Objects", number=False),
        Column("Side (px)", help="Of a square of the same area, pixels of the file"),
        Column("Number"),
        Column("mAP"),
        Column("AP50"),
        Column("Recall", help="Share found at IoU 0.5, whatever the score"),
    ]
    rows = []
    quantiles = sum(row["group"] == "quantile" for row in scores.by_size)
    names = iter({4: _QUARTERS, 3: _THIRDS, 2: _HALVES}.get(quantiles, ()))
    for row in scores.by_size:
        called = f"{row['size']} (COCO)" if row["group"] == "coco" else next(names, "of like number")
        low, high = float(row["low"]), float(row["high"])
        side = f"{low:.0f} – {high:.0f}" if math.isfinite(high) else f"from {low:.0f}"
        figures = [score_cell(row, key) for key in ("ap", "ap_50", "recall")]
        rows.append([Cell(called, called), number_cell(low, side), count_cell(row, "objects"), *figures])
    return Table(
        "sizes",
        "Each size",
        "COCO's fixed ranges, then this split's own objects in groups of like number.",
        columns,
        rows,
    )


_KINDS = {
    "missed": ("Missed", "Nothing was found for the object."),
    "background": ("Where nothing is labelled", "A detection without an object: a false alarm, or a missing label."),
    "poor box": ("Poor box", "The right class, but an overlap between 0.1 and 0.5."),
    "wrong class": ("Wrong class", "A good box, but the class of something else."),
    "duplicate": ("Found twice", "A second detection of an object that is already found."),
}


def _mistakes(scores: Scores) -> Table | None:
    total = sum(scores.mistakes.values())
    if not total or scores.task in ("classification", "semantic"):
        return None
    columns = [Column("Kind", number=False), Column("Mistakes"), Column("Share"), Column("What it is", number=False)]
    rows = []
    for kind, number in sorted(scores.mistakes.items(), key=lambda item: -item[1]):
        name, meaning = _KINDS.get(kind, (kind, ""))
        part = number / total
        rows.append(
            [
                Cell(name, name),
                number_cell(number, count(number)),
                Cell(percent(part), part, share=part),
                Cell(meaning, meaning),
            ]
        )
    threshold = scores.settings.get("threshold", math.nan)
    at = f" from score {score(threshold, digits=2)} on" if math.isfinite(threshold) else ""
    return Table(
        "mistakes",
        "Kinds of mistakes",
        f"Every wrong or missing detection{at} has one kind. The largest kind is where work pays most.",
        columns,
        rows,
    )


# ------------------------------------------------------------------------------------------------ data, environment
def data_table(statistics: Mapping[str, Any]) -> Table | None:
    """Images and objects of each split and class."""
    images, counts = statistics.get("images") or {}, statistics.get("counts") or {}
    splits = list(dict.fromkeys([*images, *counts]))
    if not splits:
        return None
    classes = list(dict.fromkeys(name for of_split in counts.values() for name in of_split))
    shown = classes[:30]
    columns = [Column("Split", number=False), Column("Images")]
    if classes:
        columns += [Column("Samples"), *(Column(name) for name in shown)]
    rows = []
    for split in splits:
        of_split = counts.get(split, {})
        row = [Cell(split, split), count_cell(images, split)]
        if classes:
            total = float(sum(of_split.values())) if of_split else math.nan
            row += [number_cell(total, count(total))]
            row += [number_cell(of_split.get(name, 0), count(of_split.get(name, 0))) for name in shown]
        rows.append(row)
    more = f" The first {len(shown)} of {len(classes)} classes are listed." if len(classes) > len(shown) else ""
    help_text = f"Samples are objects, or images where each has one class.{more}" if classes else ""
    return Table("splits-data", "Images and samples" if classes else "Images", help_text, columns, rows)


def statistics_rows(statistics: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Image sizes, channel statistics, and whatever else is given, as `(name, text)`."""
    named = {"mean": "Mean of each channel", "std": "Deviation of each channel"}
    sizes = statistics.get("image_sizes")
    rows: list[tuple[str, str]] = []
    if isinstance(sizes, Mapping):
        most = list(sizes.items())[:8]
        rows = [(f"Images of {size} px", count(number)) for size, number in most]
        if len(sizes) > len(most):
            rows.append(
                (
                    f"Images of {count(len(sizes) - len(most))} other sizes",
                    count(sum(sizes.values()) - sum(dict(most).values())),
                )
            )
    rest = {k: v for k, v in statistics.items() if k not in _SHOWN_ELSEWHERE}
    return rows + [(named.get(name, name.replace("_", " ")), text) for name, text in flat(rest)]


def flat(values: Mapping[str, Any], *, prefix: str = "") -> list[tuple[str, str]]:
    """Nested values as `(dotted name, text)`; long lists are shortened."""
    rows: list[tuple[str, str]] = []
    for key, value in values.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            rows += flat(value, prefix=f"{name}.")
        elif isinstance(value, float):
            rows.append((name, general(value)))
        elif isinstance(value, Sequence) and not isinstance(value, str):
            texts = [general(v) if isinstance(v, float) else str(v) for v in value[:12]]
            rows.append((name, ", ".join(texts) + (f", … ({len(value)})" if len(value) > 12 else "")))
        else:
            rows.append((name, DASH if value in (None, "") else str(value)))
    return rows
