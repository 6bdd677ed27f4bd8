from __future__ import annotations

import os

import pytest
import torch
import torch.utils.deterministic as deterministic

from clearsight.errors import ConfigError
from clearsight.train.devices import _launched_with, cpu_has_bf16, make_fabric, repeatable, resolve_precision


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ("flags\t\t: fpu sse4_2 avx512f avx512_bf16 vnni\n", True),
        ("flags\t\t: fpu amx_bf16 amx_tile\n", True),
        ("Features\t: fp asimd bf16 i8mm\n", True),
        ("flags\t\t: fpu avx2 avx512f\n", False),
        ("model name\t: avx512_bf16 in a name\n", False),
    ],
)
def test_processor_flags(tmp_path, flags, expected):
    (tmp_path / "cpuinfo").write_text("processor\t: 0\n" + flags)
    assert cpu_has_bf16(tmp_path / "cpuinfo") is expected
    assert cpu_has_bf16(tmp_path / "missing") is False


def test_this_processor_agrees_with_torch():
    if not hasattr(torch.cpu, "get_capabilities"):
        pytest.skip("this torch does not list the processor's capabilities")
    known = torch.cpu.get_capabilities()
    expected = any(value for name, value in known.items() if name in ("avx512_bf16", "amx_bf16", "arm_bf16"))
    assert cpu_has_bf16() is expected


def test_precision():
    assert resolve_precision("bf16-mixed", "cpu") == "bf16-mixed"
    assert resolve_precision("16-mixed", "cuda") == "16-mixed"
    assert resolve_precision("16-mixed", "cpu") == resolve_precision("auto", "cpu")
    assert resolve_precision("auto", "cpu") == ("bf16-mixed" if cpu_has_bf16() else "32-true")
    assert resolve_precision("auto", "mps") == "32-true"


def test_repeatable_is_restored():
    before = torch.are_deterministic_algorithms_enabled()
    filled = deterministic.fill_uninitialized_memory
    with repeatable(enabled=True):
        assert torch.are_deterministic_algorithms_enabled()
        assert torch.is_deterministic_algorithms_warn_only_enabled()
        assert not torch.backends.cudnn.benchmark
        assert not deterministic.fill_uninitialized_memory
        with repeatable(enabled=False):
            assert torch.backends.cudnn.benchmark
        assert torch.are_deterministic_algorithms_enabled()
    assert torch.are_deterministic_algorithms_enabled() is before
    assert deterministic.fill_uninitialized_memory is filled


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"strategy": "fsdp"}, "splits the weights over processes"),
        ({"accelerator": "abacus"}, r"accelerator='abacus'.*cannot be had here"),
        ({"strategy": "nonsense"}, r"strategy='nonsense'.*cannot be had here"),
    ],
)
def test_what_cannot_be_had(digits, changes, text):
    with pytest.raises(ConfigError, match=text):
        make_fabric(digits.cpu(**changes))


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, None),
        ({"TORCHELASTIC_RUN_ID": "x", "LOCAL_WORLD_SIZE": "4", "WORLD_SIZE": "8"}, (4, 2)),
        ({"SLURM_STEP_NUM_TASKS": "6", "SLURM_STEP_NUM_NODES": "3"}, (2, 3)),
        ({"SLURM_STEP_NUM_TASKS": "1", "SLURM_STEP_NUM_NODES": "1"}, None),
        ({"SLURM_NTASKS": "8", "SLURM_PROCID": "0"}, None),  # a batch script that forgot srun
    ],
)
def test_numbers_of_processes_come_from_the_launcher(monkeypatch, given, expected):
    for name in [name for name in os.environ if name.startswith(("SLURM_", "TORCHELASTIC_"))]:
        monkeypatch.delenv(name)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    assert _launched_with() == expected


def test_cublas_is_told_to_repeat(digits):
    make_fabric(digits.cpu())
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] in (":4096:8", ":16:8")
