"""docs/faults.md: every fault that the doctor looks for, written from its rules."""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from clearsight.doctor.data.rules import RULES as DATA
from clearsight.doctor.model.rules import PROBES
from clearsight.doctor.model.rules import RULES as MODEL
from clearsight.doctor.rule import Rule
from clearsight.doctor.run.rules import RULES as RUN

PAGE = Path(__file__).resolve().parent.parent / "faults.md"
HEAD = """# Every fault the doctor looks for

Written from the code by `make techniques`. What readers of data report besides, file by file, is in
[what can be wrong with data](findings.md); how the doctor is used, in [the doctor](doctor.md).
"""
PARTS: tuple[tuple[str, str, tuple[Rule[Any], ...]], ...] = (
    ("In data", "Looked for by `clearsight check`.", DATA),
    ("In a model", "Looked for by `clearsight check`, with one batch, in seconds.", MODEL),
    (
        "In a model, by trying",
        "Looked for by `clearsight check` unless `--quick`: copies of the model are trained.",
        PROBES,
    ),
    ("In a run", "Looked for while a run goes, and by `clearsight diagnose`.", RUN),
)


def row(rule: Rule[Any]) -> str:
    """One line of a table."""
    what = " ".join((inspect.getdoc(type(rule)) or "").split("\n\n")[0].split())
    if len(what) > 3 and what[0] in "DSPT" and what[1].isdigit():  # a row of a catalogue
        what = what.partition(": ")[2]
        what = what[:1].upper() + what[1:]
    numbers = ", ".join(
        f"{name} {value:g}"
        for name, value in sorted(vars(rule).items())
        if isinstance(value, int | float) and not isinstance(value, bool) and not name.startswith("_")
    )
    return f"| `{rule.id}` | {what} | {numbers} | {rule.source} |"


def page() -> str:
    """All of it."""
    return HEAD + "".join(_part(title, said, rules) for title, said, rules in PARTS)


def _part(title: str, said: str, rules: Iterable[Rule[Any]]) -> str:
    lines = ["| id | what | thresholds | source |", "| --- | --- | --- | --- |", *(row(rule) for rule in rules)]
    return f"\n## {title}\n\n{said}\n\n" + "\n".join(lines) + "\n"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
