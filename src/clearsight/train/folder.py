"""The folder of a run: where everything that a run leaves behind lies."""

from __future__ import annotations

import json
import platform
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save as to_safetensors
from torch import nn

from clearsight.errors import ConfigError, NotFound
from clearsight.train.checkpoint import replace_file
from clearsight.types import Finding

__all__ = ["RunFolder", "describe_environment", "write_weights"]

PACKAGES = ("clearsight", "torch", "torchvision", "lightning-fabric", "torchmetrics", "numpy", "pillow", "scikit-learn")


@dataclass(frozen=True, slots=True)
class RunFolder:
    """Paths of a run's files.

    Args:
        path: the folder.
        interrupted: name of the signal that ended the run before its end, or None.
    """

    path: Path
    interrupted: str | None = None

    @property
    def recipe(self) -> Path:
        """`recipe.yaml`, resolved."""
        return self.path / "recipe.yaml"

    @property
    def environment(self) -> Path:
        """`environment.json`: versions, processor, commits, the data's fingerprint, classes, statistics."""
        return self.path / "environment.json"

    @property
    def metrics(self) -> Path:
        """`metrics.csv`: a row a step and a row an evaluation; the same bytes whenever the run is the same."""
        return self.path / "metrics.csv"

    @property
    def timing(self) -> Path:
        """`timing.csv`: what differs from run to run: seconds and images a second."""
        return self.path / "timing.csv"

    @property
    def tensorboard(self) -> Path:
        """Folder of TensorBoard's event files."""
        return self.path / "tensorboard"

    @property
    def findings(self) -> Path:
        """`findings.jsonl`: one finding a line."""
        return self.path / "findings.jsonl"

    @property
    def checkpoints(self) -> Path:
        """Folder of the checkpoints."""
        return self.path / "checkpoints"

    @property
    def last(self) -> Path:
        """Checkpoint to go on from."""
        return self.checkpoints / "last.ckpt"

    @property
    def best(self) -> Path:
        """Checkpoint of the best evaluation."""
        return self.checkpoints / "best.ckpt"

    @property
    def weights(self) -> Path:
        """`weights.safetensors`: the best weights, averaged where averaging is on."""
        return self.path / "weights.safetensors"

    @property
    def scores(self) -> Path:
        """`scores.json`: the scores of the best weights, by split."""
        return self.path / "scores.json"

    @property
    def report(self) -> Path:
        """`report.html`."""
        return self.path / "report.html"

    def create(self) -> RunFolder:
        """Make the folder for a new run.

        Raises:
            ConfigError: there is a run in it already, or it cannot be made.
        """
        if self.last.exists() or self.recipe.exists():
            raise ConfigError(
                f"{self.path}: there is a run in this folder already; resume it "
                f"(clearsight train --resume {self.path}), give another folder (--out), or remove it"
            )
        try:
            self.checkpoints.mkdir(parents=True, exist_ok=True)
        except OSError as err:
            raise ConfigError(
                f"{self.path}: the run's folder cannot be made: {err.strerror}; give another (--out)"
            ) from err
        return self

    def require(self) -> RunFolder:
        """The folder itself, if there is a run in it.

        Raises:
            NotFound: there is none; the message lists the runs beside it.
        """
        if not self.recipe.is_file():
            parent = self.path.parent
            beside = sorted(p.parent.name for p in parent.glob("*/recipe.yaml")) if parent.is_dir() else []
            known = f"runs in {parent}: {', '.join(beside)}" if beside else f"{parent} has no runs"
            raise NotFound(f"{self.path}: no run here (recipe.yaml is missing); {known}")
        return self

    def write_environment(self, facts: Mapping[str, Any]) -> None:
        """Write `environment.json`."""
        text = json.dumps(dict(facts), indent=1) + "\n"
        replace_file(self.environment, lambda file: file.write(text.encode()))

    def read_environment(self) -> dict[str, Any]:
        """Read `environment.json`; empty when there is none."""
        return json.loads(self.environment.read_text()) if self.environment.is_file() else {}

    def write_findings(self, findings: Iterable[Finding]) -> None:
        """Write `findings.jsonl`."""
        lines = "".join(json.dumps(finding.as_dict()) + "\n" for finding in findings)
        replace_file(self.findings, lambda file: file.write(lines.encode()))

    def read_findings(self) -> list[Finding]:
        """Read `findings.jsonl`; empty when there is none. A last line that was cut off is left out."""
        if not self.findings.is_file():
            return []
        text = self.findings.read_text()
        whole = text[: text.rfind("\n") + 1]
        return [Finding(**json.loads(line)) for line in whole.splitlines()]


def describe_environment(where: Path) -> dict[str, Any]:
    """Versions, processor and commit of the folder `where`; plain JSON values."""
    return {
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "processor": _processor(),
        "threads": torch.get_num_threads(),
        "gpu": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
        "packages": {name: version for name in PACKAGES if (version := _version(name)) is not None},
        "commit": _commit(where),
    }


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        for line in cpuinfo.read_text(errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _commit(where: Path) -> str | None:
    """Commit of the git repository around a folder, marked when files differ from it; None without one."""

    def git(*arguments: str) -> str | None:
        try:
            answer = subprocess.run(
                ["git", *arguments], cwd=where, capture_output=True, text=True, timeout=10, check=False
            )
        except (OSError, subprocess.TimeoutExpired):
            return None
        return answer.stdout.strip() if answer.returncode == 0 else None

    commit = git("rev-parse", "HEAD")
    if commit is None:
        return None
    return f"{commit} with uncommitted changes" if git("status", "--porcelain", "--untracked-files=no") else commit


def write_weights(path: Path, model: nn.Module) -> Path:
    """Write a model's weights as safetensors, atomically."""
    # Weights that two modules share are one tensor in memory, which safetensors refuses; clones are written in full.
    tensors = {name: value.detach().cpu().contiguous().clone() for name, value in model.state_dict().items()}
    data = to_safetensors(tensors, metadata={"format": "pt"})
    return replace_file(path, lambda file: file.write(data))
