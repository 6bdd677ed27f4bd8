"""The report: one HTML file that needs nothing else, for someone who was not there."""

from __future__ import annotations

import json
import math
import os
from collections import defaultdict
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from clearsight.report.content import ReportContent
from clearsight.report.data_figures import data_figures
from clearsight.report.figures import Figure
from clearsight.report.history_figures import history_figures
from clearsight.report.numbers import count, general
from clearsight.report.palette import class_color, to_hex
from clearsight.report.pictures import embed
from clearsight.report.proof_figures import proof_figures
from clearsight.report.score_figures import score_figures
from clearsight.report.tables import data_table, flat, key_figures, score_tables, statistics_rows
from clearsight.report.verdict import verdict
from clearsight.types import Finding

__all__ = ["ReportContent", "write_report"]

_TEMPLATES = Path(__file__).parent / "templates"
_WORST_BUDGET, _SAMPLE_BUDGET = 1_800_000, 700_000  # characters; with plotly.js (4.8 MB) the page stays below 8 MB
_SHOWN_FINDINGS = 5  # places of one kind that are listed


class _Group(NamedTuple):
    """Findings of one kind."""

    id: str
    severity: str
    number: str
    explanation: str
    action: str
    remedy: str
    because: str
    source: str
    places: list[str]
    more: str


def write_report(out: Path, content: ReportContent) -> Path:
    """Write the report of a run, atomically: a reader sees the old page or the whole new one.

    Args:
        out: the HTML file; its folder must exist.
        content: what to show.

    Returns:
        `out`.
    """
    out = Path(out)
    text = _render(content)
    temporary = out.with_name(f".{out.name}.{os.getpid()}.tmp")
    try:
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(out)
    finally:
        temporary.unlink(missing_ok=True)
    return out


def _render(content: ReportContent) -> str:
    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    main = content.main
    scores = None if main is None else main[1]
    figures = {
        "scores": [] if scores is None else score_figures(scores),
        "history": history_figures(content.history, None if scores is None else scores.task),
        "data": data_figures(content.data_statistics),
        "proofs": proof_figures(content.findings, content.record),
    }
    every = [figure for group in figures.values() for figure in group]
    return environment.get_template("report.html.j2").render(
        content=content,
        sentences=verdict(content),
        split=None if main is None else main[0],
        images="" if scores is None else count(scores.images),
        classes=[]
        if scores is None
        else [(name, to_hex(class_color(i))) for i, name in enumerate(scores.classes[:20])],
        task="" if scores is None else scores.task,
        key_figures=[] if scores is None else key_figures(scores),
        tables={table.id: table for table in score_tables(content)},
        figures=figures,
        data_table=data_table(content.data_statistics),
        statistics=statistics_rows(content.data_statistics),
        findings=_grouped(content.findings),
        worst=embed(content.worst, budget=_WORST_BUDGET),
        samples=embed(content.samples, budget=_SAMPLE_BUDGET),
        environment=flat(content.environment),
        written=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        style=Markup((_TEMPLATES / "style.css").read_text(encoding="utf-8")),
        script=Markup((_TEMPLATES / "page.js").read_text(encoding="utf-8")),
        plotly=Markup(_plotly()) if every else "",
        plots=_script_json([_plot(figure) for figure in every]),
    )


@cache
def _plotly() -> str:
    from plotly.offline import get_plotlyjs  # takes a while to import

    return get_plotlyjs()


def _plot(figure: Figure) -> dict[str, Any]:
    return {"id": f"plot-{figure.id}", "data": figure.data, "layout": figure.layout}


def _script_json(value: object) -> Markup:
    """JSON that may stand inside a script element: nothing in it can end the element."""
    text = json.dumps(_finite(value), allow_nan=False, ensure_ascii=True, separators=(",", ":"))
    return Markup(text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026"))


def _finite(value: object) -> object:
    """NaN and infinities, which JSON does not have, become null, which Plotly draws as a gap."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _grouped(findings: Sequence[Finding]) -> list[_Group]:
    """Findings of one kind together, errors first, then as they come: causes before what they explain."""
    kinds: dict[tuple[str, str], list[Finding]] = defaultdict(list)
    for finding in findings:
        kinds[finding.severity, finding.id].append(finding)
    rank = {"error": 0, "warning": 1, "info": 2}
    groups = []
    for (severity, kind), members in sorted(kinds.items(), key=lambda item: rank[item[0][0]]):
        first = members[0]
        remedy = ", ".join(f"{k}={general(v) if isinstance(v, float) else v}" for k, v in first.remedy.items())
        actions = list(dict.fromkeys(f.action for f in members if f.action))
        groups.append(
            _Group(
                id=kind,
                severity=severity,
                number=count(len(members)),
                explanation=first.explanation,
                action=", ".join(actions),
                remedy=remedy,
                because=first.because,
                source=first.source,
                places=[f.where for f in members[:_SHOWN_FINDINGS]],
                more=count(len(members) - _SHOWN_FINDINGS) if len(members) > _SHOWN_FINDINGS else "",
            )
        )
    return groups
