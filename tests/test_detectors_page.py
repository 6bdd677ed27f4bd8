"""docs/detectors.md and its pages are what the code says today."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType

import pytest

from clearsight.models import BUILDERS
from clearsight.recipe.model_sections import model_task

ROOT = Path(__file__).resolve().parent.parent
DETECTORS = [name for name in BUILDERS if model_task(name) == "detection"]


@pytest.fixture(scope="module")
def hook() -> ModuleType:
    spec = importlib.util.spec_from_file_location("detectors_page", ROOT / "docs" / "hooks" / "detectors.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", DETECTORS)
def test_a_page_is_what_the_code_says(hook: ModuleType, name: str) -> None:
    written = (ROOT / "docs" / "detectors" / f"{name}.md").read_text(encoding="utf-8")
    assert hook.page(name) == written, "run: make techniques"
    assert f"detectors/{name}.md" in (ROOT / "mkdocs.yml").read_text(encoding="utf-8")


def test_the_map_has_every_detector(hook: ModuleType) -> None:
    assert hook.overview() == (ROOT / "docs" / "detectors.md").read_text(encoding="utf-8"), "run: make techniques"


def test_what_is_read_off_the_models(hook: ModuleType) -> None:
    expected = {
        "retinanet": (1, "9"),
        "fcos": (1, "none"),
        "ssd": (1, "4 to 6"),
        "centernet": (1, "none"),
        "fast_rcnn": (1, "3, sliding"),
        "faster_rcnn": (2, "3"),
        "cascade_rcnn": (4, "3"),
    }
    found = {name: hook.build(name) for name in expected}
    assert {name: (hook.stages(model), hook.anchors(model)) for name, model in found.items()} == expected
    assert hook.labels("fcos", found["fcos"]) == "`centre_sampling`"
    assert hook.labels("centernet", found["centernet"]) == "peak of a heat map"


def test_figures_come_from_the_benchmark(hook: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [
        {"name": "cells: mAP", "value": 0.5, "note": "interval over images 0.400 to 0.600; AP50 RBC 0.9"},
        {"name": "cells: prediction", "value": 12.3, "note": ""},
        {"name": "cells: training", "value": 45.6, "note": ""},
    ]
    (tmp_path / "d.json").write_text(json.dumps({"rows": rows}))
    monkeypatch.setattr(hook, "FIGURES", tmp_path / "d.json")
    assert hook.measured("light", hook.figures()) == ("0.500 (0.400 to 0.600)", "12 ms", "45.6")
    assert hook.measured("fcos", hook.figures()) == ("–", "–", "–")
