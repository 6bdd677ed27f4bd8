"""Order, causes, numbers, and what a diagnosis is as text."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from clearsight.doctor.diagnosis import Diagnosis, ranked
from clearsight.errors import NotFound
from clearsight.types import Finding, Severity


def found(name: str, severity: Severity = "warning", where: str = "run") -> Finding:
    return Finding(id=name, severity=severity, where=where, explanation=f"{name} is there.")


def ids(findings: list[Finding]) -> list[str]:
    return [finding.id for finding in findings]


def test_the_grave_come_first() -> None:
    assert ids(ranked([found("bias-before-norm", "info"), found("leak"), found("non-finite", "error")])) == [
        "non-finite",
        "leak",
        "bias-before-norm",
    ]


def test_the_cause_comes_before_what_it_explains_and_takes_the_gravest_place() -> None:
    order = ranked([found("stuck-at-prior", "error"), found("leak"), found("vanishing-gradient"), found("loss-spike")])
    assert ids(order)[:2] == ["vanishing-gradient", "stuck-at-prior"]
    assert set(ids(order)[2:]) == {"leak", "loss-spike"}
    assert order[1].because == "vanishing-gradient"
    assert order[0].because == ""


def test_a_chain_of_causes_is_followed_to_its_beginning() -> None:
    order = ranked([found("underfitting"), found("vanishing-gradient"), found("saturated-units")])
    assert ids(order)[0] == "saturated-units"
    assert {finding.because for finding in order[1:]} == {"saturated-units"}


def test_what_is_only_worth_knowing_is_no_cause() -> None:
    order = ranked([found("overfitting"), found("label-error", "info")])
    assert order[0].id == "overfitting"
    assert order[0].because == ""


def test_a_slight_sign_of_a_bad_start_counts_where_nothing_else_says_why_a_network_is_stuck() -> None:
    stuck, sign = found("stuck-at-prior"), found("activation-scale", "info", "conv1")
    order = ranked([stuck, sign])
    assert [(one.id, one.severity, one.because) for one in order] == [
        ("activation-scale", "warning", ""),
        ("stuck-at-prior", "warning", "activation-scale"),
    ]
    # Near misses: a rate that is too high explains it, the network learns, the sign is of something else.
    assert ranked([stuck, sign, found("learning-rate-too-high")])[-1].severity == "info"
    assert ranked([found("overfitting"), sign])[-1].severity == "info"
    assert ranked([stuck, found("class-imbalance", "info")])[-1].severity == "info"


def test_nothing_is_dropped_but_what_is_said_twice() -> None:
    one, other = found("tiny-object"), replace(found("tiny-object"), explanation="another one in the same file")
    assert len(ranked([one, other, one])) == 2


def test_numbers_and_names() -> None:
    diagnosis = Diagnosis(subject="runs/x", findings=ranked([found("leak"), found("non-finite", "error")]))
    assert list(diagnosis.numbered) == ["F01", "F02"]
    assert diagnosis.find("f01").id == "non-finite"
    assert diagnosis.find("leak").id == "leak"
    assert diagnosis.worst == "error"
    with pytest.raises(NotFound, match="did you mean 'leak'"):
        diagnosis.find("leek")
    with pytest.raises(NotFound, match="there are none"):
        Diagnosis(subject="runs/x", findings=[]).find("F01")


def test_as_json() -> None:
    diagnosis = Diagnosis(subject="x", findings=[found("leak")], notes=["no validation"], silent={"overfitting": "why"})
    values = json.loads(diagnosis.to_json())
    assert values["findings"][0]["number"] == "F01"
    assert values["not_judged"] == {"overfitting": "why"}
