"""The commands. Each checks nothing itself: it calls one public function of the package and shows what that gives."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Annotated

import typer

import clearsight as cs
from clearsight.cli import show
from clearsight.cli.doctor_commands import doctor_app

__all__ = ["app"]

app = typer.Typer(
    help="Train, explain and ship vision models. Start with `clearsight demo`, or with your own data: "
    "`clearsight recipes`, then `clearsight train NAME data.root=PATH`.",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
recipe_app = typer.Typer(help="Show one recipe, or their schema.", rich_markup_mode=None)
app.add_typer(recipe_app, name="recipe")
app.add_typer(doctor_app)

Overrides = Annotated[
    list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Changes: trainer.epochs=30 optimizer.lr=1e-3")
]
RunArgument = Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a run, for example runs/cells.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress, no summary.")]


@app.callback(invoke_without_command=True)
def _options(
    *,
    version: Annotated[bool, typer.Option("--version", help="Show the version.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks (CLEARSIGHT_DEBUG=1).")] = False,
) -> None:
    del debug  # `start.main` has taken it from the arguments already, wherever it stood
    if version:
        typer.echo(cs.__version__)
        raise typer.Exit


@app.command()
def train(
    recipe: Annotated[str | None, typer.Argument(help="A built-in name, a YAML file, or a run's folder.")] = None,
    overrides: Overrides = None,
    resume: Annotated[Path | None, typer.Option(metavar="RUN", help="Go on with a run that was stopped.")] = None,
    out: Annotated[Path | None, typer.Option(metavar="FOLDER", help="The run's folder; else runs/NAME.")] = None,
    *,
    quiet: Quiet = False,
) -> None:
    """Train a model.

    Writes weights, scores and a report to runs/NAME.
    """
    changes = list(overrides or ())
    if recipe is not None and "=" in recipe:  # with --resume there is no recipe in front of the changes
        recipe, changes = None, [recipe, *changes]
    run = cs.train(recipe, *changes, resume=resume, out=out, quiet=quiet)
    if run.interrupted is not None:
        raise SystemExit(128 + signal.Signals[run.interrupted].value)
    if not quiet and show.first_process():
        for split, scores in run.scores.items():
            show.summary(scores, split)


@app.command("eval")
def evaluate(
    run: RunArgument,
    split: Annotated[str | None, typer.Option(help="Which images; else the recipe's data.test.")] = None,
    data: Annotated[Path | None, typer.Option(metavar="PATH", help="Where the data is now, if it has moved.")] = None,
) -> None:
    """Score a run on a split of its data."""
    scores = cs.evaluate(run, split, root=data)
    if show.first_process():
        show.scores(scores, str(run))


@app.command()
def predict(
    run: RunArgument,
    source: Annotated[list[str], typer.Argument(help="Images, folders, or patterns such as 'photos/*.jpg'.")],
    out: Annotated[Path | None, typer.Option(metavar="FOLDER", help="For pictures, a CSV and COCO results.")] = None,
    threshold: Annotated[
        float | None, typer.Option(metavar="SCORE", help="Lowest score, 0 to 1; else eval.draw_threshold.")
    ] = None,
    *,
    quiet: Quiet = False,
) -> None:
    """Predict on images with a run."""
    found = cs.predict(run, source[0] if len(source) == 1 else source, out=out, threshold=threshold, quiet=quiet)
    if not quiet:
        show.findings(found.findings)
        show.predictions(found, out)


@app.command("predict-tiled")
def predict_tiled(
    run: RunArgument,
    image: Annotated[Path, typer.Argument(help="One image of any size; TIFFs are read piece by piece.")],
    out: Annotated[Path, typer.Argument(metavar="OUT.tif", help="A TIFF to write, a value a class.")],
    tile: Annotated[int, typer.Option(metavar="PIXELS", help="Side of what the model sees at once.")] = 512,
    overlap: Annotated[int, typer.Option(metavar="PIXELS", help="What neighbours share where they are blended.")] = 64,
    mode: Annotated[str, typer.Option(help="auto, blend, or exact (U-Net of padding: valid).")] = "auto",
    *,
    probabilities: Annotated[bool, typer.Option("--probabilities", help="Of every class, 255 for certainty.")] = False,
    quiet: Quiet = False,
) -> None:
    """Segment an image that is too large for memory.

    At its own resolution, window by window, with a segmenter's run.
    """
    found = cs.load(run).predict_tiled(
        image,
        tile=tile,
        overlap=overlap,
        mode=mode,  # pyright: ignore[reportArgumentType] - the function names what there is
        out=out,
        probabilities=probabilities,
        quiet=quiet,
    )
    if not quiet:
        height, width = found.size
        typer.echo(f"written: {out} ({height} × {width} pixels, {found.windows} windows, mode {found.mode})")


@app.command()
def convert(
    source: Annotated[str, typer.Argument(metavar="FORMAT", help="What it is now (coco, voc, yolo, …), or auto.")],
    path: Annotated[Path, typer.Argument(help="Folder or annotation file.")],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="A new folder.")],
    to: Annotated[str, typer.Option(metavar="FORMAT", help="What it shall become.")],
    *,
    allow_loss: Annotated[bool, typer.Option("--allow-loss", help="Write though something is lost.")] = False,
) -> None:
    """Change the annotation format.

    Refuses to lose anything unless told so.
    """
    show.findings(cs.convert(path, source=source, to=to, out=out, allow_loss=allow_loss))
    typer.echo(f"written: {out}")


@app.command("check-data")
def check_data(
    path: Annotated[Path, typer.Argument(help="Folder or annotation file.")],
    format: Annotated[str, typer.Option(metavar="FORMAT", help="voc, coco, …; else looks at the files.")] = "auto",
    *,
    strict: Annotated[bool, typer.Option("--strict", help="End with code 1 if anything cannot be used.")] = False,
) -> None:
    """Find what is wrong with data.

    Every image is decoded; nothing is changed.
    """
    dataset = cs.check_data(path, format=format)
    show.findings(dataset.findings, stderr=False)
    show.dataset(dataset)
    if strict and any(finding.severity == "error" for finding in dataset.findings):
        raise typer.Exit(1)


@app.command()
def recipes() -> None:
    """List the built-in recipes."""
    show.table(("recipe", "what it is for"), list(cs.recipe_names().items()))
    typer.echo("\n`clearsight recipe show NAME` shows all of one; `clearsight train NAME KEY=VALUE` changes any key")


@recipe_app.command("show")
def recipe_show(
    name: Annotated[str, typer.Argument(metavar="RECIPE", help="A built-in name, a YAML file, or a run's folder.")],
    overrides: Overrides = None,
    *,
    comments: Annotated[bool, typer.Option("--comments", help="Say beside each key what it means.")] = False,
) -> None:
    """Print a recipe, defaults included.

    As it would run; save it to a file, and it is a recipe of your own.
    """
    typer.echo(cs.recipe_to_yaml(cs.load_recipe(name, overrides or ()), comments=comments), nl=False)


@recipe_app.command("schema")
def recipe_schema() -> None:
    """Print the JSON schema of recipes, for editors."""
    typer.echo(json.dumps(cs.recipe_schema(), indent=2, ensure_ascii=False))


@app.command()
def models(
    pattern: Annotated[str | None, typer.Argument(help="Part of a name, or a pattern such as 'resnet1*'.")] = None,
) -> None:
    """List the models."""
    show.models(cs.list_models(pattern))


@app.command()
def profile(  # noqa: PLR0913 - options
    models: Annotated[
        list[str], typer.Argument(metavar="MODEL...", help="A model's name, a run's folder, or a recipe.")
    ],
    size: Annotated[
        str | None, typer.Option(metavar="SIDE", help="Of the images: 640, or HEIGHTxWIDTH; else what suits the model.")
    ] = None,
    batch: Annotated[int, typer.Option(help="Number of images.")] = 1,
    classes: Annotated[int | None, typer.Option(help="Of models by name; else 1000, or 80 for detectors.")] = None,
    device: Annotated[str, typer.Option(help="Where it is timed: cpu, cuda, mps.")] = "cpu",
    runs: Annotated[int, typer.Option(help="Forward passes to time; 0 only counts.")] = 10,
    json_file: Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Write everything here.")] = None,
    plot: Annotated[
        Path | None, typer.Option(metavar="FILE", help="HTML for --compare; else beside the --json file.")
    ] = None,
    *,
    layers: Annotated[
        bool, typer.Option("--layers", help="A row a layer, each of them timed, not a row a stage.")
    ] = False,
    compare: Annotated[bool, typer.Option("--compare", help="Set several models side by side.")] = False,
) -> None:
    """Count what a model costs, and time it.

    Parameters, multiply-adds, FLOPs, memory, bytes moved and latency.
    """
    if plot is None and compare and json_file is not None:
        plot = json_file.with_suffix(".html")
    settings = {"size": None if size is None else _sides(size), "batch": batch, "classes": classes, "device": device}
    settings["fields"] = not compare  # they have no column there
    found = [cs.profile(model, **settings, runs=runs, by_layer=layers and runs > 0) for model in models]
    if json_file is not None:
        json_file.parent.mkdir(parents=True, exist_ok=True)
        every = [one.to_json() for one in found]
        json_file.write_text(every[0] if len(every) == 1 else f"[{','.join(every)}]", encoding="utf-8")
    show.profiles(found, layers=layers, compare=compare)
    if compare and plot is not None and runs > 0:
        show.comparison(found, plot)


def _sides(size: str) -> int | tuple[int, int]:
    parts = size.lower().split("x")
    if len(parts) > 2 or not all(part.isdigit() for part in parts):
        raise cs.ConfigError(f"size: expected a side such as 640, or HEIGHTxWIDTH such as 480x640, got {size!r}")
    return int(parts[0]) if len(parts) == 1 else (int(parts[0]), int(parts[1]))


@app.command("receptive-field")
def receptive_field(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A model's name, a run's folder, or a recipe.")],
    data: Annotated[
        str | None, typer.Option(metavar="DATA", help="Folder, annotation file, recipe or run: whose objects.")
    ] = None,
    size: Annotated[
        str | None, typer.Option(metavar="SIDE", help="Of the images: 640, or HEIGHTxWIDTH; else what suits.")
    ] = None,
    level: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="c5, p3, or a layer; may be repeated; else all levels.")
    ] = None,
    images: Annotated[int, typer.Option(help="To measure effective fields on; 0 measures none.")] = 0,
    plot: Annotated[Path | None, typer.Option(metavar="FILE", help="HTML page with the fields drawn.")] = None,
    json_file: Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Write everything here.")] = None,
    classes: Annotated[int | None, typer.Option(help="Of models by name; else 1000, or 80 for detectors.")] = None,
) -> None:
    """Show what each layer sees of an image.

    In theory and, with --images, by gradient; with --data, how many objects are larger.
    """
    sides = None if size is None else _sides(size)
    found = cs.receptive_field(model, data=data, size=sides, levels=level or (), images=images, classes=classes)
    if json_file is not None:
        _write_json(json_file, found.as_dict())
    show.fields(found)
    if plot is not None:
        show.say(f"drawn, opens in any browser: {found.plot(plot)}")


@app.command()
def export(
    run: RunArgument,
    out: Annotated[Path, typer.Option(metavar="FILE", help="The file, say model.onnx; of Deep Snake a folder.")],
    size: Annotated[
        str | None, typer.Option(metavar="SIDE", help="Of the images: 640, or HEIGHTxWIDTH; else the recipe's.")
    ] = None,
) -> None:
    """Write a run's model as an ONNX file.

    From pixels to answers, suppression included.
    """
    show.say(f"written: {cs.export(run, out, size=None if size is None else _sides(size))}")


@app.command()
def anchors(
    data: Annotated[str, typer.Argument(metavar="DATA", help="Folder, annotation file, recipe or run.")],
    count: Annotated[int, typer.Option(help="Number of anchors; three a level.")] = 9,
    size: Annotated[
        str | None, typer.Option(metavar="SIDE", help="Of the images: 640, or HEIGHTxWIDTH; else the recipe's.")
    ] = None,
    model: Annotated[str | None, typer.Option(metavar="MODEL", help="Whose own anchors are checked too.")] = None,
    seed: Annotated[int, typer.Option(help="Of the fit.")] = 0,
    plot: Annotated[Path | None, typer.Option(metavar="FILE", help="HTML page with boxes and anchors.")] = None,
    json_file: Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Write everything here.")] = None,
) -> None:
    """Fit anchors to the objects of a data set.

    And say which objects have none.
    """
    sides = None if size is None else _sides(size)
    found = cs.fit_anchors(data, count=count, size=sides, seed=seed, model=model)
    if json_file is not None:
        _write_json(json_file, found.as_dict())
    show.anchors(found)
    if plot is not None:
        show.say(f"drawn, opens in any browser: {found.plot(plot)}")


@app.command("explain-assignment")
def explain_assignment(
    image: Annotated[Path, typer.Argument(metavar="IMAGE", help="A file of a data set.")],
    data: Annotated[
        str | None, typer.Option(metavar="DATA", help="Its data: folder, annotation file, recipe or run; else looks.")
    ] = None,
    model: Annotated[
        str, typer.Option(metavar="MODEL", help="A detector's name, a run's folder, or a recipe.")
    ] = "retinanet",
    assigner: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="atss, ota, …; may be repeated; else all.")
    ] = None,
    size: Annotated[
        str | None, typer.Option(metavar="SIDE", help="Of the images: 640, or HEIGHTxWIDTH; else what suits.")
    ] = None,
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="Picture, a panel for each method.")] = None,
    json_file: Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Write the numbers here.")] = None,
) -> None:
    """Show which points learn which objects.

    Under every method of label assignment, side by side.
    """
    sides = None if size is None else _sides(size)
    found = cs.explain_assignment(image, data=data, model=model, assigners=assigner or (), size=sides)
    if json_file is not None:
        _write_json(json_file, found.rows())
    show.assignments(found)
    show.say(f"drawn: {found.plot(out or Path(f'{image.stem}-assignment.png'))}")


def _write_json(path: Path, value: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=2), encoding="utf-8")


@app.command()
def demo(
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="The run's folder.")] = Path("runs/demo"),
    *,
    quiet: Quiet = False,
) -> None:
    """Find and read digits: a first run.

    Trains in minutes on data that is generated, draws what it finds, and says how good it is.
    """
    run = cs.demo(out, quiet=quiet)
    if run.interrupted is not None:
        raise SystemExit(128 + signal.Signals[run.interrupted].value)
    if not quiet:
        show.demo(run)
