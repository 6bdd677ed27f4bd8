"""The table of docs/backbones.md is what the code says today."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

from clearsight.models import BACKBONES

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def hook() -> ModuleType:
    spec = importlib.util.spec_from_file_location("backbones_page", ROOT / "docs" / "hooks" / "backbones.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_backbone_has_a_row(hook: ModuleType) -> None:
    page = hook.PAGE.read_text(encoding="utf-8")
    rows = page[page.index(hook.START) : page.index(hook.END)].splitlines()[3:]
    assert [row.split("`")[1] for row in rows] == list(BACKBONES)


@pytest.mark.parametrize("name", ["resnet18", "densenet121", "mobilenet_v2", "vit_ti_16", "repvgg_a0", "fnet_ti_16"])
def test_a_row_is_what_the_code_says(hook: ModuleType, name: str) -> None:
    assert hook.row(name) in hook.PAGE.read_text(encoding="utf-8"), "run: make techniques"


def test_only_the_table_is_replaced(hook: ModuleType) -> None:
    page = f"before\n{hook.START}\nold\n{hook.END}\nafter"
    assert hook.written(page, "new") == f"before\n{hook.START}\nnew\n{hook.END}\nafter"
