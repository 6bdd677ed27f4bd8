from __future__ import annotations

import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from clearsight.errors import CheckpointError
from clearsight.train.checkpoint import (
    check_same_model,
    load_checkpoint,
    model_differences,
    remove_leftovers,
    save_checkpoint,
    share_file,
)


def payload(value: float = 1.0, size: int = 100) -> dict:
    return {"model": {"w": torch.full((size,), value)}, "position": {"step": 3}, "names": ["a", "b"], "none": None}


def test_round_trip(tmp_path):
    path = save_checkpoint(tmp_path / "last.ckpt", payload())
    back = load_checkpoint(path)
    assert torch.equal(back["model"]["w"], torch.ones(100))
    assert back["position"] == {"step": 3}
    assert back["names"] == ["a", "b"]
    assert os.listdir(tmp_path) == ["last.ckpt"]  # noqa: PTH208 - hidden files count


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.999])
def test_cut_short(tmp_path, share):
    path = save_checkpoint(tmp_path / "last.ckpt", payload())
    save_checkpoint(tmp_path / "best.ckpt", payload())
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])
    with pytest.raises(CheckpointError, match=r"last\.ckpt: damaged or not a checkpoint.*try best\.ckpt"):
        load_checkpoint(path)


def test_one_wrong_byte_of_a_tensor_is_noticed(tmp_path):
    path = save_checkpoint(tmp_path / "last.ckpt", payload(size=10000))
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0x01
    path.write_bytes(data)
    # torch.load takes it; that is why checksums are compared.
    assert not torch.equal(torch.load(path, weights_only=True)["model"]["w"], torch.ones(10000))
    with pytest.raises(CheckpointError, match="the checksum of its part"):
        load_checkpoint(path)


def test_any_other_file(tmp_path):
    with pytest.raises(CheckpointError, match="no such checkpoint"):
        load_checkpoint(tmp_path / "none.ckpt")
    (tmp_path / "text.ckpt").write_text("hello")
    with pytest.raises(CheckpointError, match="damaged or not a checkpoint"):
        load_checkpoint(tmp_path / "text.ckpt")
    torch.save({"a": 1}, tmp_path / "plain.ckpt")
    with pytest.raises(CheckpointError, match="expected a clearsight checkpoint of format 1, found a dict without"):
        load_checkpoint(tmp_path / "plain.ckpt")
    torch.save({"format": 99}, tmp_path / "new.ckpt")
    with pytest.raises(CheckpointError, match="found format 99"):
        load_checkpoint(tmp_path / "new.ckpt")


class Payload:
    """Runs a command when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self):
        return os.system, (f"touch {self.mark}",)


@pytest.mark.parametrize("zipped", [True, False])
def test_loading_never_runs_code(tmp_path, zipped):
    mark, path = tmp_path / "mark", tmp_path / "evil.ckpt"
    content = {"format": 1, "model": Payload(mark)}
    if zipped:
        torch.save(content, path)
    else:
        path.write_bytes(pickle.dumps(content))
    with pytest.raises(CheckpointError):
        load_checkpoint(path)
    assert not mark.exists()
    if zipped:
        with pytest.raises(CheckpointError, match="something else than tensors and plain values"):
            load_checkpoint(path)
        torch.load(path, weights_only=False)  # the trap does work
        assert mark.exists()


def test_differences_between_models_are_named():
    small, large = nn.Linear(2, 3).state_dict(), nn.Linear(2, 4).state_dict()
    assert model_differences(small, small) == []
    with pytest.raises(
        CheckpointError, match=r"2 tensors have another shape \(weight is \(3, 2\) in the file and \(4, 2\)"
    ):
        check_same_model(Path("last.ckpt"), small, large)
    other = {"weight": small["weight"], "new": small["bias"]}
    with pytest.raises(
        CheckpointError, match=r"1 tensors of the model are not in the file \(bias\); 1 tensors of the file"
    ):
        check_same_model(Path("last.ckpt"), other, small)


def test_a_share_survives_its_source(tmp_path):
    best = save_checkpoint(tmp_path / "best.ckpt", payload(1.0))
    share_file(best, tmp_path / "last.ckpt")
    save_checkpoint(tmp_path / "last.ckpt", payload(2.0))
    assert load_checkpoint(best)["model"]["w"][0] == 1.0
    assert load_checkpoint(tmp_path / "last.ckpt")["model"]["w"][0] == 2.0


def test_leftovers_of_killed_processes_go(tmp_path):
    (tmp_path / ".last.ckpt.123.tmp").write_text("half")
    (tmp_path / "keep.tmp").write_text("mine")
    remove_leftovers(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["keep.tmp"]


SAVE_TWICE = """
import resource, signal, sys, torch
from pathlib import Path
from clearsight.errors import CheckpointError
from clearsight.train.checkpoint import load_checkpoint, save_checkpoint
path = Path(sys.argv[1])
save_checkpoint(path, {"model": {"w": torch.full((1000,), 1.0)}})
if sys.argv[2] == "limit":
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
try:
    save_checkpoint(path, {"model": {"w": torch.full((1_000_000,), 2.0)}})
except CheckpointError as err:
    print(err)
else:
    sys.exit("the disk was not full")
print(load_checkpoint(path)["model"]["w"].shape, sorted(p.name for p in path.parent.iterdir()))
"""


def check_full_disk(folder: Path, how: str, env: dict[str, str]) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SAVE_TWICE, str(folder / "last.ckpt"), how],
        env=env, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "the disk or the quota is full" in done.stdout
    assert "the previous last.ckpt is untouched" in done.stdout
    assert "torch.Size([1000]) ['last.ckpt']" in done.stdout


def test_a_quota_leaves_the_last_good_one(tmp_path, process_environment):
    check_full_disk(tmp_path, "limit", process_environment)


def test_a_full_disk_leaves_the_last_good_one(tmp_path, process_environment):
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", disk], capture_output=True, check=False)
    if mounted.returncode:
        pytest.skip("mounting a small tmpfs needs root; the quota test shows the same through RLIMIT_FSIZE")
    try:
        check_full_disk(disk, "full", process_environment)
    finally:
        subprocess.run(["umount", disk], check=True)
