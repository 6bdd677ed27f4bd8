from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from clearsight.doctor.model.gradient_check import WrongGradient


def found(evidence):
    return list(WrongGradient().check(evidence))


def test_sound_networks_are_quiet(sound, evidence_of):
    assert found(evidence_of(sound)) == []
    assert all(parameter.dtype == torch.float32 for parameter in sound.parameters())


class Times(torch.autograd.Function):
    """The identity, with a backward pass by hand that is `factor` times the right one."""

    @staticmethod
    def forward(ctx, x, factor):  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx.factor = factor
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):  # pyright: ignore[reportIncompatibleMethodOverride]
        return gradient * ctx.factor, None


class ByHand(nn.Module):
    def __init__(self, factor, *, single=False):
        super().__init__()
        self.first, self.last = nn.Linear(64, 32), nn.Linear(32, 10)
        self.factor, self.single = factor, single

    def forward(self, x):
        hidden = Times.apply(torch.tanh(self.first(x.flatten(1))), self.factor)
        scores = self.last(hidden)
        return scores.float() if self.single else scores


@pytest.mark.parametrize(
    ("factor", "single", "kind"),
    [(1.0, False, None), (1.0, True, None), (1.05, False, "float64"), (-1.0, False, "float64"), (1.5, True, "float32")],
)
def test_a_backward_pass_by_hand(evidence_of, factor, single, kind):
    findings = found(evidence_of(ByHand(factor, single=single)))
    assert [one.evidence["type"] for one in findings] == ([] if kind is None else [kind])
    for finding in findings:
        assert (finding.severity, finding.where, finding.evidence["row"]) == ("warning", "first", "P7")
        assert finding.evidence["parameters"] == ["first.weight", "first.bias"]


class Stopped(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(64, 32), nn.Linear(32, 10)

    def forward(self, x):
        return self.last(self.first(x.flatten(1)).relu().detach())


def test_a_part_that_is_cut_off(evidence_of):
    (finding,) = found(evidence_of(Stopped()))
    assert finding.where == "first"


def test_a_random_loss_is_left_alone(mlp, evidence_of):
    state = torch.Generator().manual_seed(0)

    def noisy(m, x, t):
        return F.cross_entropy(m(x + torch.randn(x.shape, generator=state)), t)

    assert found(evidence_of(mlp, loss=noisy)) == []


def test_a_kink_is_left_alone(evidence_of):
    """A ReLU of exactly 0 has the slope 0, and differences see half of the one above."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    nn.init.zeros_(model[1].weight)
    nn.init.zeros_(model[1].bias)
    assert found(evidence_of(model, loss=lambda m, x, t: 1 + m(x).relu().sum() + m(x).sum())) == []


class Rounded(torch.autograd.Function):
    """Rounds, and lets gradients through as if it did not, as quantisation does on purpose."""

    @staticmethod
    def forward(ctx, x, levels):  # pyright: ignore[reportIncompatibleMethodOverride]
        return (x * levels).round() / levels

    @staticmethod
    def backward(ctx, gradient):  # pyright: ignore[reportIncompatibleMethodOverride]
        return gradient, None


@pytest.mark.parametrize("levels", [10.0, 1e6, 2e6, 4e6])
def test_rounding_on_purpose_is_left_alone(mlp, evidence_of, levels):
    assert found(evidence_of(mlp, loss=lambda m, x, t: F.cross_entropy(Rounded.apply(m(x), levels), t))) == []


def test_targets_and_images_of_other_types(mlp, evidence_of):
    evidence = evidence_of(mlp)
    evidence.targets = F.one_hot(evidence.targets, 10).float()
    assert found(evidence) == []

    def steps(m, x, t):
        return F.mse_loss(m(x), t).float()  # float32 all the way

    assert found(evidence_of(mlp, targets=evidence.targets, loss=steps)) == []


def test_detectors_are_not_asked(mlp, evidence_of):
    assert "depend on the predictions" in WrongGradient().lacks(evidence_of(mlp, task="detection"))
