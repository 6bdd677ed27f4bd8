from __future__ import annotations

import pytest
import torch
from torch.optim import lr_scheduler

from clearsight.recipe.schema import ScheduleConfig
from clearsight.train.schedule import Schedule, schedule_factor

STEPS = 41


def ours(config: ScheduleConfig) -> list[float]:
    return [schedule_factor(config, step / (STEPS - 1)) for step in range(STEPS)]


def theirs(build, lr: float = 1.0) -> list[float]:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=lr)
    scheduler = build(optimizer)
    rates = []
    for _ in range(STEPS):
        rates.append(optimizer.param_groups[0]["lr"] / lr)
        optimizer.step()
        scheduler.step()
    return rates


def test_constant():
    assert ours(ScheduleConfig(name="constant", warmup=0.0)) == [1.0] * STEPS


def test_linear_equals_torch():
    config = ScheduleConfig(name="linear", warmup=0.0, final=0.1)
    expected = theirs(lambda o: lr_scheduler.LinearLR(o, 1.0, 0.1, total_iters=STEPS - 1))
    assert ours(config) == pytest.approx(expected, rel=1e-6)


def test_cosine_equals_torch():
    config = ScheduleConfig(name="cosine", warmup=0.0, final=0.05)
    expected = theirs(lambda o: lr_scheduler.CosineAnnealingLR(o, STEPS - 1, eta_min=0.05))
    assert ours(config) == pytest.approx(expected, rel=1e-6)


def test_cosine_after_warm_up_equals_torch_in_sequence():
    config = ScheduleConfig(name="cosine", warmup=0.25, warmup_start=0.2, final=0.0)
    rise = round(0.25 * (STEPS - 1))

    def build(optimizer):
        first = lr_scheduler.LinearLR(optimizer, 0.2, 1.0, total_iters=rise)
        second = lr_scheduler.CosineAnnealingLR(optimizer, STEPS - 1 - rise)
        return lr_scheduler.SequentialLR(optimizer, [first, second], milestones=[rise])

    assert ours(config) == pytest.approx(theirs(build), rel=1e-6, abs=1e-9)


def test_step_equals_torch():
    config = ScheduleConfig(name="step", warmup=0.0, milestones=(0.25, 0.75), gamma=0.1)
    expected = theirs(lambda o: lr_scheduler.MultiStepLR(o, [10, 30], gamma=0.1))
    assert ours(config) == pytest.approx(expected, rel=1e-6)


def test_one_cycle_equals_torch():
    config = ScheduleConfig(name="one_cycle", warmup=0.3, warmup_start=0.04, final=0.004)
    share = (0.3 * (STEPS - 1) + 1) / STEPS  # torch has its peak at step pct_start * total_steps - 1
    assert ours(config) == pytest.approx(theirs_one_cycle(share), rel=1e-6)


def theirs_one_cycle(share: float) -> list[float]:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = lr_scheduler.OneCycleLR(
        optimizer, max_lr=1.0, total_steps=STEPS, pct_start=share, div_factor=25, final_div_factor=10,
        cycle_momentum=False,
    )  # fmt: skip
    rates = [optimizer.param_groups[0]["lr"]]
    for _ in range(STEPS - 1):
        optimizer.step()
        scheduler.step()
        rates.append(optimizer.param_groups[0]["lr"])
    return rates


def test_plateau_equals_torch():
    scores = [0.1, 0.3, 0.3, 0.2, 0.29, 0.31, 0.3, 0.3, 0.3, 0.3, 0.3, 0.5, 0.4]
    schedule = Schedule(ScheduleConfig(name="plateau", warmup=0.0, patience=2, gamma=0.5))
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    reference = lr_scheduler.ReduceLROnPlateau(optimizer, mode="max", factor=0.5, patience=2, threshold=0.0)
    factors = []
    for score in scores:
        schedule.see(score)
        reference.step(score)
        factors.append(schedule.factor(0.5))
        assert factors[-1] == optimizer.param_groups[0]["lr"]
    assert factors[-1] < 1.0  # it was lowered at all


def test_plateau_counts_nan_as_no_improvement_and_its_state_goes_on():
    config = ScheduleConfig(name="plateau", warmup=0.0, patience=1, gamma=0.5)
    schedule = Schedule(config)
    schedule.see(0.5)
    schedule.see(float("nan"))
    other = Schedule(config)
    other.load_state_dict(schedule.state_dict())
    other.see(0.4)
    assert other.factor(0.9) == 0.5


@pytest.mark.parametrize("name", ["constant", "step", "linear", "cosine", "one_cycle", "plateau"])
def test_bounds(name):
    config = ScheduleConfig(name=name, warmup=0.1, warmup_start=0.01, final=0.02)
    factors = ours(config)
    assert factors[0] == pytest.approx(0.01)
    assert all(0 <= f <= 1 for f in factors)
    assert max(factors) == pytest.approx(1.0, abs=0.01)
    if name in ("linear", "cosine", "one_cycle"):
        assert factors[-1] == pytest.approx(0.02)
    assert schedule_factor(config, 1.7) == schedule_factor(config, 1.0)  # a clock can overrun


def test_other_schedules_ignore_evaluations():
    schedule = Schedule(ScheduleConfig(name="constant", warmup=0.0, patience=1))
    for _ in range(9):
        schedule.see(0.0)
    assert schedule.factor(0.5) == 1.0
