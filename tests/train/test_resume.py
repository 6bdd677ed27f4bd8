"""A training that is killed at any moment and resumed ends with the same bits as one that was not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from clearsight.train.checkpoint import load_checkpoint


def flat(value: Any, key: str = "") -> dict[str, Any]:
    """All leaves of a checkpoint, by their path."""
    if isinstance(value, dict):
        pairs = value.items()
    elif isinstance(value, list | tuple):
        pairs = enumerate(value)
    else:
        return {key: value}
    found: dict[str, Any] = {}
    for name, inner in pairs:
        found |= flat(inner, f"{key}/{name}")
    return found


def assert_same_bits(one: Path, other: Path) -> None:
    first, second = flat(load_checkpoint(one)), flat(load_checkpoint(other))
    assert first.keys() == second.keys()
    for key, value in first.items():
        if key == "/position/elapsed":
            continue
        if isinstance(value, torch.Tensor):
            assert value.dtype == second[key].dtype, key
            assert torch.equal(value, second[key]), key
        else:
            assert value == second[key], key


@pytest.mark.parametrize("workers", [0, 2])
def test_ten_kills_leave_no_trace(tmp_path, script, workers):
    said = script("kill_driver.py", tmp_path, workers, 10)
    assert json.loads(said.stdout.splitlines()[-1])["kills"] == 10
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert_same_bits(whole / "checkpoints" / "last.ckpt", killed / "checkpoints" / "last.ckpt")
    assert_same_bits(whole / "checkpoints" / "best.ckpt", killed / "checkpoints" / "best.ckpt")
    for name in ("metrics.csv", "weights.safetensors"):
        assert (whole / name).read_bytes() == (killed / name).read_bytes(), name
    assert not list(killed.rglob("*.tmp"))
    assert load_checkpoint(whole / "checkpoints" / "last.ckpt")["best"]["score"] > 0.3  # it did learn
