"""The examples run, each with its real code, and say what they promise."""

from __future__ import annotations

import runpy
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image


def test_detect_digits(tmp_path, repo_root, capsys) -> None:
    example = runpy.run_path(str(repo_root / "examples" / "detect_digits.py"))
    example["main"](tmp_path / "run", steps=2)
    said = capsys.readouterr().out
    assert "AP50 on the test split: 0." in said
    assert "The hardest image" in said
    assert (tmp_path / "run" / "report.html").stat().st_size > 100_000
    assert list((tmp_path / "run" / "worst").rglob("*.*g"))


@pytest.mark.real
def test_check_and_convert(tmp_path, repo_root, shared_data, capsys) -> None:
    example = runpy.run_path(str(repo_root / "examples" / "check_and_convert.py"))
    example["main"](shared_data / "bccd", "yolo", tmp_path / "out")
    said = capsys.readouterr().out
    assert "364 images" in said
    assert "box-empty × 2" in said
    assert "read again: 364 images" in said


def test_depth(tmp_path, repo_root, capsys) -> None:
    example = runpy.run_path(str(repo_root / "examples" / "depth.py"))
    errors, baseline = example["main"](tmp_path / "depth.png", steps=3, scenes=8)
    assert f"net:                    {errors}" in capsys.readouterr().out
    assert 0.2 < baseline.abs_rel < 1
    with Image.open(tmp_path / "depth.png") as picture:
        assert picture.size == (1108, 748)
        assert len(picture.getcolors(2**20) or []) > 1000


def test_the_depth_of_the_example_is_known(repo_root) -> None:
    example = runpy.run_path(str(repo_root / "examples" / "depth.py"))
    eye, ahead = np.array([0.0, 1.0, 0.0]), np.array([[0.0, 0.0, 1.0], [0.0, -0.1, 1.0], [1.0, 0.0, 1.0]])
    depth, normal, _ = example["ball"](eye, ahead, np.array([0.0, 0.0, 6.0]), 1.0)
    assert depth[[0, 2]] == pytest.approx([5, np.inf])  # a ball of radius 1 at the eye's height
    assert normal[0] == pytest.approx([0, 0, -1])
    assert np.linalg.norm(eye + depth[1] * ahead[1] - [0, 1, 6]) == pytest.approx(1)
    square = example["box"](eye, ahead, np.array([0.0, 0.0, 6.0]), np.array([2.0, 2.0, 2.0]), 0.0)
    assert square[0] == pytest.approx([5, 5, np.inf])
    assert square[1][0] == pytest.approx([0, 0, -1])
    turned = example["box"](eye, ahead, np.array([0.0, 0.0, 6.0]), np.array([2.0, 2.0, 2.0]), np.pi / 4)
    assert turned[0][0] == pytest.approx(6 - np.sqrt(2), abs=1e-6)  # its edge


def test_ring_all_reduce(repo_root) -> None:
    script = repo_root / "examples" / "ring_all_reduce.py"
    said = subprocess.run([sys.executable, script, "3"], capture_output=True, text=True, check=True).stdout
    for way, sent in (("ring  ", ["1.33"]), ("one", ["2.00"])):
        found = [line.split("sent ")[1] for line in said.splitlines() if way in line]
        assert found == [f"{share} gradients" for share in sent]


def test_watch_plain_loop(repo_root, capsys) -> None:
    example = runpy.run_path(str(repo_root / "examples" / "watch_plain_loop.py"))
    watch = example["main"](epochs=2)
    said = capsys.readouterr().out
    assert "held out: loss" in said
    assert " 4 Conv2d" in said
    assert watch.record().steps == watch.record().budget == 42
    assert [finding for finding in watch.findings if finding.severity == "error"] == []


@pytest.mark.filterwarnings("ignore")  # Lightning's own
def test_watch_lightning(tmp_path, repo_root, capsys) -> None:
    pytest.importorskip("pytorch_lightning")
    example = runpy.run_path(str(repo_root / "examples" / "watch_lightning.py"))
    watch = example["main"](tmp_path, epochs=2)
    assert "44 steps, held out: accuracy 0." in capsys.readouterr().out
    assert (tmp_path / "telemetry.jsonl").is_file()
    assert [finding for finding in watch.findings if finding.severity == "error"] == []
