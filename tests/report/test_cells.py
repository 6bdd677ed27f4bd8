"""Cells: what is printed, and what it sorts by."""

from __future__ import annotations

import math

from clearsight.report.cells import count_cell, number_cell, score_cell


def test_numbers_are_printed_and_sorted() -> None:
    row = {"f1": 0.51249, "objects": 12345, "ap": math.nan}
    assert (score_cell(row, "f1").text, score_cell(row, "f1").sort) == ("0.512", 0.51249)
    assert (count_cell(row, "objects").text, count_cell(row, "objects").sort) == ("12,345", 12345.0)


def test_what_is_not_there_is_a_dash_and_sorts_last() -> None:
    for cell in (score_cell({"ap": math.nan}, "ap"), score_cell({}, "ap"), count_cell({}, "objects")):
        assert cell.text == "–"
        assert isinstance(cell.sort, float)
        assert math.isnan(cell.sort)
    assert math.isnan(float(number_cell(math.inf, "∞").sort))
