"""How a diagnosis is shown: the verdict, each finding with evidence and remedy, what could not be told."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
from rich.console import Console
from rich.padding import Padding
from rich.text import Text

if TYPE_CHECKING:
    from clearsight.doctor.diagnosis import Diagnosis
    from clearsight.types import Finding

__all__ = ["diagnosis"]

COLOURS = {"error": "bold red", "warning": "yellow", "info": "cyan"}
SAME = 3


def diagnosis(found: Diagnosis, *, json: bool = False, run: Path | None = None) -> None:
    """Print a diagnosis on standard output.

    Args:
        found: what was found.
        json: as JSON, whole.
        run: whose recipe a remedy can be applied to.
    """
    if json:
        typer.echo(found.to_json())
        return
    console = Console()
    console.print(Text(f"{found.subject}: {found.verdict}", style="bold"))
    listed: dict[tuple[str, str], int] = {}
    for number, finding in found.numbered.items():
        kind = (finding.id, finding.severity)
        listed[kind] = listed.get(kind, 0) + 1
        if listed[kind] <= SAME:
            _print(console, number, finding, found.recipe)
    for (name, severity), count in listed.items():
        if count > SAME:
            console.print(
                f"\n… and {count - SAME} more {name} ({severity}); --json lists all", highlight=False, soft_wrap=True
            )
    for note in found.notes:
        console.print(Text(f"\nnote: {note}", style="dim"))
    if found.passed:
        console.print(Text(f"\nlooked for and not found: {', '.join(found.passed)}", style="dim"))
    if found.silent:
        console.print(Text(f"\nnot judged: {', '.join(found.silent)}; --json says what each needs", style="dim"))
    patches = [number for number, finding in found.numbered.items() if finding.remedy]
    if run is not None and patches and (run / "recipe.yaml").is_file():
        console.print(
            f"\nclearsight apply {run} {patches[0]} writes a recipe with its remedy", highlight=False, soft_wrap=True
        )


def _print(console: Console, number: str, finding: Finding, recipe: Mapping[str, Any]) -> None:
    from clearsight.doctor.advice import advise  # PyTorch comes with the doctor

    head = Text("\n")
    head.append(f"{number} {finding.severity} ", style=COLOURS[finding.severity])
    head.append(finding.id, style="bold")
    head.append(f"  {finding.where}", style="dim")
    if finding.because:
        head.append(f"  (explained by {finding.because})", style="dim")
    console.print(head, soft_wrap=True)
    lines = [finding.explanation]
    if finding.action:
        lines.append(f"done about it: {finding.action}")
    if finding.remedy:
        lines.append(f"remedy: {_changes(finding.remedy)}")
    if finding.severity != "info" and not finding.because:
        lines += [
            f"or try: {one.what}{f' ({_changes(one.changes)})' if one.changes else ''}: {one.effect}"
            for one in advise(finding.id, recipe)
            if dict(one.changes) != finding.remedy
        ]
    if finding.source:
        lines.append(f"source: {finding.source}")
    console.print(Padding(Text("\n".join(lines)), (0, 0, 0, 4)))


def _changes(values: Mapping[str, Any]) -> str:
    return " ".join(f"{key}={value}" for key, value in values.items())
