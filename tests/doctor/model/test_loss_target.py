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


# ------------------------------------------------------------------------------------------------ own scores
def weighted(m, x, t):
    return F.cross_entropy(m(x), t, weight=torch.linspace(0.1, 5, 10))


def focal(m, x, t):
    p = F.softmax(m(x), 1)[torch.arange(len(t)), t]
    return -((1 - p) ** 2 * p.log()).mean()


def in_order(m, x, t):
    """The squared distance of cumulative shares, for classes that have an order."""
    reached = F.softmax(m(x), 1).cumsum(1)
    return (reached - (torch.arange(10) >= t[:, None]).float()).square().sum(1).mean()


def expected(m, x, t):
    """Regression on the mean of the shares, as for ages."""
    return ((F.softmax(m(x), 1) * torch.arange(10)).sum(1) - t).square().mean()


def mixed(m, x, t):
    return 0.3 * F.cross_entropy(m(x), t) + 0.7 * F.cross_entropy(m(x), t.flip(0))


@pytest.mark.parametrize(
    ("loss", "count"),
    [
        (lambda m, x, t: F.mse_loss(m(x)[:, 0], t.float()), 1),
        (lambda m, x, t: F.smooth_l1_loss(m(x)[:, 0], t.float()), 1),
        (lambda m, x, t: F.mse_loss(m(x), t.float()[:, None].expand(-1, 10)), 1),
        (lambda m, x, t: F.l1_loss(m(x).sum(1), t.float()), 1),
        (weighted, 0),
        (focal, 0),
        (in_order, 0),
        (expected, 0),
        (mixed, 0),
        (lambda m, x, t: F.multi_margin_loss(m(x), t), 0),
        (lambda m, x, t: F.mse_loss(m(x), F.one_hot(t, 10).float()), 0),
        (lambda m, x, t: F.nll_loss(F.log_softmax(m(x) / 0.1, 1), t), 0),
        (lambda m, x, t: F.cross_entropy(F.softmax(m(x), 1), t), 0),
    ],
)
def test_ids_that_are_taken_for_numbers(sound, evidence_of, loss, count):
    findings = found(evidence_of(sound, loss=loss))
    assert len(findings) == count
    for finding in findings:
        assert "taken for numbers" in finding.explanation
        assert 2 * finding.evidence["count"] >= finding.evidence["classes"]


def test_one_of_two_scores_is_not_read(evidence_of):
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 2))
    labels = torch.arange(32) % 2
    squared = evidence_of(model, targets=labels, loss=lambda m, x, t: F.mse_loss(m(x)[:, 0], t.float()))
    assert found(squared)[0].evidence["unread"] == [1]
    weights = torch.tensor([1.0, 9.0])
    sound = evidence_of(model, targets=labels, loss=lambda m, x, t: F.cross_entropy(m(x), t, weight=weights))
    assert found(sound) == []


def test_large_scores_are_read(cnn, evidence_of):
    nn.init.normal_(cnn[-1].weight, std=300.0)
    assert found(evidence_of(cnn, loss=weighted)) == []
