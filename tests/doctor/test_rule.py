"""A rule that fails ends nothing."""

from __future__ import annotations

from collections.abc import Iterable

from clearsight.doctor.rule import Rule, examine
from clearsight.types import Finding


class Large(Rule[int]):
    id = "large"
    source = "nobody"

    def lacks(self, evidence: int) -> str:
        return "a number" if evidence == 0 else ""

    def check(self, evidence: int) -> Iterable[Finding]:
        if 100 // evidence < 10:
            yield Finding(id=self.id, severity="warning", where="here", explanation=f"{evidence} is large")


class Broken(Rule[int]):
    id = "broken"
    source = "nobody"

    def check(self, evidence: int) -> Iterable[Finding]:
        yield Finding(id=self.id, severity="info", where="here", explanation="the first half")
        raise ZeroDivisionError("of a rule")


def test_found_passed_and_silent() -> None:
    assert [finding.id for finding in examine([Large()], 50).findings] == ["large"]
    assert examine([Large()], 5).passed == ("large",)
    assert examine([Large()], 0).silent == {"large": "a number"}


def test_a_rule_that_raises_is_reported_and_the_others_go_on() -> None:
    found = examine([Broken(), Large()], 50).findings
    assert [(finding.id, finding.severity, finding.where) for finding in found] == [
        ("rule-failed", "info", "broken"),
        ("large", "warning", "here"),
    ]
    assert "ZeroDivisionError: of a rule" in found[0].explanation
