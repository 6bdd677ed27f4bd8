"""What was found, put in order: causes before what they explain, the grave before the slight."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from clearsight.doctor.advice import advise
from clearsight.doctor.causes import CAUSES
from clearsight.errors import NotFound, nearest
from clearsight.types import Finding

__all__ = ["GRAVITY", "Diagnosis", "ranked"]

GRAVITY = {"error": 0, "warning": 1, "info": 2}

# Where a network does not learn at all and nothing grave says why, signs of a bad start are no longer slight.
_STUCK = frozenset({"stuck-at-prior", "images-not-learned", "cannot-overfit"})
_STARTS = frozenset({"activation-scale", "dead-at-start", "saturated-units", "vanishing-gradient"})


def ranked(findings: Iterable[Finding]) -> list[Finding]:
    """Findings in the order in which they should be read; equal ones once.

    Errors come before warnings, these before what is worth knowing. Of several that have one cause (`causes.CAUSES`)
    the cause comes first, in the place of the gravest that it explains, and the others follow it and name it in
    `because`. What is slight about the start becomes as grave as a network that does not learn, where nothing else
    says why it does not.

    Args:
        findings: of one data set, model or run.
    """
    each = _raised([*{(finding.id, finding.where, finding.explanation): finding for finding in findings}.values()])
    present = {finding.id: finding for finding in each if finding.severity != "info"}
    told = [replace(finding, because=_because(finding, present)) for finding in each]
    gravity = {
        finding.id: min(
            GRAVITY[other.severity] for other in told if other.id == finding.id or other.because == finding.id
        )
        for finding in told
    }
    order = {fault: place for place, fault in enumerate(CAUSES)}

    def place(finding: Finding) -> tuple[int, int, str, int, int]:
        head = finding.because or finding.id
        return (
            gravity.get(head, GRAVITY[finding.severity]),
            order.get(head, len(order)),
            head,
            1 if finding.because else 0,
            GRAVITY[finding.severity],
        )

    return sorted(told, key=place)


def _raised(findings: Sequence[Finding]) -> Sequence[Finding]:
    """With slight signs of a bad start as grave as a network that is stuck for no other reason."""
    present = {finding.id: finding for finding in findings if finding.severity != "info"}
    stuck = [one for one in present.values() if one.id in _STUCK and (_because(one, present) or one.id) in _STUCK]
    if not stuck:
        return findings
    severity = min((one.severity for one in stuck), key=GRAVITY.__getitem__)
    return [
        replace(one, severity=severity)
        if one.severity == "info" and one.id in _STARTS and any(it.id in CAUSES[one.id] for it in stuck)
        else one
        for one in findings
    ]


def _because(finding: Finding, present: Mapping[str, Finding]) -> str:
    """The first cause that is there and explains this finding; causes of causes are followed to their beginning."""
    fault, seen = finding.id, {finding.id}
    while True:
        cause = next((name for name, explains in CAUSES.items() if fault in explains and name in present), None)
        if cause is None or cause in seen:
            return "" if fault == finding.id else fault
        seen.add(cause)
        fault = cause


@dataclass(frozen=True, kw_only=True)
class Diagnosis:
    """What is wrong, in order, and what could not be judged.

    Args:
        subject: the recipe, run or log that was looked at.
        findings: see `ranked`.
        verdict: one or two sentences.
        notes: what could and could not be concluded, a sentence each.
        passed: ids of the faults that were looked for and not found.
        silent: id → what was lacking to look for it.
        recipe: of the run, nested plain values, for advice; empty where there is none.
    """

    subject: str
    findings: Sequence[Finding]
    verdict: str = ""
    notes: Sequence[str] = ()
    passed: Sequence[str] = ()
    silent: Mapping[str, str] = field(default_factory=dict)
    recipe: Mapping[str, Any] = field(default_factory=dict)

    @property
    def numbered(self) -> dict[str, Finding]:
        """`F01`, `F02`, … → finding, in order."""
        return {f"F{number:02d}": finding for number, finding in enumerate(self.findings, start=1)}

    @property
    def worst(self) -> str:
        """The gravest severity there is; empty without findings."""
        return min((finding.severity for finding in self.findings), key=GRAVITY.__getitem__, default="")

    def find(self, name: str) -> Finding:
        """A finding by its number (`F07`) or its id.

        Raises:
            NotFound: there is none of this name.
        """
        for number, finding in self.numbered.items():
            if name.upper() == number or name == finding.id:
                return finding
        known = [*self.numbered, *dict.fromkeys(finding.id for finding in self.findings)]
        raise NotFound(f"{self.subject}: no finding {name!r}{nearest(name, known) if known else '; there are none'}")

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "subject": self.subject,
            "verdict": self.verdict,
            "notes": list(self.notes),
            "findings": [
                {
                    "number": number,
                    **finding.as_dict(),
                    "advice": [asdict(one) for one in advise(finding.id, self.recipe)],
                }
                for number, finding in self.numbered.items()
            ],
            "passed": list(self.passed),
            "not_judged": dict(self.silent),
        }

    def to_json(self) -> str:
        """The same as text."""
        return json.dumps(self.to_dict(), indent=1)
