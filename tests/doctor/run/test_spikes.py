"""Single losses that stand out: found with their batch, told from the natural noise of tiny batches."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from clearsight.doctor.rule import examine
from clearsight.doctor.run.record import Curve, RunRecord
from clearsight.doctor.run.spikes import LossSpike, note_batch

RULES = (LossSpike(),)


def with_spikes(height: float, *at: int) -> RunRecord:
    values = 0.1 + 2.2 * np.exp(-np.arange(400) / 50) + np.random.default_rng(0).normal(0, 0.02, 400)
    values[list(at)] = height
    classes = tuple("0123456789")
    return RunRecord(
        loss=Curve.of(np.arange(1, 401), values), task="classification", classes=classes, steps_per_epoch=50
    )


def test_a_spike_is_named_with_its_batch() -> None:
    (found,) = examine(RULES, replace(with_spikes(30, 205, 299), facts={"batches": {206: ["a.png"]}})).findings
    assert (found.severity, found.evidence["steps"], found.evidence["count"]) == ("warning", [206, 300], 2)
    assert found.evidence["batches"] == [
        {"step": 206, "epoch": 5, "batch": 6, "images": ["a.png"]},
        {"step": 300, "epoch": 6, "batch": 50, "images": []},
    ]
    assert found.explanation.endswith("that batch (a.png).")


def test_names_are_kept_of_steps_that_stand_out() -> None:
    facts: dict[str, Any] = {}
    before = math.nan
    for step, loss in enumerate((1.0, 0.9, torch.tensor(2.8), 0.8, 0.7, 0.9), start=1):
        before = note_batch(facts, step, loss, before, [f"{step}.png"])
    assert facts == {"batches": {"3": ["3.png"]}}
    for step in range(10, 410, 2):
        note_batch(facts, step, 30.0, 1.0, ["many.png"])
    assert len(facts["batches"]) == 100
    assert math.isnan(note_batch({}, 1, None, 1.0, []))


@pytest.mark.parametrize(("height", "severities"), [(1.1, []), (1.3, ["info"]), (6.5, ["info"]), (7.2, ["warning"])])
def test_the_height_decides(height: float, severities: list[str]) -> None:
    assert [finding.severity for finding in examine(RULES, with_spikes(height, 300)).findings] == severities


def test_what_does_not_come_back_is_no_spike() -> None:
    assert examine(RULES, with_spikes(30, *range(300, 400))).findings == []


def test_a_poisoned_batch_of_a_real_run_and_the_run_without_it(digits_run: Callable[..., RunRecord]) -> None:
    clean = digits_run(batch=4, epochs=3)
    assert examine(RULES, clean).passed == ("loss-spike",)
    poisoned = clean.loss.values.copy()
    poisoned[300] = 60.0
    (found,) = examine(RULES, replace(clean, loss=Curve(clean.loss.steps, poisoned))).findings
    assert (found.severity, found.evidence["worst_step"]) == ("warning", 301)


def test_odd_records(odd_records: list[RunRecord]) -> None:
    for odd in odd_records:
        assert [finding for finding in examine(RULES, odd).findings if finding.id == "rule-failed"] == []
