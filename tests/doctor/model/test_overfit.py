from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from clearsight.doctor.model.dependence import ImagesNotLearned
from clearsight.doctor.model.overfit import CannotOverfit, overfit


def found(evidence, **limits):
    return list(CannotOverfit(**limits).check(evidence))


def test_sound_networks_learn_a_few_images_by_heart(sound, evidence_of):
    evidence = evidence_of(sound)
    before = {name: value.clone() for name, value in sound.state_dict().items()}
    assert found(evidence) == []
    assert list(ImagesNotLearned().check(evidence)) == []  # which reads the same probe
    probe = overfit(evidence)
    assert probe.reached
    assert probe.accuracy == 1
    assert sum(probe.swapped) > sum(probe.real)
    assert probe.last <= 0.05 * probe.first
    assert all(torch.equal(before[name], value) for name, value in sound.state_dict().items())


def test_one_probe_serves_all_rules(mlp, evidence_of):
    evidence = evidence_of(mlp)
    assert overfit(evidence) is overfit(evidence)
    assert overfit(evidence, images=4).images == 4


@pytest.mark.parametrize("smoothing", [0.1, 0.3, 0.6, 0.9])
def test_smoothed_labels_leave_their_entropy(cnn_bn, evidence_of, smoothing):
    evidence = evidence_of(cnn_bn, loss=lambda m, x, t: F.cross_entropy(m(x), t, label_smoothing=smoothing))
    assert found(evidence) == []
    assert overfit(evidence).floor > 0.4
    assert overfit(evidence).last > overfit(evidence).floor


def test_mixed_labels_leave_theirs(cnn_bn, evidence_of):
    evidence = evidence_of(cnn_bn)
    evidence.targets = F.one_hot(evidence.targets, 10) * 0.7 + F.one_hot(evidence.targets.roll(1), 10) * 0.3
    probe = overfit(evidence)
    assert probe.floor == pytest.approx(-(0.7 * math.log(0.7) + 0.3 * math.log(0.3)), abs=0.1)
    assert probe.reached


def test_dropout_does_not_hinder(evidence_of):
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 64), nn.ReLU(), nn.Dropout(0.7), nn.Linear(64, 10))
    assert found(evidence_of(model)) == []


class Cut(nn.Module):
    """The input does not reach the scores, as they are taken from zeros."""

    def __init__(self):
        super().__init__()
        self.last = nn.Linear(64, 10)

    def forward(self, x):
        return self.last(x.flatten(1) * 0)


class Detached(nn.Module):
    """Only the last bias is trained, the rest has no gradient."""

    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(64, 32), nn.Linear(32, 10)

    def forward(self, x):
        return F.linear(self.first(x.flatten(1)).relu().detach(), self.last.weight.detach(), self.last.bias)


def dead(cnn):
    """No image comes through, but it would with other weights."""
    cnn[0].bias.data.fill_(-100)
    return cnn


@pytest.mark.parametrize(
    ("fault", "because"),
    [
        (lambda cnn: Cut(), "input-ignored"),
        (dead, "images-not-learned"),
        (lambda cnn: Detached(), ""),
        (lambda cnn: nn.Sequential(cnn, nn.Softmax(1)), ""),
    ],
    ids=["input cut off", "dead units", "no gradient", "two softmaxes"],
)
def test_what_cannot_learn(cnn, evidence_of, fault, because):
    (finding,) = found(evidence_of(fault(cnn), number=16), steps=120)
    assert (finding.severity, finding.evidence["row"], finding.because) == ("warning", "P4", because)
    assert finding.evidence["last"] > finding.evidence["threshold"]
    assert "120 steps and 20 s" in finding.explanation


def test_a_loss_that_hangs_on_no_weight(mlp, evidence_of):
    (finding,) = found(evidence_of(mlp, loss=lambda m, x, t: F.cross_entropy(m(x).detach(), t)))
    assert finding.severity == "warning"


def test_other_tasks_have_to_halve_their_loss(mlp, evidence_of):
    def rest(m, x, t):
        return 0.4 + F.cross_entropy(m(x), t) / math.log(10)

    assert found(evidence_of(mlp, task="detection", loss=rest)) == []
    assert [one.severity for one in found(evidence_of(mlp, loss=rest), steps=100)] == ["info"]


def test_a_run_that_is_cut_short_is_no_evidence(mlp, evidence_of):
    evidence = evidence_of(mlp)
    assert found(evidence, seconds=1e-4) == []
    probe = overfit(evidence, seconds=1e-4)
    assert not probe.complete
    assert probe.images == 2


def test_what_it_needs(mlp, evidence_of):
    assert CannotOverfit().lacks(evidence_of(mlp, number=1)) == "a batch of two images"
    assert CannotOverfit().lacks(evidence_of(mlp.requires_grad_(False))) == "parameters to train"
