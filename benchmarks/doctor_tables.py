"""The scores as rows with the bars of the issue, and as tables to read.

Rules were first set on part `tune`; held-out figures, on what is now `second` and then on what is now `third`, led to
changes of them; `report`, which alone has bars, is looked at only after those.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table

from doctor_scores import Scores, Verdict, score, sides_of
from harness import Better, Row, compare

__all__ = ["rows_of", "show"]

# Score → bar on the part `report`.
BARS = {"alarms": 0.92, "first": 0.75, "three": 0.88, "false": 0.02, "spots": 0.95, "delay": 0.10, "remedies": 0.70}


def rows_of(known: Mapping[str, Mapping[str, Any]], parts: list[str]) -> list[Row]:
    """Rows of each part; bars are on `report` alone.

    Args:
        known: rows of runs, by key.
        parts: keys of `doctor_plan.PARTS`.
    """
    found: list[Row] = []
    for part in parts:
        found += _of_part(part, score(known, part), known)
    return found


def _share(name: str, verdict: Verdict, *, better: Better, bar: float | None, note: str = "") -> list[Row]:
    """A share with its interval; no row where there are no runs."""
    if not verdict.runs:
        return []
    low, high = verdict.interval
    told = f"{verdict.hits} of {verdict.runs}, 95 % interval {low:.3f} to {high:.3f}{note}"
    return [compare(name, verdict.share, unit="share", better=better, bar=bar, note=told)]


def _of_part(part: str, scores: Scores, known: Mapping[str, Mapping[str, Any]]) -> list[Row]:
    sides = sides_of(known, part)
    bars: Mapping[str, float] = BARS if part == "report" else {}
    kinds = {name for row in sides.faulty for name, _ in row["faults"]}
    rows = [
        _count(f"{part}: faulty runs that matter", len(sides.faulty), 360 if bars else None),
        _count(f"{part}: kinds of faults among them", len(kinds), 40 if bars else None),
        _count(f"{part}: sound runs", len(sides.clean), 200 if bars else None, f"{len(sides.spoiled)} left out"),
    ]
    words = {
        "alarms": "any alarm",
        "first": "right cause first",
        "three": "right cause among the first three",
        "spots": "NaN: module, direction, operation and step exact",
        "remedies": "first remedy recovers 80 %",
    }
    verdicts = {
        "alarms": scores.told.alarms,
        "first": scores.told.first,
        "three": scores.told.three,
        "spots": scores.spots,
        "remedies": scores.remedies,
    }
    for name, said in words.items():
        note = f"; {scores.without_knob} more whose advice is no knob" if name == "remedies" else ""
        rows += _share(f"{part}: {said}", verdicts[name], better="higher", bar=bars.get(name), note=note)
    for name in ("alarms", "first", "three"):
        rows += _share(f"{part}: {words[name]}, without NaN", getattr(scores.others, name), better="higher", bar=None)
    rows += _share(f"{part}: false alarms", scores.told.false, better="lower", bar=bars.get("false"))
    rows += _share(f"{part}: first named, right", scores.precise, better="higher", bar=None)
    if scores.delays:
        said = f"{part}: onset to right alarm, median"
        rows.append(compare(said, scores.delay, unit="of the budget", better="lower", bar=bars.get("delay")))
    return rows + _beside(part, scores)


def _count(name: str, value: int, bar: int | None, note: str = "") -> Row:
    return compare(name, value, unit="runs" if "runs" in name else "kinds", better="higher", bar=bar, note=note)


def _beside(part: str, scores: Scores) -> list[Row]:
    """Each peer's alarms, right causes and false alarms, beside ours on the runs that it was tried on."""
    rows = []
    for name, (theirs, ours) in scores.peers.items():
        pairs = {
            "any alarm": (ours.alarms, theirs.alarms),
            "right cause first": (ours.first, theirs.first),
            "false alarms": (ours.false, theirs.false),
        }
        for said, (mine, other) in pairs.items():
            if not mine.runs:
                continue
            better = "lower" if said == "false alarms" else "higher"
            told: dict[str, Any] = {"unit": "share", "better": better, "peer": name, "theirs": other.share}
            rows.append(compare(f"{part}: {said}", mine.share, note=f"{mine.runs} runs", **told))
    return rows


# ------------------------------------------------------------------------------------------------ to read
def show(known: Mapping[str, Mapping[str, Any]], parts: list[str], console: Console) -> None:
    """Fault → first finding, false alarms, and runs that failed.

    Args:
        known: rows of runs, by key.
        parts: keys of `doctor_plan.PARTS`.
        console: where to.
    """
    for part in parts:
        scores = score(known, part)
        table = Table(title=f"{part}: fault and the finding that is read first", title_justify="left")
        for heading in ("fault", "runs", "right first", "first findings"):
            table.add_column(heading, overflow="fold")
        right = _right(known, part)
        for fault, counted in sorted(scores.first_ids.items()):
            told = ", ".join(f"{name} {count}" for name, count in counted.most_common())
            table.add_row(fault, str(counted.total()), str(right[fault]), told)
        console.print(table)
        _print(console, f"{part}: false alarms by finding", scores.false_ids)
    _print(console, "runs that failed", Counter(row["error"] for row in known.values() if "error" in row))


def _right(known: Mapping[str, Mapping[str, Any]], part: str) -> Counter[str]:
    from doctor_scores import accepted_of, first_named, named

    found: Counter[str] = Counter()
    for row in sides_of(known, part).faulty:
        first = first_named(row["findings"], row["onset"])
        fault = " + ".join(name for name, _ in row["faults"])
        found[fault] += first is not None and named(first, accepted_of(row))
    return found


def _print(console: Console, title: str, counted: Counter[str]) -> None:
    if counted:
        told = ", ".join(f"{name} {count}" for name, count in counted.most_common())
        console.print(f"{title}: {told}", markup=False, highlight=False)
