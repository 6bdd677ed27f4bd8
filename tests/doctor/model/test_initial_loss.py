from __future__ import annotations

import math
from typing import NamedTuple

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clearsight.doctor.model.initial_loss import InitialLossOff


def found(evidence, **thresholds):
    return list(InitialLossOff(**thresholds).check(evidence))


def test_sound_networks_are_quiet(sound, evidence_of):
    assert found(evidence_of(sound)) == []
    assert found(evidence_of(sound, loss=lambda m, x, t: F.cross_entropy(m(x), t, label_smoothing=0.1))) == []


def test_large_scores_at_the_start(cnn, evidence_of):
    nn.init.normal_(cnn[-1].weight, std=3.0)
    (finding,) = found(evidence_of(cnn))
    assert (finding.severity, finding.evidence["row"]) == ("warning", "P1")
    assert finding.evidence["expected"] == pytest.approx(math.log(10))
    assert finding.evidence["loss"] > 2 * math.log(10)
    smoothed = evidence_of(cnn, loss=lambda m, x, t: F.cross_entropy(m(x), t, label_smoothing=0.2))
    assert [one.severity for one in found(smoothed)] == ["warning"]


@pytest.mark.parametrize(
    ("ratio", "severity"), [(1.15, None), (1.3, "info"), (1.8, "info"), (2.2, "warning"), (0.4, "info")]
)
def test_thresholds(evidence_of, ratio, severity):
    """A model whose scores are the labels', so that its loss is known: -ln p of the true class."""
    p = math.exp(-ratio * math.log(10))
    labels = evidence_of(nn.Identity()).targets

    class Sure(nn.Module):
        def forward(self, x):
            probabilities = torch.full((len(x), 10), (1 - p) / 9)
            probabilities[torch.arange(len(x)), labels[: len(x)]] = p
            return probabilities.log()

    assert [one.severity for one in found(evidence_of(Sure()))] == ([] if severity is None else [severity])


def test_a_bias_that_knows_the_frequencies_is_sound(digit_images, evidence_of):
    images, labels = digit_images
    order = torch.cat([(labels == 0).nonzero().flatten()[:95], (labels == 1).nonzero().flatten()[:5]])
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    nn.init.normal_(model[1].weight, std=1e-3)
    shares = torch.tensor([0.95, 0.05, *[1e-4] * 8])
    model[1].bias.data.copy_(shares.log())
    evidence = evidence_of(model, images=images[order], targets=labels[order], class_counts=(95, 5, *[0] * 8))
    assert found(evidence) == []
    evidence.class_counts = ()
    assert [one.severity for one in found(evidence)] == ["info"]  # far below ln 10


def test_a_loss_that_is_not_finite(mlp, evidence_of):
    (finding,) = found(evidence_of(mlp, loss=lambda m, x, t: F.cross_entropy(m(x).sub(9).log(), t)))
    assert finding.severity == "error"


def test_unknown_losses_are_left_alone(mlp, evidence_of):
    assert found(evidence_of(mlp, loss=lambda m, x, t: 40 + F.multi_margin_loss(m(x), t))) == []


class Outputs(NamedTuple):
    logits: Tensor


class Dense(nn.Module):
    def __init__(self, bias):
        super().__init__()
        self.scores = nn.Conv2d(1, 3, 3, padding=1)
        nn.init.constant_(self.scores.bias, bias)

    def forward(self, x):
        return Outputs(F.interpolate(self.scores(x), scale_factor=2).flatten(2).mT)


@pytest.mark.parametrize(("bias", "severity"), [(-4.6, []), (-1.5, ["info"]), (0.0, ["warning"])])
def test_the_prior_of_dense_detectors(evidence_of, bias, severity):
    evidence = evidence_of(
        Dense(bias), task="detection", classes=3, loss=lambda m, x, t: F.softplus(m(x).logits).sum() / 10
    )
    assert [one.severity for one in found(evidence)] == severity
