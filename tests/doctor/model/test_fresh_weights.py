"""Weights as usual rules draw them, and after some steps of training."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import nn

from clearsight.doctor.model.fresh_weights import fresh_parameters, is_fresh, looks_drawn

RULES = {
    "PyTorch's own": lambda w: nn.init.kaiming_uniform_(w, a=5**0.5),
    "Kaiming, uniform": lambda w: nn.init.kaiming_uniform_(w, nonlinearity="relu"),
    "Kaiming, normal": lambda w: nn.init.kaiming_normal_(w, nonlinearity="relu"),
    "Kaiming, by outputs": lambda w: nn.init.kaiming_normal_(w, mode="fan_out", nonlinearity="relu"),
    "Glorot, uniform": nn.init.xavier_uniform_,
    "Glorot, normal": nn.init.xavier_normal_,
    "Glorot, for tanh": lambda w: nn.init.xavier_uniform_(w, gain=nn.init.calculate_gain("tanh")),
    "cut off": lambda w: nn.init.trunc_normal_(w, std=0.02),
    "normal": lambda w: nn.init.normal_(w, std=0.01),
    "zeros": nn.init.zeros_,
}


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("shape", [(10, 16), (64, 64), (16, 3, 3, 3), (32, 1, 3, 3), (128, 64, 3, 3)])
def test_usual_rules_are_known(rule, shape):
    for seed in range(5):
        torch.manual_seed(seed)
        weight = torch.empty(shape)
        RULES[rule](weight)
        assert is_fresh(weight)


@pytest.mark.parametrize("rule", [name for name in RULES if name != "zeros"])
@pytest.mark.parametrize(
    "change",
    [
        lambda w: 2.6 * w,
        lambda w: w + 0.3 * w.std(),
        lambda w: w.abs().sqrt() * w.sign(),
        lambda w: w * torch.where(torch.rand(w.shape) < 0.1, 4.0, 0.8),  # some grow, the rest decays
        lambda w: torch.where(torch.rand(w.shape) < 0.3, 0.0, w),  # pruned
    ],
)
def test_others_are_not(rule, change):
    torch.manual_seed(0)
    weight = torch.empty(96, 64)
    RULES[rule](weight)
    assert not is_fresh(change(weight))


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v2", "densenet121", "shufflenet_v2_x0_5"])
def test_networks_as_they_are_built(name):
    found = fresh_parameters(getattr(torchvision.models, name)(num_classes=10))
    assert len(found) > 30
    assert all(found.values())


def test_a_few_steps_of_training_are_seen(sound, evidence_of):
    """By the body, as a frozen one is asked; whatever lies in layers too small to be judged."""
    evidence = evidence_of(sound)
    assert all(fresh_parameters(sound).values())
    optimizer = torch.optim.Adam(sound.parameters(), lr=3e-3)
    for _ in range(30):
        optimizer.zero_grad()
        F.cross_entropy(sound(evidence.images), evidence.targets).backward()
        optimizer.step()
    found = fresh_parameters(sound)
    assert sum(not fresh for fresh in found.values()) >= len(found) / 2


def test_statistics_of_a_norm_tell():
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8))
    assert set(fresh_parameters(model)) == {"0.weight", "0.bias", "1.weight", "1.bias"}
    assert all(fresh_parameters(model).values())
    model(torch.randn(4, 3, 8, 8))
    assert [name for name, fresh in fresh_parameters(model).items() if not fresh] == ["1.weight", "1.bias"]


def test_what_is_not_judged():
    class Odd(nn.Module):
        def __init__(self):
            super().__init__()
            self.place, self.small = nn.Parameter(torch.rand(1, 50, 8)), nn.Linear(4, 2)

    assert fresh_parameters(Odd()) == {}


@pytest.mark.parametrize("size", [1e-3, 0.3, 40.0])
def test_what_is_drawn_looks_so_at_any_size(size):
    torch.manual_seed(0)
    for values in (
        torch.randn(64, 32),
        torch.rand(64, 32) * 2 - 1,
        nn.init.trunc_normal_(torch.empty(64, 32), a=-2, b=2),
    ):
        assert looks_drawn(size * values)
    assert not looks_drawn(size * torch.randn(64, 32) ** 3)
    assert not looks_drawn(torch.full((64, 32), size))
