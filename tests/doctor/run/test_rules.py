"""The table of rules on runs."""

from __future__ import annotations

import numpy as np

from clearsight.doctor.rule import examine
from clearsight.doctor.run.record import Curve, RunRecord
from clearsight.doctor.run.rules import RULES


def test_each_has_a_name_of_its_own_and_a_source() -> None:
    assert len({rule.id for rule in RULES}) == len(RULES)
    assert all(rule.source for rule in RULES)


def test_each_is_silent_about_nothing_and_says_why() -> None:
    found = examine(RULES, RunRecord())
    assert not found.findings
    assert set(found.silent) == {rule.id for rule in RULES}
    assert all(found.silent.values())


def test_none_fails_on_a_long_record() -> None:
    steps = np.arange(1, 10_001)
    rng = np.random.default_rng(0)
    loss = Curve.of(steps, 2.3 * np.exp(-steps / 2000) + rng.normal(0, 0.05, len(steps)))
    norm = Curve.of(steps, rng.lognormal(0, 0.3, len(steps)))
    val = {"loss": Curve.of(steps[99::100], 2.3 * np.exp(-steps[99::100] / 2000) + 0.1)}
    record = RunRecord(loss=loss, grad_norm=norm, lr=norm, seconds=norm, waiting=norm, memory=norm, val=val)
    found = examine(RULES, record)
    assert len(found.passed) > 5
    assert not [one for one in found.findings if one.id == "rule-failed"]
