"""Which runs there are, in parts of which each has data sets and architectures of its own.

Rules were first set on `tune`. Held-out figures, on what is now `second` and then on what is now `third`, led to
changes of them; `report` is looked at only after those.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from doctor_clean import clean_setups
from doctor_job import EVERY, Job
from doctor_scores import LOSS, data_key, first_named, loss_of, sides_of, twin_key
from doctor_setup import Setup, patched, resolved

__all__ = ["PARTS", "followers", "jobs_of"]

# Part → data sets, architectures, seeds of each fault and level, sound runs.
PARTS: dict[str, tuple[tuple[str, ...], tuple[str, ...], int, int]] = {
    "tune": (("digits", "signs", "membrane"), ("mlp", "cnn", "cnn_bn"), 2, 114),
    "second": (("mnist", "spoken", "cells"), ("resnet", "depthwise", "vit"), 3, 228),
    "third": (("nuclei", "speakers", "fruits"), ("dense", "mixer", "next"), 3, 228),
    "report": (("turns", "parity", "places"), ("vgg", "inception", "rows"), 3, 228),
}

# Part → what its sound runs are drawn by, where that is not its name: `second` was `report` once, and then `third` was.
DRAWN_BY = {"second": "report", "third": "held out", "report": "held out anew"}

# Two faults at once, of which either may be named first.
DOUBLES: tuple[tuple[tuple[str, float], tuple[str, float]], ...] = (
    (("rate-high", 100), ("label-noise", 0.3)),
    (("rate-low", 1e-3), ("imbalance", 50)),
    (("unshuffled", 1), ("label-noise", 0.15)),
    (("softmax-before-ce", 1), ("rate-low", 1e-2)),
    (("not-cleared", 1), ("input-offset", 10)),
    (("validation-leak", 0.5), ("dropout-high", 0.9)),
    (("head-left-out", 1), ("labels-shuffled", 1)),
    (("input-255", 255), ("init-large", 10)),
    (("imbalance", 50), ("slow-loader", 0.025)),
    (("samples-mixed", 1), ("rate-jumps", 30)),
)


def jobs_of(part: str, *, only: str = "", quick: bool = False) -> list[Job]:
    """Runs of a part, without those that follow from others.

    Args:
        part: key of `PARTS`.
        only: of this fault alone.
        quick: a handful of each kind.
    """
    sets, nets, seeds, sound = PARTS[part]
    jobs = [*_faulty(part, seeds, only), *([] if only else _doubles(part))]
    if not only:
        clean = [
            Job(key=f"{part}-clean-{number:03d}-{_slug(name)}", kind="clean", part=part, setup=setup)
            for number, (name, setup) in enumerate(clean_setups(DRAWN_BY.get(part, part), sets, nets, sound))
        ]
        jobs += clean
    if quick:
        jobs = [*jobs[:: max(1, len(jobs) // 8)]][:10]
    jobs += _twins(part, jobs)
    return jobs if only or quick else jobs + _data(part, jobs)


def _faulty(part: str, seeds: int, only: str) -> Iterable[Job]:
    sets, nets, _, _ = PARTS[part]
    for place, (name, fault) in enumerate(EVERY.items()):
        if only and name != only:
            continue
        pairs = [
            (data, net) for data in sets for net in nets if data in (fault.sets or sets) and net in (fault.nets or nets)
        ]
        for rank, level in enumerate(fault.levels):
            for seed in range(seeds if pairs else 0):
                data, net = pairs[(7 * place + 5 * rank + 4 * seed) % len(pairs)]
                key = f"{part}-{name}-{level:g}-{data}-{net}-{seed}"
                setup = resolved(Setup(data=data, net=net, seed=seed))
                yield Job(key=key, kind="fault", part=part, setup=setup, faults=((name, level),))
                if fault.spot is not None:
                    key = f"anomaly-{key}"
                    yield Job(key=key, kind="anomaly", part=part, setup=setup, faults=((name, level),))


def _doubles(part: str) -> Iterable[Job]:
    sets, nets, _, _ = PARTS[part]
    for number, pair in enumerate(DOUBLES):
        data, net = sets[number % 3], nets[(number // 3) % 3]
        setup = resolved(Setup(data=data, net=net, seed=number % 3))
        key = f"{part}-double-{pair[0][0]}-{pair[1][0]}-{data}-{net}"
        yield Job(key=key, kind="double", part=part, setup=setup, faults=pair)


def _twins(part: str, jobs: Iterable[Job]) -> list[Job]:
    """The unvaried run of each data set, architecture and seed that is in use."""
    found: dict[str, Job] = {}
    for job in jobs:
        base = resolved(Setup(data=job.setup.data, net=job.setup.net, seed=job.setup.seed))
        key = twin_key({"part": part, "own": base.as_dict()})
        found.setdefault(key, Job(key=key, kind="twin", part=part, setup=base))
    return list(found.values())


def _data(part: str, jobs: Iterable[Job]) -> list[Job]:
    """One look at the data of sound runs, for all that share them."""
    found: dict[str, Job] = {}
    for job in jobs:
        if job.kind == "clean":
            key = data_key({"part": part, "own": job.setup.as_dict()})
            found.setdefault(key, Job(key=key, kind="data", part=part, setup=job.setup))
    return list(found.values())


def _slug(name: str) -> str:
    return "".join(one if one.isalnum() else "-" for one in name)


# ------------------------------------------------------------------------------------------------ what follows
def followers(rows: Mapping[str, Mapping[str, Any]], part: str) -> list[Job]:
    """Runs with the first remedy, of faulty runs that cost score and whose first finding has a knob.

    Args:
        rows: what is known, by key.
        part: key of `PARTS`.
    """
    jobs = []
    for row in sides_of(rows, part).faulty:
        first = first_named(row["findings"], row["onset"])
        if row["kind"] != "fault" or first is None or not loss_of(row, rows) >= LOSS:
            continue
        before, own = _setup(row["setup"]), _setup(row["own"])
        after = patched(before, first)
        if after is None:
            continue
        was = before.as_dict()
        patch = tuple((name, value) for name, value in after.as_dict().items() if value != was[name])
        faults = tuple((name, level) for name, level in row["faults"])
        key = f"remedy-{row['key']}"
        jobs.append(Job(key=key, kind="remedy", part=part, setup=own, faults=faults, patch=patch, of=row["key"]))
    return jobs


def _setup(values: Mapping[str, Any]) -> Setup:
    """From plain values, as JSON gives them back."""
    return Setup(**{**values, "augment": tuple(values["augment"])})
