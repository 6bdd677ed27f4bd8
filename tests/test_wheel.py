"""The wheel is the whole package: it works outside the repository, with nothing of the repository in reach."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory: pytest.TempPathFactory, repo_root: Path) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(repo_root)]
    done = subprocess.run(build, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    [wheel] = folder.glob("*.whl")
    zipfile.ZipFile(wheel).extractall(folder / "site")
    return folder / "site"


def outside(unpacked: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "PYTHONPATH": str(unpacked)}
    command = [sys.executable, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=unpacked.parent, env=env)


def test_it_holds_everything_that_lies_beside_the_code(unpacked: Path, repo_root: Path) -> None:
    source = repo_root / "src"
    wanted = {path.relative_to(source) for path in source.rglob("*") if path.is_file() and path.suffix != ".pyc"}
    found = {path.relative_to(unpacked) for path in unpacked.rglob("*") if path.is_file()}
    assert sorted(wanted - found) == []
    assert {"py.typed", "demo.yaml", "report.html.j2"} <= {path.name for path in found}
    assert any(path.name == "LICENSE" for path in found)


def test_its_command_knows_its_recipes(unpacked: Path) -> None:
    where = outside(unpacked, "-c", "import clearsight; print(clearsight.__file__)")
    assert Path(where.stdout.strip()).is_relative_to(unpacked), where.stderr
    listed = outside(unpacked, "-m", "clearsight", "recipes")
    assert listed.returncode == 0, listed.stderr
    assert "demo" in listed.stdout
    assert "cells" in listed.stdout


def test_it_says_what_it_is(unpacked: Path) -> None:
    [about] = unpacked.glob("clearsight-*.dist-info")
    text = (about / "METADATA").read_text()
    assert "License-Expression: Apache-2.0" in text
    assert "Requires-Python: >=3.11" in text
    assert "clearsight = clearsight.cli:main" in (about / "entry_points.txt").read_text()
