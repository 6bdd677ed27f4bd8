"""Curves and records."""

from __future__ import annotations

import numpy as np
import pytest

from clearsight.doctor.run.record import EMPTY, Curve, RunRecord


def test_a_curve_from_plain_numbers() -> None:
    curve = Curve.of([1, 5, 9], [3, np.nan, np.inf])
    assert curve.steps.dtype == np.int64
    assert curve.finite().steps.tolist() == [1]
    assert curve.between(1, 9).steps.tolist() == [5, 9]
    assert len(EMPTY) == 0
    assert not EMPTY


@pytest.mark.parametrize(
    ("steps", "values", "says"), [([1, 2], [1.0], "2 steps and 1 values"), ([1, 1], [1.0, 2.0], "do not rise")]
)
def test_what_is_no_curve(steps: list[int], values: list[float], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        Curve.of(steps, values)


def test_the_last_step_that_anything_is_known_of() -> None:
    assert RunRecord().steps == 0
    assert RunRecord(loss=Curve.of([1, 7], [1, 1]), val={"map": Curve.of([9], [0.5])}).steps == 9
