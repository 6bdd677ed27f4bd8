"""NaN in a log is an error, with the step where it begins."""

from __future__ import annotations

import numpy as np

from clearsight.doctor.run.not_finite import NonFiniteLogged
from clearsight.doctor.run.record import Curve, RunRecord

STEPS = np.arange(1, 11)


def test_the_first_step_that_is_no_number() -> None:
    values = np.linspace(2, 1, 10)
    values[6:] = np.nan
    found = list(NonFiniteLogged().check(RunRecord(loss=Curve.of(STEPS, values))))
    assert [(one.severity, one.evidence["step"], one.evidence["entries"]) for one in found] == [("error", 7, 4)]
    assert "never again" in found[0].explanation


def test_an_infinity_that_passes_is_told_too() -> None:
    values = np.ones(10)
    values[4] = np.inf
    found = list(NonFiniteLogged().check(RunRecord(val={"loss": Curve.of(STEPS, values)})))
    assert found[0].evidence["plot"]["curves"] == ["val/loss"]
    assert "never again" not in found[0].explanation


def test_numbers_are_quiet() -> None:
    assert not list(NonFiniteLogged().check(RunRecord(loss=Curve.of(STEPS, np.full(10, 1e30)))))
    assert NonFiniteLogged().lacks(RunRecord())
