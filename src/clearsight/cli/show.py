"""What commands show: tables and plain sentences. Results go to stdout, what was found wrong on the way to stderr."""

from __future__ import annotations

import math
import os
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from clearsight.data.dataset import Dataset
    from clearsight.deploy.anchors import AnchorReport
    from clearsight.deploy.assignments import AssignmentReport
    from clearsight.deploy.fields import FieldReport
    from clearsight.deploy.prediction import Predictions
    from clearsight.deploy.run import Run
    from clearsight.measure.profile import Profile
    from clearsight.metrics.scores import Scores
    from clearsight.types import Finding

__all__ = [
    "anchors",
    "assignments",
    "comparison",
    "dataset",
    "demo",
    "fields",
    "findings",
    "first_process",
    "models",
    "predictions",
    "profiles",
    "say",
    "scores",
    "summary",
    "table",
]

MAIN = {
    "map": "mAP (COCO, IoU 0.50 to 0.95)",
    "map_50": "AP50 (IoU 0.50)",
    "map_75": "AP75 (IoU 0.75)",
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "macro_f1": "F1, mean over classes",
    "auc": "AUC",
    "miou": "mean IoU",
    "dice": "mean Dice",
    "pixel_accuracy": "pixel accuracy",
    "mean_accuracy": "mean recall",
    "boundary_f": "boundary F",
    "hd95": "HD95 (px)",
    "foreground_rand": "Rand score, foreground",
    "dsb_ap": "AP of the Data Science Bowl",
    "aji": "aggregated Jaccard",
}
COLUMNS = {
    "classification": ("support", "precision", "recall", "f1"),
    "detection": ("objects", "ap", "ap_50"),
    "semantic": ("pixels", "iou", "dice", "boundary_f"),
    "instance": ("objects", "ap", "ap_50"),
}
SHOWN = 20


def first_process() -> bool:
    """Whether this is the process, of several, that speaks."""
    return all(os.environ.get(name, "0") == "0" for name in ("RANK", "LOCAL_RANK", "SLURM_PROCID"))


def say(text: str, *, stderr: bool = False) -> None:
    """Plain lines: nothing in them is markup, and paths are not broken."""
    Console(stderr=stderr).print(text, markup=False, highlight=False, soft_wrap=True)


def profiles(found: Sequence[Profile], *, layers: bool, compare: bool) -> None:
    """A table a model, of its stages or layers, with the totals; or the models side by side."""
    from clearsight.measure.table import comparison_table, profile_table, summary

    console = Console()
    if not console.is_terminal:
        console.width = 160
    if compare:
        console.print(comparison_table(found), markup=False, highlight=False)
        return
    for one in found:
        console.print(profile_table(one, "layer" if layers else "stage"), markup=False, highlight=False)
        say(f"\n{summary(one)}")


def comparison(found: Sequence[Profile], plot: Path) -> None:
    """The page that draws models against each other."""
    from clearsight.report.comparison import write_comparison

    say(f"\nlatency against FLOPs, opens in any browser: {write_comparison(found, plot)}")


def fields(found: FieldReport) -> None:
    """A row a layer, level and output; then what was measured and what the objects say."""
    from clearsight.measure.table import field_table

    console = Console()
    if not console.is_terminal:
        console.width = 120
    console.print(field_table(found.fields), markup=False, highlight=False)
    if found.effective:
        say("\n" + "\n".join(map(str, found.effective)))
    if found.objects is not None:
        say(f"\n{found.objects}")


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Columns as wide as they need to be; numbers to the right."""
    drawn = Table(box=None, pad_edge=False, header_style="bold")
    for index, name in enumerate(head):
        numeric = bool(rows) and all(isinstance(row[index], int | float) for row in rows)
        drawn.add_column(name, justify="right" if numeric else "left", overflow="fold", no_wrap=numeric or index == 0)
    for row in rows:
        drawn.add_row(*[f"{one:.3f}" if isinstance(one, float) else str(one) for one in row])
    console = Console()
    if not console.is_terminal:
        console.width = 120
    console.print(drawn, markup=False, highlight=False)


def findings(found: Sequence[Finding], *, stderr: bool = True) -> None:
    """What was found, grouped; nothing when there is nothing."""
    from clearsight.data.check import format_findings

    if found:
        say(format_findings(found), stderr=stderr)


def figure(scores: Scores, name: str) -> str:
    """A figure with its interval: `0.581 (0.553 to 0.604)`."""
    value = scores.summary[name]
    if math.isnan(value):
        return "undefined (nothing to score)"
    low, high = scores.intervals.get(name, (math.nan, math.nan))
    return f"{value:.3f}" if math.isnan(low) else f"{value:.3f} ({low:.3f} to {high:.3f})"


def summary(scores: Scores, split: str) -> None:
    """The main figures in one line."""
    names = [name for name in MAIN if name in scores.summary][:2]
    parts = [f"{MAIN[name]} {figure(scores, name)}" for name in names]
    say(f"{split}: {', '.join(parts)} on {scores.images} images")


def scores(found: Scores, title: str) -> None:
    """All figures and a row a class."""
    say(f"{title}: {found.images} images; in brackets the 95 % interval over images\n")
    table(("figure", "value"), [(MAIN.get(name, name), figure(found, name)) for name in found.summary])
    columns = COLUMNS[found.task]
    rows = [(row["class"], *[_cell(row[name]) for name in columns]) for row in found.per_class]
    say("")
    table(("class", *columns), rows)


def _cell(value: object) -> object:
    return "–" if value is None or (isinstance(value, float) and math.isnan(value)) else value


def predictions(found: Predictions, out: Path | None) -> None:
    """How much was found; the first rows where nothing is written."""
    counts = Counter(name for one in found for name in one.names)
    listed = ", ".join(f"{name}: {count}" for name, count in counts.most_common(10))
    detects = any(one.instances is not None for one in found)
    segments = any(one.semantic is not None for one in found)
    said = f"{counts.total()} objects" if detects else "classes by pixel" if segments else "one class each"
    say(f"{len(found)} images, {said}{f' ({listed})' if listed else ''}")
    if out is not None:
        files = (
            "pictures, class maps (PNG) and predictions.csv"
            if segments
            else "pictures, predictions.csv and predictions.json"
        )
        say(f"{files}: {out}")
        return
    rows = [row for one in found for row in one.rows() if row["class"] is not None]
    if not rows:
        say("nothing reached the threshold; --threshold SCORE lowers it")
        return
    value = "share" if segments else "score"
    table(("file", "class", value), [(Path(row["file"]).name, row["class"], row[value]) for row in rows[:SHOWN]])
    if len(rows) > SHOWN:
        say(f"… and {len(rows) - SHOWN} more; --out FOLDER writes all, with pictures")


def dataset(data: Dataset) -> None:
    """What is usable: images by split, objects by class."""
    splits = ", ".join(f"{name or 'without a split'} {count}" for name, count in data.splits.items())
    unit = "images" if data.task == "classification" else "objects"
    faults = Counter(finding.severity for finding in data.findings)
    say(f"\n{data.root}: {data.format}, {data.task}; {len(data)} usable images ({splits})")
    if data.task == "semantic":
        say(f"classes: {', '.join(data.classes)}")
    else:
        table(("class", unit), list(data.counts().items()))
    say(f"{faults['error']} errors, {faults['warning']} warnings")


def models(names: Sequence[str]) -> None:
    """Names, with what each is."""
    from clearsight.models import BACKBONES
    from clearsight.models.backbones.timm_backbone import TimmBackbone
    from clearsight.recipe.model_sections import MODEL_SECTIONS, model_task

    rows = []
    for name in names:
        if name in MODEL_SECTIONS:
            about = (MODEL_SECTIONS[name].__doc__ or "").splitlines()[0].rstrip(".")
        else:
            made = BACKBONES.get(name, TimmBackbone)
            kind = getattr(made, "func", made)
            about = f"a classifier on {getattr(kind, '__name__', name)}{_paper(kind)}"
        task = model_task(name) if name in MODEL_SECTIONS else "classification"
        rows.append((name, task, about))
    table(("model", "task", "what"), rows) if rows else say("no model fits; `clearsight models` lists all")


def _paper(kind: object) -> str:
    """The first that a docstring names as its method's: ` (He et al. 2016, arXiv:1512.03385)`."""
    text = " ".join((kind.__doc__ or "").partition("Method: ")[2].split())
    found = re.match(r"(.+? \d{4})\b.*?(arXiv:\d{4}\.\d{4,5})", text)
    return f" ({found[1]}, {found[2]})" if found else ""


def anchors(found: AnchorReport) -> None:
    """A row an anchor; then how well they fit, and what a model's own miss."""
    rows = [(f"{a.level + 1}", f"{a.width:g} × {a.height:g}", a.objects, a.mean_iou) for a in found.anchors]
    table(("level", "width × height (px)", "objects", "mean overlap"), rows)
    say(f"\n{found}")
    if found.check is not None:
        say("")
        table(
            ("own anchors of", "objects", "with an anchor"),
            [tuple(group) for group in (*found.check.recall.by_class, *found.check.recall.by_size)],
        )


def assignments(found: AssignmentReport) -> None:
    """A row a method, and what could not be asked."""
    situation, rows = found.situation, found.rows()
    objects = len(situation.targets.labels)
    say(f"{found.image}: {objects} objects, {len(situation.points.xy)} points of {found.model}\n")
    columns = ("assigner", "points", "least", "median", "most", "without")
    table(
        ("assigner", "points", "least an object", "median", "most", "objects without"),
        [tuple(row[name] for name in columns) for row in rows if "reason" not in row],
    )
    for row in rows:
        if "reason" in row:
            say(f"{row['assigner']}: {row['reason']}")
    if not found.trained:
        say("methods that look at predictions saw those of an untrained model; --model RUN takes a trained one")


def demo(run: Run) -> None:
    """What the demo found, in plain words."""
    split, found = next(iter(run.scores.items()))
    objects = sum(row["objects"] for row in found.per_class)
    names = ("missed", "wrong class", "background", "poor box", "duplicate")
    missed, wrong, invented, loose, twice = (found.mistakes.get(name, 0) for name in names)
    scored = [row for row in found.per_class if not math.isnan(row["ap_50"])]
    ranked = [row["class"] for row in sorted(scored, key=lambda row: row["ap_50"])]
    extremes = f" Easiest: {ranked[-1]}; hardest: {ranked[0]}." if ranked else ""
    say(
        f"\nThe detector looked at {found.images} {split} images with {objects} handwritten digits that it had never "
        f"seen.\nAP50 is {figure(found, 'map_50')}: 1 would be every digit found and read, and nothing else reported.\n"
        f"At its working threshold it overlooked {missed} digits, read {wrong} as another digit, reported {invented} "
        f"where there is none,\nframed {loose} loosely and {twice} twice.{extremes}\n"
        f"pictures: {run.folder / 'predictions'}\n"
        f"report, opens in any browser: {run.report}"
    )
