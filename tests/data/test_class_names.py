"""Names of classes in any case."""

from __future__ import annotations

from clearsight.data.class_names import ClassNames, names_found
from clearsight.types import Finding


def test_names_are_sorted_and_the_most_frequent_spelling_stands():
    assert names_found(["dog", "cat", "Cat", "cat ", "DOG", "DOG"]) == ("DOG", "cat")
    assert names_found(["b", "B"]) == ("B",)  # as frequent: the first in order, so that it never changes
    assert names_found([]) == ()


def test_exact_names_come_first():
    findings: list[Finding] = []
    table = ClassNames(("cat", "Cat"))
    assert [table.label(name, "x", findings) for name in ("cat", "Cat", " cat ")] == [0, 1, 0]
    assert findings == []


def test_another_case_is_found_and_told():
    findings: list[Finding] = []
    assert ClassNames(("Straße",)).label("STRASSE", "a.xml:3", findings) == 0
    assert (findings[0].id, findings[0].severity, findings[0].where) == ("class-case-mismatch", "warning", "a.xml:3")
    assert findings[0].action == "read as 'Straße'"


def test_an_unknown_name_is_told_with_those_there_are():
    findings: list[Finding] = []
    assert ClassNames(("cat", "dog")).label("cow", "a.xml:3", findings) is None
    assert (findings[0].id, findings[0].severity) == ("unknown-class", "error")
    assert "class 'cow' is not one of 'cat', 'dog'" in findings[0].explanation
    assert ClassNames(()).label("cow", "a.xml:3", findings) is None
    assert "not one of no classes" in findings[1].explanation
