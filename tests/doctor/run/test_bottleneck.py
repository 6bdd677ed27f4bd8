"""Waiting for data and growing memory."""

from __future__ import annotations

import numpy as np
import pytest

from clearsight.doctor.run.bottleneck import MIB, GrowingMemory, LoaderBound
from clearsight.doctor.run.record import Curve, RunRecord

STEPS = np.arange(1, 201)


def waits(share: float, seconds: float = 0.1, **more: object) -> RunRecord:
    rng = np.random.default_rng(0)
    whole = seconds * rng.uniform(0.8, 1.2, len(STEPS))
    waiting = whole * np.clip(rng.normal(share, 0.05, len(STEPS)), 0, 1)
    return RunRecord(seconds=Curve.of(STEPS, whole), waiting=Curve.of(STEPS, waiting), **more)  # pyright: ignore


@pytest.mark.parametrize(
    ("share", "seconds", "severities"),
    [(0.15, 0.1, []), (0.3, 0.1, ["info"]), (0.6, 0.1, ["warning"]), (0.6, 0.003, ["info"])],
)
def test_waiting(share: float, seconds: float, severities: list[str]) -> None:
    assert [one.severity for one in LoaderBound().check(waits(share, seconds))] == severities


def test_the_remedy_fits_the_recipe() -> None:
    kept = waits(0.6, recipe={"loader": {"cache": "none", "workers": 1}})
    assert next(iter(LoaderBound().check(kept))).remedy == {"loader.cache": "ram"}
    workers = waits(0.6, recipe={"loader": {"cache": "ram", "workers": 1}})
    assert next(iter(LoaderBound().check(workers))).remedy == {"loader.workers": 2}


def test_a_slow_start_is_forgiven() -> None:
    waiting = np.where(STEPS < 20, 0.5, 0.001)
    record = RunRecord(seconds=Curve.of(STEPS, waiting + 0.1), waiting=Curve.of(STEPS, waiting))
    assert not list(LoaderBound().check(record))


def test_memory_that_grows_to_the_end() -> None:
    rng = np.random.default_rng(0)
    leak = Curve.of(STEPS, 1000 * MIB + STEPS * 4.0 * MIB + rng.normal(0, 2 * MIB, len(STEPS)))
    found = list(GrowingMemory().check(RunRecord(memory=leak, loss=leak, budget=1000)))
    assert [one.id for one in found] == ["growing-memory"]
    assert found[0].evidence["mib_per_1000_steps"] == pytest.approx(4000, rel=0.05)


@pytest.mark.parametrize("kind", ["fills", "level", "slow"])
def test_memory_that_levels_off(kind: str) -> None:
    rng = np.random.default_rng(0)
    shapes = {
        "fills": 1000 * (1 - np.exp(-STEPS / 20)),
        "level": np.zeros(len(STEPS)),
        "slow": STEPS * 0.05,
    }
    memory = Curve.of(STEPS, (1000 + shapes[kind] + rng.normal(0, 5, len(STEPS))) * MIB)
    assert not list(GrowingMemory().check(RunRecord(memory=memory, loss=memory, budget=1000)))


def test_what_is_lacking_is_said() -> None:
    assert LoaderBound().lacks(RunRecord())
    assert GrowingMemory().lacks(RunRecord())
