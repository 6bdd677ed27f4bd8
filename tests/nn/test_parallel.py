"""Averages over processes, with real processes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import torch

from clearsight.nn.parallel import mean_over_processes

SCRIPT = """
import sys, torch, torch.distributed as dist
from clearsight.nn.parallel import mean_over_processes
rank, store = int(sys.argv[1]), sys.argv[2]
dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
mine = torch.tensor([2.0 + rank, 10.0 * rank])
mean = mean_over_processes(mine)
assert mean.tolist() == [2.5, 5.0], mean
assert mine.tolist() == [2.0 + rank, 10.0 * rank], "the argument was changed"
dist.destroy_process_group()
"""


def test_one_process_gets_its_own_back() -> None:
    x = torch.rand(3)
    assert mean_over_processes(x) is x


def test_two_processes(tmp_path: Path) -> None:
    command = [sys.executable, "-c", SCRIPT]
    store = (tmp_path / "store").as_posix()
    both = [subprocess.Popen([*command, str(rank), store], stderr=subprocess.PIPE, text=True) for rank in (0, 1)]
    for process in both:
        _, said = process.communicate(timeout=60)
        assert process.returncode == 0, said
