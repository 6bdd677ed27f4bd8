"""docs/faults.md is what the rules say today, and other pages name faults that exist."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def hook() -> ModuleType:
    spec = importlib.util.spec_from_file_location("faults_page", ROOT / "docs" / "hooks" / "faults.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_is_what_the_rules_say(hook: ModuleType) -> None:
    assert hook.page() == (ROOT / "docs" / "faults.md").read_text(encoding="utf-8"), "run: make techniques"


def test_every_rule_says_what_it_looks_for(hook: ModuleType) -> None:
    rows = [hook.row(rule) for _, _, rules in hook.PARTS for rule in rules]
    assert all(len(cells := row.split(" | ")) == 4 and len(cells[1]) > 20 for row in rows)


def test_the_guide_names_faults_that_exist(hook: ModuleType) -> None:
    known = {rule.id for _, _, rules in hook.PARTS for rule in rules}
    guide = (ROOT / "docs" / "doctor.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`([a-z]+(?:-[a-z]+)+)`", guide))
    assert named <= known | {"rule-failed", "non-finite"}
