"""A log judged: the verdict, causes first, and what cannot be told."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import numpy as np

from clearsight.doctor.rule import Rule
from clearsight.doctor.run.diagnose import diagnose_log
from clearsight.doctor.run.logged import Logged
from clearsight.doctor.run.record import Curve, RunRecord
from clearsight.doctor.run.rules import RULES
from clearsight.types import Finding

STEPS = np.arange(1, 401)


class Broken(Rule[RunRecord]):
    id = "broken"
    source = "nobody"

    def check(self, evidence: RunRecord) -> Iterable[Finding]:
        raise ValueError("always")


def noisy(values: np.ndarray) -> Curve:
    return Curve.of(STEPS, values * np.random.default_rng(0).normal(1, 0.03, len(values)))


def test_a_sound_run() -> None:
    record = RunRecord(loss=noisy(2.3 * np.exp(-STEPS / 60) + 0.02), finished=True, budget=400)
    found = diagnose_log(Logged(record=record))
    assert "Nothing was found that would have cost quality" in found.verdict
    assert "diverging-loss" in found.passed
    assert "vanishing-gradient" in found.silent
    assert any("there was no validation" in note for note in found.notes)


def test_a_run_that_diverged() -> None:
    values = np.where(STEPS < 200, 2.3 * np.exp(-STEPS / 100), 2.3 * np.exp((STEPS - 200) / 40))
    found = diagnose_log(Logged(record=RunRecord(loss=noisy(values), finished=True)))
    assert found.worst in ("warning", "error")
    assert "it diverged" in found.verdict
    assert found.findings[0].id in ("diverging-loss", "learning-rate-too-high")


def test_what_was_found_before_is_part_of_it() -> None:
    before = Finding(id="not-in-optimizer", severity="error", where="head", explanation="left out")
    found = diagnose_log(Logged(record=RunRecord()), earlier=[before])
    assert found.find("F01") == before
    assert found.verdict.startswith("Nothing was logged")


def test_what_is_found_again_is_told_once_as_it_is_now() -> None:
    values = np.where(STEPS < 200, 2.3 * np.exp(-STEPS / 100), 2.3 * np.exp((STEPS - 200) / 40))
    logged = Logged(record=RunRecord(loss=noisy(values), finished=True))
    now = diagnose_log(logged).findings[0]
    before = replace(now, explanation="as it was at step 250")
    again = [one for one in diagnose_log(logged, earlier=[before]).findings if one.id == now.id]
    assert again == [now]


def test_few_values_are_said_to_be_few() -> None:
    found = diagnose_log(Logged(record=RunRecord(loss=Curve.of([1, 2, 3], [3.0, 2.0, 1.0]), budget=10)))
    assert "too little was logged" in found.verdict.lower()
    assert any("only 3 values" in note for note in found.notes)
    assert any("3 of 10 steps" in note for note in found.notes)


def test_a_rule_that_fails_is_told() -> None:
    found = diagnose_log(Logged(record=RunRecord()), rules=(Broken(), *RULES))
    assert [(one.id, one.where) for one in found.findings] == [("rule-failed", "broken")]
