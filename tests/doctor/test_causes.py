"""The table of causes: faults that exist, and no circles."""

from __future__ import annotations

from pathlib import Path

from clearsight.doctor.causes import CAUSES
from clearsight.doctor.diagnosis import ranked
from clearsight.types import Finding

SOURCE = Path(__file__).parents[2] / "src/clearsight/doctor"


def found(name: str) -> Finding:
    return Finding(id=name, severity="warning", where="run", explanation="")


def test_every_cause_and_effect_is_a_fault_that_is_looked_for() -> None:
    """A renamed rule would silently lose its place here."""
    text = "".join(path.read_text() for path in SOURCE.rglob("*.py") if path.name != "causes.py")
    names = {*CAUSES, *(effect for effects in CAUSES.values() for effect in effects)}
    assert {name for name in names if f'"{name}"' not in text} == set()


def test_nothing_is_its_own_cause() -> None:
    assert [name for name, effects in CAUSES.items() if name in effects] == []


def test_all_at_once_come_to_an_end_with_one_beginning_each() -> None:
    told = ranked([found(name) for name in CAUSES])
    assert len(told) == len(CAUSES)
    beginnings = {finding.id for finding in told if not finding.because}
    assert {finding.because for finding in told if finding.because} <= beginnings
