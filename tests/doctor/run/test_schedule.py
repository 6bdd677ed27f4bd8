"""Rates that never come down and momenta that remember too much, in real loops with PyTorch's schedulers."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.optim.lr_scheduler import (
    CosineAnnealingLR,
    CosineAnnealingWarmRestarts,
    CyclicLR,
    ExponentialLR,
    LambdaLR,
    OneCycleLR,
    ReduceLROnPlateau,
    StepLR,
)

from clearsight.doctor.run.record import Curve, RunRecord
from clearsight.doctor.run.schedule import MomentumTooLong, RateStillRising
from clearsight.doctor.watch import Watch


def train(plan=None, *, steps=240, stop=None, budget=240, optimizer=None, every=50, rules=None, recipe=None):
    """A loop of `stop` steps that watches itself; `plan` makes its scheduler, `every` the steps between its calls."""
    model = nn.Linear(3, 1)
    optimizer = (optimizer or (lambda p: torch.optim.SGD(p, 0.01, momentum=0.9)))(model.parameters())
    scheduler = None if plan is None else plan(optimizer)
    rules = [RateStillRising(), MomentumTooLong()] if rules is None else rules
    about = RunRecord(recipe=recipe or {})
    told = []
    with Watch(
        model, optimizer, budget=budget, about=about, every=every, rules=rules,
        on_finding=lambda one: told.append((watch.record().steps, one)),
    ) as watch:  # fmt: skip
        for _ in range(stop or steps):
            optimizer.zero_grad()
            loss = model(torch.randn(8, 3)).square().mean()
            loss.backward()
            optimizer.step()
            watch.step(loss)
            if scheduler is not None:
                scheduler.step(*([loss.item()] if isinstance(scheduler, ReduceLROnPlateau) else []))
    return told


def warmup(share, steps=240):
    return lambda o: LambdaLR(o, lambda step: min(1.0, (step + 1) / (share * steps)))


SOUND = {
    "constant": None,
    "cosine": lambda o: CosineAnnealingLR(o, 240),
    "step": lambda o: StepLR(o, 100),
    "plateau": lambda o: ReduceLROnPlateau(o, patience=3),
    "one-cycle": lambda o: OneCycleLR(o, 0.1, total_steps=241),
    "exponential": lambda o: ExponentialLR(o, 0.99),
    "restarts": lambda o: CosineAnnealingWarmRestarts(o, 80),
    "a cycle that ends at its top": lambda o: CyclicLR(o, 0.001, 0.1, step_size_up=80, cycle_momentum=False),
    "warm-up of three fifths": warmup(0.6),
    "warm-up of seven tenths": warmup(0.7),
    "a gentle rise": lambda o: LambdaLR(o, lambda step: 1 + 0.3 * step / 240),
}


@pytest.mark.parametrize("name", SOUND)
def test_plans_that_fit_are_silent(name) -> None:
    assert train(SOUND[name]) == []


@pytest.mark.parametrize(
    "plan",
    [
        warmup(1.0),
        warmup(20.0),  # counted in epochs, stepped as if in steps
        lambda o: LambdaLR(o, lambda step: 30.0 ** (step / 240)),
        lambda o: LambdaLR(o, lambda step: (1 + step // 40) / 20),  # a warm-up of 20 epochs in a run of 6
    ],
    ids=["all of the run", "beyond its end", "exponential", "in stairs"],
)
def test_a_rate_that_rises_to_the_end_is_told_from_nine_tenths_on(plan) -> None:
    told = train(plan)
    assert [(one.id, one.severity, one.evidence["row"]) for _, one in told] == [("rate-still-rising", "warning", "T8")]
    assert 216 <= told[0][0] < 226
    assert told[0][1].remedy == {}


def test_a_run_that_ends_early_is_not_judged_and_one_without_a_plan_only_at_its_end() -> None:
    assert train(warmup(1.0), stop=150) == []
    assert [steps for steps, _ in train(warmup(1.0), budget=None)] == [240]
    assert train(warmup(1.0, steps=49), steps=49, budget=None) == []
    rates = Curve.of(np.arange(1, 101), np.linspace(0.01, 1, 100))
    rule = RateStillRising()
    assert "end of a run" in rule.lacks(RunRecord(lr=rates))
    assert not rule.lacks(RunRecord(lr=rates, finished=True))


def test_logs_with_few_or_odd_rates_are_silent(odd_records) -> None:
    rule = RateStillRising()
    for entries in (Curve.of([50, 100], [0.1, 1]), Curve.of(np.arange(60, 101), np.arange(41) / 41 + 0.1)):
        assert rule.lacks(RunRecord(lr=entries, finished=True))
    body_frozen_first = Curve.of(np.arange(1, 101), np.maximum(0, np.arange(1, 101) - 60))
    assert not list(rule.check(RunRecord(lr=body_frozen_first, finished=True)))
    for record in odd_records:
        curves = RunRecord(lr=record.loss, budget=record.budget, finished=record.finished)
        if not rule.lacks(curves):
            list(rule.check(curves))


def test_a_recipe_is_told_how_the_rate_comes_down() -> None:
    for plan, wanted in (
        ({"name": "constant", "warmup": 0.95}, {"schedule.name": "cosine", "schedule.warmup": 0.05}),
        ({"name": "rising", "warmup": 0.0}, {"schedule.name": "cosine"}),
        ({"name": "cosine", "warmup": 0.95}, {"schedule.warmup": 0.05}),
    ):
        assert train(warmup(1.0), recipe={"schedule": plan})[0][1].remedy == wanted


def sgd(momentum):
    return lambda parameters: torch.optim.SGD(parameters, 1e-3, momentum=momentum)


@pytest.mark.parametrize(
    ("optimizer", "budget", "found"),
    [
        (sgd(0.99), 190, True),
        (sgd(0.9), 240, False),
        (sgd(0.99), 201, False),
        (sgd(0.0), 240, False),
        (sgd(0.9), 12, False),
        (sgd(0.99), None, False),
        (lambda p: torch.optim.AdamW(p, 1e-3, betas=(0.995, 0.999)), 240, True),
        (lambda p: torch.optim.Adam(p, 1e-3), 240, False),
        (lambda p: torch.optim.Adagrad(p, 1e-3), 240, False),
    ],
)
def test_a_momentum_that_remembers_half_of_the_run(optimizer, budget, found) -> None:
    told = train(optimizer=optimizer, budget=budget, stop=12)
    assert [(one.id, one.severity) for _, one in told] == [("momentum-too-long", "warning")] * found
    if found:
        assert told[0][0] <= math.ceil(budget / 50)


def test_of_a_cycled_momentum_the_lowest_counts() -> None:
    def plan(optimizer):
        return OneCycleLR(optimizer, 0.1, total_steps=301, base_momentum=0.85, max_momentum=0.995)

    told = train(plan, steps=300, budget=300)
    assert [steps for steps, _ in told] == [6]  # told as long as nothing lower was seen
    silent = RunRecord(budget=300, facts={"momentum": 0.85})
    assert not list(MomentumTooLong().check(silent))


@pytest.mark.parametrize(
    ("recipe", "found", "remedy"),
    [
        ({"name": "momentum", "momentum": 0.99}, True, {"optimizer.momentum": 0.9}),
        ({"name": "adamw", "momentum": 0.99, "betas": [0.9, 0.999]}, False, {}),
        ({"name": "adamw", "momentum": 0.9, "betas": [0.99, 0.999]}, True, {"optimizer.betas": [0.9, 0.999]}),
        ({"name": "momentum", "momentum": 0.9}, False, {}),
    ],
)
def test_logs_of_others_have_the_momentum_of_the_recipe(recipe, found, remedy) -> None:
    rule, record = MomentumTooLong(), RunRecord(budget=150, recipe={"optimizer": recipe})
    assert rule.lacks(record) == ""
    assert [one.remedy for one in rule.check(record)] == [remedy] * found
    long = RunRecord(budget=10_000, recipe={"optimizer": recipe})
    assert not list(rule.check(long))


def test_what_is_not_known_is_said() -> None:
    rule = MomentumTooLong()
    assert "planned" in rule.lacks(RunRecord(facts={"momentum": 0.99}))
    for recipe in ({}, {"optimizer": 3}, {"optimizer": {"name": "adam"}}, {"optimizer": {"name": "lbfgs"}}):
        assert "momentum" in rule.lacks(RunRecord(budget=100, recipe=recipe))
