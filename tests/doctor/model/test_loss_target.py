from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from clearsight.doctor.model.loss_target import LossTargetMismatch


def found(evidence):
    return list(LossTargetMismatch().check(evidence))


def test_sound_networks_are_quiet(sound, evidence_of):
    assert found(evidence_of(sound)) == []


def test_labels_outside_the_classes(cnn, evidence_of):
    evidence = evidence_of(cnn)
    evidence.targets += 1
    (finding,) = found(evidence)
    assert finding.severity == "error"
    assert finding.evidence["outside"] == [10]
    assert "start at 1" in finding.explanation
    evidence.targets -= 3
    assert found(evidence)[0].evidence["outside"] == [-2, -1]


def test_one_value_that_the_loss_ignores_is_no_fault(cnn, evidence_of):
    evidence = evidence_of(cnn, loss=lambda m, x, t: F.cross_entropy(m(x), t, ignore_index=-1))
    evidence.targets[:3] = -1
    assert found(evidence) == []
    evidence = evidence_of(cnn)
    evidence.targets[:3] = -100  # PyTorch's own
    assert found(evidence) == []
    evidence.targets[:3] = -1  # and this raises
    assert len(found(evidence)) == 1


def test_probabilities_that_do_not_add_up(cnn, evidence_of):
    several = torch.zeros(32, 10)
    several[:, :2] = 1
    (finding,) = found(evidence_of(cnn, targets=several))
    assert "add up to 2 … 2" in finding.explanation
    assert found(evidence_of(cnn, targets=several / 2)) == []
    of_each = evidence_of(
        cnn,
        targets=several.roll(1, 0).mul(torch.rand(32, 10).round()),
        loss=lambda m, x, t: F.binary_cross_entropy_with_logits(m(x), t),
    )
    assert found(of_each) == []


@pytest.mark.parametrize(("factor", "count"), [(1.0, 0), (255.0, 1)])
def test_targets_of_yes_or_no_outside_of_their_range(cnn, evidence_of, factor, count):
    evidence = evidence_of(cnn, loss=lambda m, x, t: F.binary_cross_entropy_with_logits(m(x), t))
    evidence.targets = F.one_hot(evidence.targets, 10) * factor
    assert len(found(evidence)) == count


def test_a_softmax_over_one_output(evidence_of):
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 1))
    labels = torch.arange(32) % 2
    with_softmax = nn.Sequential(*model, nn.Softmax(dim=1))
    evidence = evidence_of(
        with_softmax, targets=labels.float(), loss=lambda m, x, t: F.binary_cross_entropy(m(x)[:, 0], t)
    )
    assert "one output" in found(evidence)[0].explanation
    alone = evidence_of(model, targets=torch.zeros(32, dtype=torch.int64))
    assert "one output" in found(alone)[0].explanation
    sigmoid = evidence_of(
        model, targets=labels.float(), loss=lambda m, x, t: F.binary_cross_entropy_with_logits(m(x)[:, 0], t)
    )
    assert found(sigmoid) == []


def test_every_output_against_every_target(evidence_of):
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 1))
    crossed = evidence_of(model, targets=torch.randn(32), loss=lambda m, x, t: (m(x) - t).square().mean())
    assert "pairs every output with every target" in found(crossed)[0].explanation


def test_labels_that_change_nothing(mlp, evidence_of):
    nn.init.zeros_(mlp[-1].weight)
    nn.init.zeros_(mlp[-1].bias)
    assert found(evidence_of(mlp)) == []  # all outputs alike at the start are no fault
    (finding,) = found(evidence_of(mlp, loss=lambda m, x, t: F.cross_entropy(m(x), m(x).argmax(1))))
    assert "does not look at them" in finding.explanation
    same = evidence_of(mlp)
    same.targets[:] = 4
    assert found(same) == []  # nothing to exchange


def test_it_needs_targets(mlp, evidence_of):
    assert LossTargetMismatch().lacks(evidence_of(mlp, targets=None)) == "no targets"
