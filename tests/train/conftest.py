"""The small training of `digits_run.py`, for every test of this folder."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from clearsight.recipe.schema import Recipe

HERE = Path(__file__).resolve().parent
SOURCE = HERE.parents[1] / "src"


@pytest.fixture(scope="session")
def digits() -> ModuleType:
    """The module `digits_run`."""
    spec = importlib.util.spec_from_file_location("digits_run", HERE / "digits_run.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["digits_run"] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def process_environment() -> dict[str, str]:
    """Environment of child processes: the same source, one thread, no launcher around."""
    env = {k: v for k, v in os.environ.items() if not k.startswith(("SLURM_", "TORCHELASTIC_"))}
    env |= {"PYTHONPATH": f"{SOURCE}{os.pathsep}{env.get('PYTHONPATH', '')}", "OMP_NUM_THREADS": "1"}
    return env


@pytest.fixture(scope="session")
def script(process_environment: dict[str, str]) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs a script of this folder in a process of its own and returns what it said; it must succeed."""

    def run(name: str, *arguments: object, launcher: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, *launcher, str(HERE / name), *map(str, arguments)]
        done = subprocess.run(
            command, env=process_environment, capture_output=True, text=True, timeout=120, check=False
        )
        assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
        return done

    return run


@pytest.fixture(scope="session")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for generated digit scenes, shared by the tests of this run."""
    return tmp_path_factory.mktemp("scenes")


@pytest.fixture(scope="session")
def small_recipe(scenes: Path) -> Callable[..., Recipe]:
    """A recipe that trains a very small detector on a few scenes; sections can be changed."""

    def recipe(**changes: object) -> Recipe:
        sections: dict[str, Any] = {
            "name": "small",
            "task": "detection",
            "data": {"format": "digit_scenes", "root": str(scenes), "scenes": 40, "size": [96, 64], "fit": "stretch"},
            "model": {"name": "light", "widths": [8, 8, 16, 16], "depths": [1, 1, 1, 1], "fpn_channels": 16},
            "loader": {"batch_size": 8, "workers": 0},
            "trainer": {"epochs": 2, "accelerator": "cpu", "precision": "32-true"},
            "eval": {"bootstrap": 10},
        }
        for dotted, value in changes.items():
            section, key = dotted.split("__")
            sections.setdefault(section, {})[key] = value
        return Recipe.model_validate(sections)

    return recipe
