"""The doctor's commands: before a run, after it, its remedy, and its last step again."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

import clearsight as cs
from clearsight.cli import show_doctor

__all__ = ["doctor_app"]

doctor_app = typer.Typer(rich_markup_mode=None)

Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]


@doctor_app.command()
def check(
    source: Annotated[str, typer.Argument(help="A recipe (name, YAML file, run's folder), or data alone.")],
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Changes: data.root=PATH optimizer.lr=1e-3")
    ] = None,
    *,
    quick: Annotated[bool, typer.Option("--quick", help="Leave out what trains a copy of the model.")] = False,
    json: Json = False,
) -> None:
    """Look for faults before training: data, model, first batch.

    Ends with code 1 if there are errors. Nothing is written.
    """
    diagnosis = cs.check(source, *(overrides or ()), probes=not quick, progress=not json)
    show_doctor.diagnosis(diagnosis, json=json)
    if diagnosis.worst == "error":
        raise typer.Exit(1)


@doctor_app.command()
def diagnose(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run's folder, a CSV log, or TensorBoard's events.")],
    *,
    json: Json = False,
) -> None:
    """Say what was wrong with a run, and what to do.

    Also for the logs of other trainers.
    """
    show_doctor.diagnosis(cs.diagnose(run), json=json, run=run)


@doctor_app.command()
def apply(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a run.")],
    finding: Annotated[str, typer.Argument(help="Number or id from `clearsight diagnose RUN`, such as F07.")],
    choice: Annotated[int, typer.Option(help="Which of its remedies, from 1, the best.")] = 1,
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="Where to write; else NAME-FINDING.yaml.")] = None,
) -> None:
    """Write a new recipe with the remedy of a finding.

    Shows what differs.
    """
    path = out or Path(f"{cs.load(run).recipe.name}-{finding}.yaml")
    applied = cs.apply(run, finding, choice=choice, out=path)
    typer.echo(applied.difference)
    typer.echo(f"\nwritten: {path}; train it with: clearsight train {path}")


@doctor_app.command()
def replay(run: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a run that ended with NaN.")]) -> None:
    """Run the step again whose loss became NaN or infinite.

    Says where it comes from: module, direction, operation, cause.
    """
    found = cs.replay(run)
    typer.echo(found.as_finding().explanation)
