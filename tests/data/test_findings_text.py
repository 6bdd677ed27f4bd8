"""Findings as text for people."""

from __future__ import annotations

from clearsight.data.findings_text import format_findings
from clearsight.types import Finding


def finding(fault, severity="error", where="a.jpg", text="it is so", action="image dropped", remedy=None):
    return Finding(id=fault, severity=severity, where=where, explanation=text, action=action, remedy=remedy or {})


def test_groups_counts_and_order():
    findings = [
        finding("no-objects", "info", "n.xml", action="kept as background"),
        *(finding("empty-file", where=f"{i}.jpg", text="zero bytes") for i in range(5)),
        finding("box-outside", "warning", "b.xml:3", action="clipped to the image"),
        finding("box-outside", "error", "c.xml:9", action="object dropped"),
    ]
    assert format_findings(findings).splitlines() == [
        "Errors",
        "  empty-file: 5 (image dropped)",
        "    0.jpg: zero bytes",
        "    1.jpg: zero bytes",
        "    2.jpg: zero bytes",
        "    … and 2 more",
        "  box-outside: 1 (object dropped)",
        "    c.xml:9: it is so",
        "Warnings",
        "  box-outside: 1 (clipped to the image)",
        "    b.xml:3: it is so",
        "Worth knowing",
        "  no-objects: 1 (kept as background)",
        "    n.xml: it is so",
    ]


def test_actions_that_differ_are_counted():
    text = format_findings(
        [finding("x", action="polygon dropped"), finding("x", action="object dropped"), finding("x", action="")]
    )
    assert "x: 3 (1 polygon dropped, 1 object dropped)" in text


def test_remedies_and_number_shown():
    text = format_findings([finding("x", remedy={"data.channels": 5})] * 2, first=1)
    assert text.splitlines() == [
        "Errors",
        "  x: 2 (image dropped)",
        "    a.jpg: it is so",
        "    … and 1 more",
        "    remedy: data.channels=5",
    ]


def test_nothing():
    assert format_findings([]) == ""
