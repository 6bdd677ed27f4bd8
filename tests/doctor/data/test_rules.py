"""The table of rules on data."""

from __future__ import annotations

from pathlib import Path

import pytest

from clearsight.data.digit_scenes import read_digit_scenes
from clearsight.doctor.data.evidence import DataEvidence
from clearsight.doctor.data.rules import RULES
from clearsight.doctor.rule import examine


def test_each_has_a_name_of_its_own_and_a_source() -> None:
    assert len({rule.id for rule in RULES}) == len(RULES)
    assert all(rule.source for rule in RULES)


def test_sound_data_without_a_recipe_or_a_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No rule fails where it has less to look at, and none warns."""
    monkeypatch.setenv("CLEARSIGHT_CACHE", str(tmp_path / "cache"))
    whole = read_digit_scenes(tmp_path / "scenes", scenes=60, seed=1)
    parts = {name: whole.split(name) for name in ("train", "val", "test")}
    found = examine(RULES, DataEvidence(dataset=whole, **parts))
    assert [(one.id, one.explanation) for one in found.findings if one.severity != "info"] == []
    assert [one for one in found.findings if one.id == "rule-failed"] == []
    assert found.passed
