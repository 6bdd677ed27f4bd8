from __future__ import annotations

from clearsight.doctor.rule import Rule
from clearsight.doctor.run.live_rules import LiveRules, print_finding
from clearsight.doctor.run.record import RunRecord
from clearsight.types import Finding


class TooHigh(Rule[RunRecord]):
    """The loss is above a bound; one finding a place."""

    id = "too-high"
    source = ""

    def check(self, evidence):
        if len(evidence.loss) and evidence.loss.values[-1] > 1:
            yield Finding(id=self.id, severity="warning", where="here [x]", explanation="The loss is high [1].")


def record(loss: float) -> RunRecord:
    from clearsight.doctor.run.record import Curve

    return RunRecord(loss=Curve.of([1], [loss]))


def test_a_finding_is_told_once() -> None:
    told = []
    live = LiveRules([TooHigh()], told.append)
    for loss in (0.5, 2.0, 3.0, 0.5):
        live.examine(lambda loss=loss: record(loss))
    assert [finding.id for finding in told] == ["too-high"]
    assert live.findings == told


class Rising(Rule[RunRecord]):
    """For information above 1, a warning above 2."""

    id = "rising"
    source = ""

    def check(self, evidence):
        height = float(evidence.loss.values[-1])
        if height > 1:
            severity = "warning" if height > 2 else "info"
            yield Finding(id=self.id, severity=severity, where="here", explanation=f"The loss is {height}.")


def test_a_finding_that_becomes_graver_is_told_again() -> None:
    told = []
    live = LiveRules([Rising()], told.append)
    for loss in (1.5, 1.6, 2.5, 1.5, 2.6):
        live.examine(lambda loss=loss: record(loss))
    assert [(finding.severity, finding.explanation) for finding in told] == [
        ("info", "The loss is 1.5."),
        ("warning", "The loss is 2.5."),
    ]
    assert live.findings == told[1:]


def test_without_rules_no_record_is_made() -> None:
    LiveRules([]).examine(lambda: 1 / 0)


def test_a_finding_is_one_line_on_standard_error(capsys) -> None:
    print_finding(Finding(id="too-high", severity="warning", where="here [x]", explanation="The loss is high [1]."))
    said = capsys.readouterr()
    assert said.err == "warning too-high: here [x]: The loss is high [1].\n"
    assert said.out == ""
