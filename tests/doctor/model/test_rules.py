"""The tables of rules on models."""

from __future__ import annotations

from clearsight.doctor.model.rules import PROBES, RULES


def test_each_has_a_name_of_its_own_and_a_source() -> None:
    for rules in (RULES, PROBES):
        assert len({rule.id for rule in rules}) == len(rules)
        assert all(rule.source for rule in rules)
    assert {rule.id for rule in RULES} & {rule.id for rule in PROBES} == set()


def test_what_the_others_rely_on_comes_first() -> None:
    """Labels out of range make other rules fail, and the probe that overfits is shared."""
    assert RULES[0].id == "loss-target-mismatch"
    assert [rule.id for rule in PROBES[:2]] == ["cannot-overfit", "images-not-learned"]
