"""What the runs of the benchmark say of the doctor and of each peer; plain numbers, no torch."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from scipy.stats import binomtest

__all__ = [
    "LOSS", "Scores", "Sides", "Told", "Verdict", "accepted_of", "data_key", "first_named", "grave", "loss_of", "named",
    "score", "sides_of", "twin_key", "wilson",
]  # fmt: skip

Row = Mapping[str, Any]
LOSS = 0.02  # of the validation accuracy, from which on a fault matters
SLOWER = 1.2
RECOVERED = 0.8
SOUND = 0.75  # of the twin's score, below which a variation is no sound run


def wilson(hits: int, runs: int) -> tuple[float, float]:
    """Interval of a share, 95 %; Wilson 1927."""
    if not runs:
        return 0.0, 1.0
    interval = binomtest(hits, runs).proportion_ci(0.95, method="wilson")
    return float(interval.low), float(interval.high)


# ------------------------------------------------------------------------------------------------ what a run is
@dataclass(frozen=True, kw_only=True)
class Sides:
    """Runs by what they are.

    Args:
        faulty: their fault matters.
        clean: sound ones, and those whose fault costs nothing.
        spoiled: variations of sound runs that do not learn, which are neither.
        looks: at data alone, by key.
    """

    faulty: list[Row] = field(default_factory=list)
    clean: list[Row] = field(default_factory=list)
    spoiled: list[Row] = field(default_factory=list)
    looks: dict[str, Row] = field(default_factory=dict)


def twin_key(row: Row) -> str:
    """Key of the same run without faults."""
    own = row["own"]
    return f"{row['part']}-twin-{own['data']}-{own['net']}-{own['seed']}"


def data_key(row: Row) -> str:
    """Key of the look at a sound run's data."""
    own = row["own"]
    changes = "-".join(own["augment"])
    return f"{row['part']}-data-{own['data']}-{own['seed']}-{own['ratio']:g}-{own['images']}-{changes}"


def loss_of(row: Row, rows: Mapping[str, Row]) -> float:
    """Validation accuracy lost against the twin; NaN where that is not known."""
    twin = rows.get(twin_key(row))
    return math.nan if twin is None or "error" in twin else twin["score"] - row["score"]


def _matters(row: Row, rows: Mapping[str, Row]) -> bool:
    if row["proven"] or loss_of(row, rows) >= LOSS:
        return True
    twin = rows.get(twin_key(row))
    if not row["slow"] or twin is None or "error" in twin:
        return False
    paces = [one["train_seconds"] / max(one["steps"], 1) for one in (row, twin)]
    return paces[0] >= SLOWER * paces[1]


def sides_of(rows: Mapping[str, Row], part: str) -> Sides:
    """Sort the runs of a part.

    Args:
        rows: all that is known, by key.
        part: key of `doctor_plan.PARTS`.
    """
    sides = Sides()
    for key, row in rows.items():
        if row["part"] != part or "error" in row:
            continue
        if row["kind"] in ("fault", "double"):
            (sides.faulty if _matters(row, rows) else sides.clean).append(row)
        elif row["kind"] == "clean":
            twin = rows.get(twin_key(row))
            lost = twin is not None and "error" not in twin and row["score"] < SOUND * twin["score"]
            (sides.spoiled if lost else sides.clean).append(row)
        elif row["kind"] == "data":
            sides.looks[key] = row
    return sides


# ------------------------------------------------------------------------------------------------ what a run was told
def named(finding: Mapping[str, Any], accepted: Iterable[str]) -> bool:
    """Whether a finding names an accepted cause; `ID:KIND` asks for the kind of cause too."""
    allowed = set(accepted)
    return finding["id"] in allowed or f"{finding['id']}:{finding['kind']}" in allowed


def accepted_of(row: Row) -> set[str]:
    """Ids that name a run's fault, or either of its two."""
    return {one for names in row["accepted"] for one in names}


def grave(findings: Iterable[Mapping[str, Any]], onset: int = 0) -> list[Mapping[str, Any]]:
    """Findings of severity warning or above that were told since the fault was there, each id and kind once."""
    kept: dict[tuple[str, str], Mapping[str, Any]] = {}
    for one in findings:
        if one["severity"] != "info" and one["step"] >= onset:
            kept.setdefault((one["id"], one["kind"]), one)
    return list(kept.values())


def first_named(findings: Iterable[Mapping[str, Any]], onset: int = 0) -> Mapping[str, Any] | None:
    """The one that is read first."""
    return next(iter(grave(findings, onset)), None)


def _clean_findings(row: Row, looks: Mapping[str, Row]) -> list[Mapping[str, Any]]:
    """Of the run, and of its data, which is looked at once for all runs that share them."""
    look = looks.get(data_key(row)) if row["kind"] == "clean" else None
    return [*row["findings"], *(look["findings"] if look is not None else [])]


# ------------------------------------------------------------------------------------------------ the doctor
@dataclass(frozen=True, kw_only=True)
class Verdict:
    """How often something is right.

    Args:
        hits: times.
        runs: of how many.
    """

    hits: int
    runs: int

    @property
    def share(self) -> float:
        """Hits of runs; NaN of none."""
        return self.hits / self.runs if self.runs else math.nan

    @property
    def interval(self) -> tuple[float, float]:
        """Its 95 % interval."""
        return wilson(self.hits, self.runs)


@dataclass(frozen=True, kw_only=True)
class Told:
    """What a doctor, ours or another, is measured by.

    Args:
        alarms: faulty runs with any alarm.
        first: the right cause is named first.
        three: it is among the first three.
        false: sound runs with an alarm.
    """

    alarms: Verdict
    first: Verdict
    three: Verdict
    false: Verdict


@dataclass(frozen=True, kw_only=True)
class Scores:
    """Of the doctor, on one part.

    Args:
        told: alarms, causes and false alarms.
        others: the same without NaN faults, which are the easy ones.
        precise: first findings, over all runs, that are right.
        spots: NaN faults with the exact module, direction and operation at their step.
        delays: shares of the budget between onset and the right alarm, of other faults; 1 where there is none.
        remedies: runs with the first remedy that recover four fifths.
        without_knob: faulty runs that lost score and whose first finding's advice is a change of code.
        first_ids: fault → first ids, counted.
        false_ids: ids of false alarms, counted.
        peers: name → the peer's and ours, on the runs that the peer was tried on.
    """

    told: Told
    others: Told
    precise: Verdict
    spots: Verdict
    delays: Sequence[float]
    remedies: Verdict
    without_knob: int
    first_ids: Mapping[str, Counter[str]]
    false_ids: Counter[str]
    peers: Mapping[str, tuple[Told, Told]]

    @property
    def delay(self) -> float:
        """Median share of the budget until the right alarm."""
        return median(self.delays) if self.delays else math.nan


def score(rows: Mapping[str, Row], part: str) -> Scores:
    """All scores of a part.

    Args:
        rows: all that is known, by key.
        part: key of `doctor_plan.PARTS`.
    """
    sides = sides_of(rows, part)
    ours = _ours(sides.faulty, sides.clean, sides.looks)
    wrong = [grave(_clean_findings(row, sides.looks)) for row in sides.clean]
    first_ids: dict[str, Counter[str]] = {}
    for row in sides.faulty:
        fault = " + ".join(name for name, _ in row["faults"])
        first = first_named(row["findings"], row["onset"])
        first_ids.setdefault(fault, Counter())[first["id"] if first else "–"] += 1
    remedies = [row for row in rows.values() if row["kind"] == "remedy" and row["part"] == part and "error" not in row]
    lost = [row for row in sides.faulty if row["kind"] == "fault" and loss_of(row, rows) >= LOSS]
    return Scores(
        told=ours,
        others=_ours([row for row in sides.faulty if not row["spots"]], sides.clean, sides.looks),
        precise=Verdict(hits=ours.first.hits, runs=ours.alarms.hits + ours.false.hits),
        spots=_spots(sides.faulty),
        delays=[_delay(row) for row in sides.faulty if row["kind"] == "fault" and not row["spots"]],
        remedies=Verdict(hits=sum(_recovers(row, rows) for row in remedies if row["of"] in rows), runs=len(remedies)),
        without_knob=len(lost) - len(remedies),
        first_ids=first_ids,
        false_ids=Counter(one["id"] for found in wrong for one in found),
        peers=_peers(rows, sides),
    )


def _ours(faulty: Iterable[Row], sound: Iterable[Row], looks: Mapping[str, Row]) -> Told:
    return _tally(
        [(accepted_of(row), grave(row["findings"], row["onset"])) for row in faulty],
        [bool(grave(_clean_findings(row, looks))) for row in sound],
    )


def _tally(faulty: Sequence[tuple[set[str], Sequence[Mapping[str, Any]]]], false: Sequence[bool]) -> Told:
    """From accepted causes with what was named, and whether sound runs were alarmed of."""
    hits = [[named(one, accepted) for one in found] for accepted, found in faulty]
    return Told(
        alarms=Verdict(hits=sum(bool(found) for found in hits), runs=len(hits)),
        first=Verdict(hits=sum(any(found[:1]) for found in hits), runs=len(hits)),
        three=Verdict(hits=sum(any(found[:3]) for found in hits), runs=len(hits)),
        false=Verdict(hits=sum(false), runs=len(false)),
    )


def _spots(faulty: Iterable[Row]) -> Verdict:
    """Exact module, direction and operation, at the step at which the fault sets in."""
    hits = runs = 0
    for row in faulty:
        if row["kind"] != "fault" or not row["spots"]:
            continue
        runs += 1
        found = row["nonfinite"]
        if found is None:
            continue
        module, direction, operation = row["spots"][0]
        same = (found["module"] or "", found["direction"], found["operation"]) == (module, direction, operation)
        hits += same and row["steps"] + 1 == row["onset"]
    return Verdict(hits=hits, runs=runs)


def _delay(row: Row) -> float:
    """Share of the budget after the onset until an accepted cause was named at warning or above."""
    accepted, onset = accepted_of(row), row["onset"]
    told = [one for one in row["findings"] if one["severity"] != "info" and one["step"] >= onset]
    steps = [one["step"] for one in told if named(one, accepted)]
    return (min(steps) - onset) / row["setup"]["steps"] if steps else 1.0


def _recovers(remedy: Row, rows: Mapping[str, Row]) -> bool:
    """Whether four fifths of what the fault cost are won back."""
    faulty, twin = rows[remedy["of"]], rows[twin_key(remedy)]
    return remedy["score"] - faulty["score"] >= RECOVERED * (twin["score"] - faulty["score"])


# ------------------------------------------------------------------------------------------------ peers
def _peers(rows: Mapping[str, Row], sides: Sides) -> dict[str, tuple[Told, Told]]:
    """Each peer, and ours on the same runs."""
    found: dict[str, tuple[Told, Told]] = {}
    for name in dict.fromkeys(name for row in (*sides.faulty, *sides.looks.values()) for name in row["peers"]):
        faulty, sound, looks = (
            [row for row in some if name in row["peers"]] for some in (sides.faulty, sides.clean, sides.looks.values())
        )
        theirs = _tally(
            [(_plain(row), _as_findings(row["peers"][name])) for row in faulty],
            [row["peers"][name]["alarm"] for row in (*sound, *looks)],
        )
        found[name] = theirs, _ours(faulty, [*sound, *looks], sides.looks)
    ours = _ours(sides.faulty, sides.clean, sides.looks)
    found["torch.autograd.detect_anomaly"] = _anomaly(rows, sides), ours
    ids = Counter(one for row in sides.faulty for one in sorted(_plain(row)))
    common = [{"id": max(ids, key=lambda one: ids[one], default=""), "kind": ""}]
    always = _tally([(_plain(row), common) for row in sides.faulty], [True] * len(sides.clean))
    found["always alarming"] = always, ours
    found["at random, half of the runs"] = _at_random(sides, len(ids)), ours
    return found


def _plain(row: Row) -> set[str]:
    """Accepted ids without the kind of cause, which peers do not tell."""
    return {one.partition(":")[0] for one in accepted_of(row)}


def _as_findings(told: Mapping[str, Any]) -> list[dict[str, str]]:
    return [{"id": one, "kind": ""} for one in told["ids"]] if told["alarm"] else []


def _anomaly(rows: Mapping[str, Row], sides: Sides) -> Told:
    """It speaks of NaN in the backward pass alone; other runs have none, and it is silent there."""
    spoke = [rows.get(f"anomaly-{row['key']}", {}).get("anomaly") for row in sides.faulty]
    told = [[{"id": "non-finite", "kind": ""}] if one else [] for one in spoke]
    pairs = [(_plain(row), found) for row, found in zip(sides.faulty, told, strict=True)]
    return _tally(pairs, [False] * len(sides.clean))


def _at_random(sides: Sides, ids: int) -> Told:
    """What is to be expected of an alarm in every second run that names causes by lot."""
    runs, sound = len(sides.faulty), len(sides.clean)
    chances = [len(_plain(row)) / max(ids, 1) for row in sides.faulty]
    return Told(
        alarms=Verdict(hits=runs // 2, runs=runs),
        first=Verdict(hits=round(sum(chances) / 2), runs=runs),
        three=Verdict(hits=round(sum(1 - (1 - chance) ** 3 for chance in chances) / 2), runs=runs),
        false=Verdict(hits=sound // 2, runs=sound),
    )
