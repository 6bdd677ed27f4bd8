"""The built-in recipes of segmentation on real microscope images: same wall-clock budget, with intervals.

Each run is one `cs.train` in a process of its own, kept below `--runs`: a run that is finished is not trained again,
one that was stopped goes on. Recipes that are not named with `--only` are shown as they were measured last. Figures
have 95 % intervals over the test images. A prediction is timed from an image in memory to results in its pixels.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from harness import Better, Options, Row, arguments, compare, need, report, seconds, stop
from kept_runs import budget, epochs, images_a_second, in_child, kept_folder, peak_mib, run_arguments, trained

if TYPE_CHECKING:
    from clearsight.data.dataset import Dataset
    from clearsight.deploy.run import Run
    from clearsight.metrics.scores import Scores

__all__ = ["Bar", "Figure", "bars", "figures", "lines_of_bars", "markdown", "rows"]

MEMBRANE = "membrane"
RECIPES = {
    "membrane-unet": MEMBRANE,
    "membrane-transunet": MEMBRANE,
    "membrane-swinunet": MEMBRANE,
    "nuclei-maskrcnn": "nuclei",
    "nuclei-snake": "nuclei",
    "fruits-maskrcnn": "fruits",
}
"""By name of the recipe its data set."""
ASKED = [name for name, data in RECIPES.items() if data != "fruits"]
WHERE = {"fruits": "data/trainval.json"}  # inside the folder of the data set
LEAST = 20  # timed predictions of a run
MEASURED = "measured.json"
Outcomes = Mapping[str, Sequence[Mapping[str, Any]]]
"""By recipe one outcome a seed; see `measure`."""


class Figure(NamedTuple):
    """One quantity of every run."""

    title: str
    unit: str
    better: Better
    form: str = "{:.3f}"


MAPS = {
    "dice": Figure(f"Dice of {MEMBRANE}", "Dice", "higher"),
    "miou": Figure("mean IoU", "IoU", "higher"),
    "foreground_rand": Figure("foreground-restricted Rand", "F", "higher"),
    "boundary_f": Figure("boundary F at 2 px", "F", "higher"),
    "hd95": Figure("HD95", "px", "lower", "{:.1f}"),
}
OBJECTS = {
    "map_50": Figure("mask AP50", "AP50", "higher"),
    "map": Figure("mask mAP", "mAP", "higher"),
    "dsb_ap": Figure("TP / (TP + FP + FN), IoU 0.5 to 0.95", "AP", "higher"),
    "aji": Figure("aggregated Jaccard index", "AJI", "higher"),
    "boundary_f": Figure("boundary F at 2 px", "F", "higher"),
}
COSTS = {
    "parameters": Figure("parameters", "M", "lower", "{:.2f}"),
    "images_a_second": Figure("training", "images/s", "higher", "{:.1f}"),
    "predict_ms": Figure("one image", "ms", "lower", "{:.0f}"),
    "predicted_a_second": Figure("prediction", "images/s", "higher", "{:.1f}"),
    "peak_mib": Figure("peak memory of training", "MiB", "lower", "{:.0f}"),
}


def known(recipe: str) -> dict[str, Figure]:
    """What is measured of a recipe's runs."""
    return (MAPS if RECIPES[recipe] == MEMBRANE else OBJECTS) | COSTS


def _extra(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--only", nargs="+", choices=list(RECIPES), default=ASKED, metavar="NAME", help="these recipes")
    for name in dict.fromkeys(RECIPES.values()):
        parser.add_argument(f"--{name}", type=Path, metavar="PATH", help=f"this data set (default: {name}/ of --data)")
    parser.add_argument("--pictures", type=Path, metavar="FOLDER", help="draw the worst, median and best test image")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the tables here, too")
    run_arguments(parser, minutes=20.0)


# ------------------------------------------------------------------------------------------------ one run
def measure(request: Mapping[str, Any]) -> dict[str, Any]:
    """One run: trained as long as it may, scored, timed and drawn."""
    out = Path(request["out"])
    run = trained(request)
    scores, test = run.scores["test"], _test(run, request["root"])
    values, intervals = figures(scores)
    times = _times(run, test)
    values |= {
        "parameters": sum(parameter.numel() for parameter in run.model.parameters()) / 1e6,
        "images_a_second": images_a_second(out),
        "predict_ms": statistics.median(times) * 1e3,
        "predicted_a_second": len(times) / sum(times),
        "peak_mib": peak_mib(out),
    }
    if request["picture"] is not None:
        from segmentation_pictures import draw_run

        draw_run(run, test, scores, Path(request["picture"]))
    return {
        "minutes": run.recipe.trainer.minutes,
        "epochs": epochs(out),
        "images": scores.images,
        "size": list(run.recipe.data.size),
        "values": values,
        "intervals": intervals,
    }


def _test(run: Run, root: str) -> Dataset:
    """The run's test images, where they are now."""
    from clearsight.train.compose import read_data

    data = run.recipe.data.model_copy(update={"root": root})
    test = read_data(run.recipe.model_copy(update={"data": data})).test
    if test is None:
        stop(f"{root}: there are no test images")
    return test


def _times(run: Run, test: Dataset) -> list[float]:
    """Seconds of each of some predictions, image by image, of the test images' corners of the model's own size."""
    from clearsight.data.decode import read_image

    height, width = run.recipe.data.size
    photos = [read_image(record.image, channels=run.recipe.data.channels)[:height, :width] for record in test.records]
    for photo in photos[:3]:
        run.predict(photo, quiet=True)
    turns = photos * math.ceil(LEAST / len(photos))
    return [seconds(lambda photo=photo: run.predict(photo, quiet=True)) for photo in turns]


def figures(scores: Scores) -> tuple[dict[str, float], dict[str, tuple[float, float]]]:
    """Values, and intervals of those that have one, by the keys of `MAPS` or `OBJECTS`."""
    if scores.task != "semantic":
        values = {key: scores.summary[key] for key in OBJECTS}
        return values, {key: scores.intervals[key] for key in OBJECTS if key in scores.intervals}
    row = next(row for row in scores.per_class if row["class"] == MEMBRANE)
    values = {"dice": row["dice"], **{key: scores.summary[key] for key in MAPS if key != "dice"}}
    intervals = {key: scores.intervals[key] for key in MAPS if key in scores.intervals and key != "dice"}
    return values, {"dice": (row["dice_low"], row["dice_high"]), **intervals}


# ------------------------------------------------------------------------------------------------ bars
class Bar(NamedTuple):
    """What must be reached, of which recipes, and the row that says whether it is."""

    name: str
    needs: tuple[str, ...]
    row: Callable[[Outcomes], Row]


def bars() -> list[Bar]:
    """Every bar."""
    return [
        _level("membrane-unet", "dice", 0.80),
        _behind("membrane-transunet", "membrane-unet", "dice", 0.03),
        _behind("membrane-swinunet", "membrane-unet", "dice", 0.03),
        _level("nuclei-maskrcnn", "map_50", 0.6),
        _level("nuclei-snake", "map_50", 0.6),
        _above("nuclei-snake", "nuclei-maskrcnn", "boundary_f"),
        _level("nuclei-snake", "predicted_a_second", 5.0),
    ]


def _values(found: Outcomes, recipe: str, key: str) -> list[float]:
    return [float(one["values"][key]) for one in found[recipe]]


def _level(recipe: str, key: str, least: float) -> Bar:
    figure = known(recipe)[key]
    name = f"bar: {recipe}: {figure.title} at least {least:g} {figure.unit if key in COSTS else ''}".rstrip()

    def row(found: Outcomes) -> Row:
        return compare(name, _values(found, recipe, key), unit=figure.unit, better="higher", bar=least)

    return Bar(name, (recipe,), row)


def _behind(recipe: str, other: str, key: str, most: float) -> Bar:
    figure = known(recipe)[key]
    name = f"bar: {recipe}: {figure.title} at most {most:g} below {other}"

    def row(found: Outcomes) -> Row:
        gap = statistics.median(_values(found, other, key)) - statistics.median(_values(found, recipe, key))
        return compare(name, gap, unit=figure.unit, better="lower", bar=most)

    return Bar(name, (recipe, other), row)


def _above(recipe: str, other: str, key: str) -> Bar:
    figure = known(recipe)[key]
    name = f"bar: {recipe}: {figure.title} above {other}"

    def row(found: Outcomes) -> Row:
        lead = statistics.median(_values(found, recipe, key)) - statistics.median(_values(found, other, key))
        # The smallest number that is more than nothing: an equal figure is not above.
        return compare(name, lead, unit=figure.unit, better="higher", bar=math.ulp(0.0))

    return Bar(name, (recipe, other), row)


def lines_of_bars(found: Outcomes, *, minutes: float) -> tuple[list[str], list[Row]]:
    """A line for each bar, and the rows of those that were measured: a run of another length says nothing about it."""
    lines: list[str] = []
    measured: list[Row] = []
    judged = {recipe: [one for one in told if one["minutes"] == minutes] for recipe, told in found.items()}
    for bar in bars():
        name = bar.name.removeprefix("bar: ")
        if missing := [recipe for recipe in bar.needs if not judged.get(recipe)]:
            lines.append(f"{'not measured':12}  {name}: no run of {minutes:g} minutes of {' and '.join(missing)}")
            continue
        row = bar.row(judged)
        measured.append(row)
        lines.append(f"{'MET' if row.met else 'MISSED':12}  {name}: {row.value:.3f}")
    return lines, measured


# ------------------------------------------------------------------------------------------------ tables
def rows(found: Outcomes) -> list[Row]:
    """Every figure of every recipe; what does not exist is left out."""
    return [
        compare(
            f"{recipe}: {figure.title}",
            values,
            unit=figure.unit,
            better=figure.better,
            note=_note(told[0], key),
        )
        for recipe, told in found.items()
        for key, figure in known(recipe).items()
        if all(map(math.isfinite, values := _values(found, recipe, key)))
    ]


def _note(outcome: Mapping[str, Any], key: str) -> str:
    least, most = outcome["intervals"].get(key, (math.nan, math.nan))
    over = f"interval over images {least:.3f} to {most:.3f}; " if math.isfinite(least + most) else ""
    return f"{over}{outcome['minutes']:g} minutes, epoch {outcome['epochs']}"


def markdown(found: Outcomes) -> str:
    """A table for each data set: a row a figure, a column a recipe; medians over the seeds."""
    tables: list[str] = []
    for data in dict.fromkeys(RECIPES.values()):
        shown = {recipe: found[recipe] for recipe in RECIPES if RECIPES[recipe] == data and found.get(recipe)}
        if not shown:
            continue
        first = next(iter(shown.values()))[0]
        size = "×".join(map(str, first["size"]))
        cells = [[f"{data}: {first['images']} test images, {size}", *shown]]
        for key, figure in known(next(iter(shown))).items():
            unit = f", {figure.unit}" if key in COSTS or figure.unit == "px" else ""
            cells.append([f"{figure.title}{unit}", *(_cell(told, key, figure.form) for told in shown.values())])
        cells.append(["trained", *(_trained(told) for told in shown.values())])
        tables.append(_aligned(cells))
    return "\n\n".join(tables)


def _cell(told: Sequence[Mapping[str, Any]], key: str, form: str) -> str:
    """The value with its interval over the images; of several seeds the median with the least and the most."""
    values = [float(one["values"][key]) for one in told]
    value = statistics.median(values)
    if not math.isfinite(value):
        return "–"
    ends = (min(values), max(values)) if len(values) > 1 else told[0]["intervals"].get(key, (math.nan, math.nan))
    shown = form.format(value)
    return f"{shown} ({form.format(ends[0])} to {form.format(ends[1])})" if all(map(math.isfinite, ends)) else shown


def _trained(told: Sequence[Mapping[str, Any]]) -> str:
    seeds = f", {len(told)} seeds" if len(told) > 1 else ""
    return f"{told[0]['minutes']:g} minutes, epoch {told[0]['epochs']}{seeds}"


def _aligned(cells: Sequence[Sequence[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = ["| " + " | ".join(cell.ljust(n) for cell, n in zip(row, widths, strict=True)) + " |" for row in cells]
    return "\n".join([lines[0], "| " + " | ".join("-" * n for n in widths) + " |", *lines[1:]])


# ------------------------------------------------------------------------------------------------ all runs
def _root(options: Options, recipe: str) -> Path:
    """The data of a recipe; ends the benchmark with a clear line where there is none."""
    name = RECIPES[recipe]
    given: Path | None = getattr(options.extra, name)
    root = need(options, name) / WHERE.get(name, "") if given is None else given
    if not root.exists():
        stop(f"{root}: not found; {recipe} reads the data set {name!r}, say where it is with --{name} PATH")
    return root.resolve()


def _picture(options: Options, recipe: str) -> str | None:
    folder: Path | None = options.extra.pictures
    return None if folder is None else str(folder.resolve() / f"{recipe}.jpg")


def _outcomes(options: Options, folder: Path, *, minutes: float) -> dict[str, list[dict[str, Any]]]:
    """Runs that are asked for, measured now; others as they were measured last."""
    extra = options.extra
    found: dict[str, list[dict[str, Any]]] = {}
    roots = {recipe: _root(options, recipe) for recipe in extra.only}  # a wrong path is said before hours of training
    for recipe in RECIPES:
        for seed in extra.seeds:
            out = folder / f"{recipe}-{seed}"
            kept = out / MEASURED
            if recipe in extra.only:
                request = {
                    "recipe": recipe,
                    "changes": [f"data.root={roots[recipe]}", *budget(options, minutes=minutes, seed=seed)],
                    "out": str(out),
                    "root": str(roots[recipe]),
                    "picture": _picture(options, recipe) if seed == extra.seeds[0] else None,
                }
                outcome = in_child(__file__, request, minutes=minutes)
                kept.write_text(json.dumps(outcome), encoding="utf-8")
                print(recipe, seed, outcome, flush=True)
            if kept.is_file():
                found.setdefault(recipe, []).append(json.loads(kept.read_text(encoding="utf-8")))
    return found


def main() -> int:
    """Train all and compare."""
    options = arguments((__doc__ or "").splitlines()[0], extra=_extra)
    if options.extra.train is not None:
        print(json.dumps(measure(options.extra.train)))
        return 0
    if options.device == "cpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""  # predictions take a GPU where they see one
    minutes = 0.2 if options.quick else options.extra.minutes
    with kept_folder(options.extra.runs) as folder:
        found = _outcomes(options, folder, minutes=minutes)
    lines, of_bars = lines_of_bars(found, minutes=minutes)
    shown = f"{markdown(found)}\n\nBars after {minutes:g} minutes:\n\n" + "\n".join(f"- {line}" for line in lines)
    print(f"\n{shown}\n")
    if options.extra.markdown is not None:
        options.extra.markdown.parent.mkdir(parents=True, exist_ok=True)
        options.extra.markdown.write_text(shown + "\n", encoding="utf-8")
    return report("segmentation", [*rows(found), *of_bars], options, table=False)


if __name__ == "__main__":
    sys.exit(main())
