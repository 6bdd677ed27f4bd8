"""What every benchmark shares: one command line, alternating measurement, rows with spread, a table and a JSON file.

A benchmark is a script that measures ours and a peer's in turns, under the same process conditions, and ends with

    options = arguments("What is measured, in one line.")
    ...
    rows = [compare("images/s", ours, peer="torchvision", theirs=theirs, unit="images/s", better="higher", bar=1.1)]
    sys.exit(report("train_throughput", rows, options))
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any, Literal, NoReturn

from pydantic import BaseModel, ConfigDict
from rich.console import Console
from rich.table import Table

__all__ = [
    "Child",
    "Document",
    "Options",
    "Row",
    "alternate",
    "arguments",
    "compare",
    "environment",
    "need",
    "peer_python",
    "report",
    "run_child",
    "seconds",
    "stop",
]

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("clearsight", "torch", "torchvision", "numpy", "pillow", "lightning-fabric", "torchmetrics")
Better = Literal["higher", "lower"]


# ------------------------------------------------------------------------------------------------ the command line
@dataclass(frozen=True, kw_only=True)
class Options:
    """What every benchmark can be told.

    Args:
        data: folder of the real data sets.
        quick: a smoke run: seconds instead of minutes; its numbers mean little and its bars are not enforced.
        device: where torch computes, for example `cpu` or `cuda`.
        json: file for the rows, or None.
        extra: what the script itself asked for.
    """

    data: Path
    quick: bool
    device: str
    json: Path | None
    extra: argparse.Namespace


def arguments(
    description: str,
    *,
    extra: Callable[[argparse.ArgumentParser], None] | None = None,
    argv: Sequence[str] | None = None,
) -> Options:
    """Read the command line.

    Args:
        description: what is measured, one line, shown by `--help`.
        extra: adds arguments of the script's own to the parser.
        argv: the arguments, None for the process's own.
    """
    parser = argparse.ArgumentParser(description=description)
    default = os.environ.get("CLEARSIGHT_DATA") or ROOT.parent / "shared" / "data"
    parser.add_argument("--data", type=Path, default=Path(default), metavar="DIR", help="real data (../shared/data)")
    parser.add_argument("--quick", action="store_true", help="a smoke run of seconds; bars are shown, not enforced")
    parser.add_argument("--device", default="cpu", help="where torch computes: cpu, cuda, mps (default: cpu)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows here")
    if extra is not None:
        extra(parser)
    given = parser.parse_args(argv)
    return Options(data=given.data, quick=given.quick, device=given.device, json=given.json, extra=given)


def stop(message: str) -> NoReturn:
    """End the benchmark with one clear line and exit code 2."""
    Console(stderr=True).print(message, markup=False, soft_wrap=True)
    sys.exit(2)


def need(options: Options, name: str) -> Path:
    """The folder of one data set; ends the benchmark with a clear line when it is missing."""
    folder = options.data / name
    if not folder.is_dir():
        stop(f"{folder}: not found; this benchmark reads the data set {name!r}, give its parent with --data DIR")
    return folder


# ------------------------------------------------------------------------------------------------ rows
class Row(BaseModel):
    """One measured quantity, ours beside a peer's.

    `ratio` is how many times better ours is, whichever way the quantity points: above 1 is always in our favour.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    value: float
    """Median of our measurements."""
    unit: str
    better: Better
    peer: str | None = None
    """Name and version of the peer, None when there is none (or it is not installed here: see `note`)."""
    peer_value: float | None = None
    ratio: float | None = None
    bar: float | None = None
    """What must be reached, on `bar_on`; None asks nothing."""
    bar_on: Literal["ratio", "value"] = "ratio"
    spread: tuple[float, float] | None = None
    """First and third quartile of our measurements."""
    peer_spread: tuple[float, float] | None = None
    runs: int = 1
    """Measurements of each side."""
    note: str = ""

    @property
    def met(self) -> bool | None:
        """Whether the bar is reached; None when there is none, or nothing to compare with."""
        if self.bar is None:
            return None
        if self.bar_on == "ratio":
            return None if self.ratio is None else self.ratio >= self.bar
        return self.value >= self.bar if self.better == "higher" else self.value <= self.bar


class Document(BaseModel):
    """What a benchmark writes with `--json`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    benchmark: str
    quick: bool
    started: str
    environment: dict[str, Any]
    rows: list[Row]


def _quartiles(values: Sequence[float]) -> tuple[float, float]:
    if len(values) == 1:
        return values[0], values[0]
    first, _, third = statistics.quantiles(values, n=4, method="inclusive")
    return first, third


def compare(
    name: str,
    ours: float | Sequence[float],
    *,
    unit: str,
    better: Better,
    peer: str | None = None,
    theirs: float | Sequence[float] | None = None,
    bar: float | None = None,
    note: str = "",
) -> Row:
    """A row from measurements of both sides: medians, quartiles and the ratio.

    The bar is on the ratio when `theirs` is given or a peer is named, else on the value itself.
    """
    mine = [float(ours)] if isinstance(ours, (int, float)) else [float(v) for v in ours]
    if not mine:
        raise ValueError(f"{name}: no measurement of ours; give at least one")
    row: dict[str, Any] = {"spread": _quartiles(mine), "runs": len(mine)}
    value = statistics.median(mine)
    if theirs is not None:
        other = [float(theirs)] if isinstance(theirs, (int, float)) else [float(v) for v in theirs]
        peer_value = statistics.median(other)
        over, under = (value, peer_value) if better == "higher" else (peer_value, value)
        # A side that measures zero has no ratio; the row still shows both values.
        row |= {
            "peer_value": peer_value,
            "peer_spread": _quartiles(other),
            "ratio": over / under if under > 0 else None,
        }
    row["bar_on"] = "value" if theirs is None and peer is None else "ratio"
    return Row(name=name, value=value, unit=unit, better=better, peer=peer, bar=bar, note=note, **row)


# ------------------------------------------------------------------------------------------------ measuring
def seconds(call: Callable[[], object]) -> float:
    """Wall-clock seconds of one call."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def alternate(
    sides: Mapping[str, Callable[[], float]], *, rounds: int, warmup: int = 1, quick: bool = False
) -> dict[str, list[float]]:
    """Measure every side `rounds` times, in turns, so that drift of the machine meets all alike.

    The order is turned round each time (A B, B A, …): a side that always came second would inherit the other's heat
    and caches.

    Args:
        sides: what measures one value a call, for example `lambda: seconds(step)`.
        rounds: measurements of each side.
        warmup: rounds before, thrown away.
        quick: at most two rounds and one of warm-up.

    Returns:
        The measured values of each side, in order.
    """
    rounds, warmup = (min(rounds, 2), min(warmup, 1)) if quick else (rounds, warmup)
    values: dict[str, list[float]] = {name: [] for name in sides}
    for turn in range(-warmup, rounds):
        names = list(sides) if turn % 2 == 0 else list(sides)[::-1]
        for name in names:
            value = sides[name]()
            if turn >= 0:
                values[name].append(value)
    return values


@dataclass(frozen=True, kw_only=True)
class Child:
    """What a measured process gave back.

    Args:
        result: the JSON object it printed as its last line.
        seconds: wall clock, start to end.
        peak_mb: largest resident memory, MiB; 0 where the platform does not tell.
    """

    result: dict[str, Any]
    seconds: float
    peak_mb: float


# The child of a large process starts with that process's peak memory on its account (Linux keeps it across exec), so a
# small interpreter stands between: what is measured is then the measured program's own.
_BETWEEN = """
import json, subprocess, sys, time
start = time.perf_counter()
code = subprocess.call(sys.argv[2:])
took = time.perf_counter() - start
try:
    import resource
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
except ImportError:
    peak = 0
with open(sys.argv[1], "w") as file:
    json.dump([code, took, peak], file)
"""


def run_child(command: Sequence[str | Path], *, threads: int | None = None, timeout: float = 3600) -> Child:
    """Run one side in a process of its own and read the JSON object that it prints as its last line.

    Args:
        command: program and arguments; `sys.executable` or `peer_python(...)` first.
        threads: set for OpenMP, MKL and torch alike; None leaves the environment as it is.
        timeout: seconds until it is killed, with every process it started.

    Raises:
        RuntimeError: it failed, or its last line is no JSON object; the message has the end of what it said.
    """
    env = dict(os.environ)
    if threads is not None:
        env |= dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), str(threads))
    argv = [str(part) for part in command]
    name = " ".join([Path(argv[0]).name, *argv[1:3]])
    # Files, not pipes: a child that says much cannot block on a pipe that nobody reads.
    with tempfile.TemporaryDirectory() as folder:
        usage, out, err = (Path(folder) / part for part in ("usage.json", "out.txt", "err.txt"))
        between = [sys.executable, "-S", "-E", "-c", _BETWEEN, str(usage), *argv]
        with out.open("w") as said, err.open("w") as complained:
            process = subprocess.Popen(between, stdout=said, stderr=complained, env=env, start_new_session=True)
            try:
                process.wait(timeout)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                raise RuntimeError(f"{name}: killed after {timeout:.0f} s\n{err.read_text()[-2000:]}") from None
        code, took, peak = json.loads(usage.read_text()) if usage.is_file() else (process.returncode, 0.0, 0)
        result = _last_object(out.read_text())
        if code != 0 or result is None:
            why = f"ended with code {code}" if code else "printed no JSON object as its last line"
            raise RuntimeError(f"{name}: {why} after {took:.0f} s\n{err.read_text()[-2000:]}")
    unit = 1 if sys.platform == "darwin" else 1024  # macOS counts bytes, Linux KiB
    return Child(result=result, seconds=took, peak_mb=peak * unit / 2**20)


def _last_object(text: str) -> dict[str, Any] | None:
    lines = [line for line in text.splitlines() if line.strip()]
    try:
        found = json.loads(lines[-1]) if lines else None
    except json.JSONDecodeError:
        return None
    return found if isinstance(found, dict) else None


def peer_python(package: str) -> str | None:
    """An interpreter that can import a peer: ours, $CLEARSIGHT_PEERS, `.venv-peers` or `../peers`; None if none can.

    Peers whose licence or dependencies do not belong in our environment live in one of their own.
    """
    named = os.environ.get("CLEARSIGHT_PEERS")
    places = [Path(sys.executable), Path(named) if named else None]
    places += [folder / "bin" / "python" for folder in (ROOT / ".venv-peers", ROOT.parent / "peers")]
    probe = f"import importlib.util, sys; sys.exit(importlib.util.find_spec({package!r}) is None)"
    for place in places:
        if place is not None and place.is_file():
            found = subprocess.run([str(place), "-c", probe], capture_output=True, check=False)
            if found.returncode == 0:
                return str(place)
    return None


# ------------------------------------------------------------------------------------------------ the outcome
def environment(device: str = "cpu") -> dict[str, Any]:
    """Versions, processor and commit: what a number depends on, and nothing that tells where it was measured."""
    versions = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            versions[package] = "not installed"
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "versions": versions,
        "processor": _processor(),
        "cores": cores,
        "system": f"{platform.system()} {platform.machine()}",
        "device": _device_name(device),
        "commit": _commit(),
    }


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _device_name(device: str) -> str:
    if not device.startswith("cuda"):
        return device
    import torch

    return torch.cuda.get_device_name(device) if torch.cuda.is_available() else f"{device} (not available)"


def _commit() -> str:
    git = ["git", "-C", str(ROOT)]
    try:
        head = subprocess.run([*git, "rev-parse", "--short=12", "HEAD"], capture_output=True, text=True, check=True)
        dirty = subprocess.run([*git, "status", "--porcelain", "-uno"], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return head.stdout.strip() + ("+" if dirty.stdout.strip() else "")


def _number(value: float | None, spread: tuple[float, float] | None) -> str:
    if value is None:
        return "–"
    if spread is None or spread[0] == spread[1]:
        return f"{value:.4g}"
    return f"{value:.4g} [{spread[0]:.4g}, {spread[1]:.4g}]"


def _table(document: Document) -> Table:
    title = f"{document.benchmark}{' (quick: a smoke run, not a measurement)' if document.quick else ''}"
    table = Table(title=title, title_justify="left", caption_justify="left")
    for heading in ("what", "ours, quartiles", "unit", "peer", "peer's, quartiles", "ratio", "bar", "met"):
        table.add_column(heading, overflow="fold")
    for row in document.rows:
        sign = "≥" if row.bar_on == "ratio" or row.better == "higher" else "≤"
        bar = "–" if row.bar is None else f"{sign} {row.bar:g}{'×' if row.bar_on == 'ratio' else ''}"
        met = {True: "[green]yes[/]", False: "[red]NO[/]", None: "–"}[row.met]
        ratio = "–" if row.ratio is None else f"{row.ratio:.3g}×"
        ours, other = _number(row.value, row.spread), _number(row.peer_value, row.peer_spread)
        unit = f"{row.unit} ({row.better})"
        table.add_row(
            row.name, ours.replace("[", r"\["), unit, row.peer or "–", other.replace("[", r"\["), ratio, bar, met
        )
    about = document.environment
    table.caption = (
        f"{about['processor']}, {about['cores']} cores, {about['device']}; torch {about['versions']['torch']}; "
        f"commit {about['commit']}. A ratio above 1 is in our favour."
    )
    return table


def report(name: str, rows: Sequence[Row], options: Options, *, table: bool = True) -> int:
    """Print the table, write the JSON file if one was asked for, and say whether every bar is met.

    Args:
        name: of the benchmark.
        rows: what was measured.
        options: of the command line.
        table: False where the script shows its rows in a table of its own.

    Returns:
        The exit code: 1 when a bar is missed (0 in a quick run, which measures nothing worth judging).
    """
    now = datetime.now(tz=UTC).isoformat(timespec="seconds")
    about = environment(options.device)
    document = Document(benchmark=name, quick=options.quick, started=now, environment=about, rows=list(rows))
    console = Console(width=None if sys.stdout.isatty() else 160)
    if table:
        console.print(_table(document))
        for row in document.rows:
            if row.note:
                console.print(f"{row.name}: {row.note}", markup=False, highlight=False)
    if options.json is not None:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(document.model_dump_json(indent=2) + "\n")
    missed = [row.name for row in document.rows if row.met is False]
    if missed and not options.quick:
        console.print(f"Bars missed: {', '.join(missed)}", style="red", markup=False)
        return 1
    return 0
