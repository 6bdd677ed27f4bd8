"""One run of the benchmark: a setup with its faults, trained with the doctor and the peers beside it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from doctor_code_faults import CODE_FAULTS
from doctor_data import Split, load_set, split_of
from doctor_data_rules import check_data, peers_on_data
from doctor_faults import FAULTS, Fault, imbalanced
from doctor_ours import Doctor, plain
from doctor_peers import judge
from doctor_setup import Setup
from doctor_training import Bench, Looker

__all__ = ["EVERY", "Job", "run_job"]

EVERY: dict[str, Fault] = {**FAULTS, **CODE_FAULTS}


@dataclass(frozen=True, kw_only=True)
class Job:
    """One training.

    Args:
        key: names it for good; a run that is known by its key is not run again.
        kind: `clean`, `fault`, `double`, `twin` (the same without its faults), `remedy` (with the first remedy) or
            `anomaly` (with `torch.autograd.detect_anomaly` in place of the doctor).
        part: `tune` or `report`.
        setup: its knobs, before faults turn them.
        faults: name and severity of each.
        patch: knobs after faults have turned them.
        of: key of the run that this one is a twin or a remedy of.
        on_data: rules on data are applied.
    """

    key: str
    kind: str
    part: str
    setup: Setup
    faults: tuple[tuple[str, float], ...] = ()
    patch: tuple[tuple[str, Any], ...] = ()
    of: str = ""
    on_data: bool = False

    def turned(self) -> Setup:
        """Knobs as the run has them."""
        setup = self.setup
        for name, level in self.faults:
            change = EVERY[name].settings
            setup = setup if change is None else change(setup, level)
        return replace(setup, **dict(self.patch))


def run_job(job: Job, data: Path, cache: Path) -> dict[str, Any]:
    """Train, and say what came of it, as plain values.

    Args:
        job: the run.
        data: folder of the real data sets.
        cache: of the small sets, and of files for rules on data.
    """
    torch.set_num_threads(1)
    began, used = time.perf_counter(), time.process_time()
    bench, places = _built(job, data, cache)
    row: dict[str, Any] = {"key": job.key, "kind": job.kind, "part": job.part, "of": job.of, "faults": job.faults}
    row |= {"setup": bench.setup.as_dict(), "own": asdict(job.setup), "places": places}
    if job.kind in ("twin", "remedy"):
        bench.run(Looker())
    elif job.kind == "anomaly":
        row["anomaly"] = _with_anomaly(bench)
    else:
        row |= _watched(job, bench, cache)
    row |= {"score": bench.score, "train_seconds": bench.seconds, "steps": bench.steps_done}
    row |= {"seconds": time.perf_counter() - began, "cpu_seconds": time.process_time() - used}
    return row


def _built(job: Job, data: Path, cache: Path) -> tuple[Bench, list[str | None]]:
    setup = job.turned()
    split = split_of(*load_set(setup.data, data, cache), setup.seed)
    draws = np.random.default_rng(1_000 + setup.seed)
    if setup.ratio > 1:
        split = imbalanced(split, setup.ratio, draws)
    if setup.images:
        split = split.select(draws.permutation(len(split.labels))[: int(setup.images)])
    faults = [(EVERY[name], level) for name, level in job.faults]
    for fault, level in faults:
        if fault.data is not None:
            split = fault.data(split, level, draws)
    bench = Bench(setup, split)
    places = [None if fault.built is None else fault.built(bench, level) for fault, level in faults]
    bench.make_ready()
    later = [(fault.live, level) for fault, level in faults if fault.live is not None]
    if later:
        bench.onset_step = int(0.4 * setup.steps)
        bench.onset = lambda: [live(bench, level) for live, level in later] and None
    return bench, places


def _watched(job: Job, bench: Bench, cache: Path) -> dict[str, Any]:
    doctor = Doctor()
    bench.run(doctor)
    more: Sequence[Any] = ()
    on_data: dict[str, Any] = {}
    if job.on_data or any(EVERY[name].on_data for name, _ in job.faults):
        files = cache / "files" / job.key
        more = check_data(bench.split, files, bench.setup)
        on_data = peers_on_data(bench.split, files)
    return {
        "findings": doctor.ranked(more),
        "data_findings": [plain(one, 0) for one in more],
        "nonfinite": doctor.nonfinite,
        "onset": bench.onset_step,
        "stopped": bool(bench.stopped),
        "peers": judge(doctor.record) | on_data,
    }


def _with_anomaly(bench: Bench) -> str:
    """What PyTorch's own mode says: the operation that it names, empty where it is silent."""
    try:
        with torch.autograd.set_detect_anomaly(True):  # noqa: FBT003 - PyTorch's own signature
            bench.run(Looker())
    except RuntimeError as error:
        bench.stopped, bench.seconds = str(error), 0.0
        return str(error).partition("\n")[0][:200]
    return ""


def known_split(setup: Setup, data: Path, cache: Path) -> Split:
    """Images of a setup without faults."""
    return split_of(*load_set(setup.data, data, cache), setup.seed)
