"""One run of the benchmark: a setup with its faults, trained with the doctor and the peers beside it."""

from __future__ import annotations

import time
import warnings
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from doctor_code_faults import CODE_FAULTS
from doctor_data import load_set, split_of
from doctor_data_rules import check_data, peers_on_data
from doctor_faults import FAULTS, Fault, imbalanced
from doctor_ours import Doctor, plain
from doctor_peer_rules import judge
from doctor_peers import Side, Together
from doctor_setup import Setup, resolved
from doctor_training import Bench, Looker

__all__ = ["EVERY", "Job", "run_job"]

EVERY: dict[str, Fault] = {**FAULTS, **CODE_FAULTS}


@dataclass(frozen=True, kw_only=True)
class Job:
    """One training, or one look at data.

    Args:
        key: names it for good; a run that is known by its key is not run again.
        kind: `clean`, `fault`, `double`, `twin` (the same without its faults), `remedy` (with the first remedy),
            `anomaly` (with `torch.autograd.detect_anomaly` in place of the doctor) or `data` (rules on data alone).
        part: of the runs, key of `doctor_plan.PARTS`.
        setup: its knobs, before faults turn them.
        faults: name and severity of each.
        patch: knobs that are turned after faults have.
        of: key of the run that this one is a remedy of.
    """

    key: str
    kind: str
    part: str
    setup: Setup
    faults: tuple[tuple[str, float], ...] = ()
    patch: tuple[tuple[str, Any], ...] = ()
    of: str = ""

    def turned(self) -> Setup:
        """Knobs as the run has them."""
        setup = resolved(self.setup)
        for name, level in self.faults:
            change = EVERY[name].settings
            setup = setup if change is None else change(setup, level)
        return replace(setup, **dict(self.patch))


def run_job(job: Job, data: Path, cache: Path) -> dict[str, Any]:
    """Do it, and say what came of it, as plain values.

    Args:
        job: the run.
        data: folder of the real data sets.
        cache: of the small sets, and of files for rules on data.
    """
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")  # of optimisers and solvers that are driven to their ends on purpose
    began, used = time.perf_counter(), time.process_time()
    row: dict[str, Any] = {
        "key": job.key,
        "kind": job.kind,
        "part": job.part,
        "of": job.of,
        "faults": [list(fault) for fault in job.faults],
        "accepted": [sorted(EVERY[name].accepted) for name, _ in job.faults],
        "proven": any(EVERY[name].proven for name, _ in job.faults),
        "slow": any(EVERY[name].slow for name, _ in job.faults),
        "own": resolved(job.setup).as_dict(),
    }
    bench, places = _built(job, data, cache)
    later = bool(job.faults) and all(EVERY[name].live is not None for name, _ in job.faults)
    row |= {"setup": bench.setup.as_dict(), "spots": _spots(job, places), "onset": bench.onset_step if later else 0}
    if job.kind == "data":
        row |= _look(job, bench, cache)
    elif job.kind in ("twin", "remedy"):
        bench.run(Looker())
    elif job.kind == "anomaly":
        row["anomaly"] = _with_anomaly(bench)
    else:
        row |= _watched(job, bench, cache)
    row |= {"score": bench.score, "train_seconds": bench.seconds, "steps": bench.steps_done}
    row |= {"stopped": bool(bench.stopped)}
    return row | {"seconds": time.perf_counter() - began, "cpu_seconds": time.process_time() - used}


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
    if setup.pretrained:
        before = Bench(replace(setup, frozen=False, pretrained=False), split)
        before.make_ready()
        before.run(Looker())
        bench.model.load_state_dict(before.model.state_dict())
    places = [None if fault.built is None else fault.built(bench, level) for fault, level in faults]
    bench.make_ready()
    later = [(fault.live, level) for fault, level in faults if fault.live is not None]

    def set_in() -> None:
        for live, level in later:
            live(bench, level)

    if later:
        bench.onset_step, bench.onset = int(0.4 * setup.steps), set_in
    return bench, places


def _spots(job: Job, places: list[str | None]) -> list[list[str]]:
    """Of faults that give NaN: module, direction and operation that must be named; module empty outside the model."""
    found = []
    for (name, _), place in zip(job.faults, places, strict=True):
        spot = EVERY[name].spot
        if spot is not None:
            direction, operation = spot
            found.append([place or "", direction, f"{place}.{operation}" if direction == "update" else operation])
    return found


def _watched(job: Job, bench: Bench, cache: Path) -> dict[str, Any]:
    doctor, side = Doctor(), Side()
    bench.run(Together(doctor, side))
    doctor.keep(cache / "records" / f"{job.key}.pkl")
    looked: dict[str, Any] = {}
    more = []
    if any(EVERY[name].on_data for name, _ in job.faults):
        files = cache / "files" / job.key
        more = check_data(bench.split, files, bench.setup)
        looked = peers_on_data(bench.split, files)
    return {
        "findings": doctor.ranked(more),
        "nonfinite": doctor.nonfinite,
        "peers": {**judge(side.seen), **looked},
    }


def _look(job: Job, bench: Bench, cache: Path) -> dict[str, Any]:
    """Rules on the data of a sound run."""
    files = cache / "files" / job.key
    found = check_data(bench.split, files, bench.setup)
    return {"findings": [plain(one, 0) for one in found], "peers": peers_on_data(bench.split, files)}


def _with_anomaly(bench: Bench) -> str:
    """What PyTorch's own mode says: the operation that it names, empty where it is silent."""
    try:
        with torch.autograd.set_detect_anomaly(True):
            bench.run(Looker())
    except RuntimeError as error:
        bench.stopped = str(error)
        return str(error).partition("\n")[0][:200]
    return ""
