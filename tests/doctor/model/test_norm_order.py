"""Biases that a norm takes away, and dropout before a batch norm: real nets, real digits, measured effects."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
import torchvision
from sklearn.datasets import load_digits
from torch import nn

from clearsight.doctor.model.evidence import ModelEvidence
from clearsight.doctor.model.norm_order import BiasBeforeNorm, DropoutBeforeNorm, biases_before_norm
from clearsight.nn.instance_norm import InstanceNorm


def evidence(model, images=None) -> ModelEvidence:
    digits = load_digits()
    images = torch.tensor(digits.images[:64, None] / 8 - 1, dtype=torch.float32) if images is None else images
    targets = torch.tensor(digits.target[: len(images)])
    return ModelEvidence(
        model=model,
        images=images,
        targets=targets,
        loss=lambda m, x, t: F.cross_entropy(m(x), t),
        take=lambda t, i: t[list(i)],
    )


def net(norm, *, bias=True, after=nn.ReLU) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(1, 8, 3, bias=bias), norm, after(), nn.Flatten(), nn.Linear(288, 10))


# ------------------------------------------------------------------------------------------------ bias
@pytest.mark.parametrize("norm", [nn.BatchNorm2d(8), nn.GroupNorm(8, 8), InstanceNorm(8), nn.InstanceNorm2d(8)])
def test_a_bias_before_a_norm_of_each_channel(norm):
    item = evidence(net(norm))
    (found,) = BiasBeforeNorm().check(item)
    assert (found.id, found.severity, found.where) == ("bias-before-norm", "info", "0")
    assert found.evidence == {"row": "S1", "layers": ["0"], "count": 1, "parameters": 8}
    model = copy.deepcopy(item.model)
    item.loss(model, item.images, item.targets).backward()
    assert model[0].bias.grad.abs().max() < 1e-5 * model[0].weight.grad.abs().max()


@pytest.mark.parametrize("norm", [nn.GroupNorm(4, 8), nn.BatchNorm2d(8).eval(), nn.ReLU(), nn.Identity()])
def test_a_bias_that_counts(norm):
    item = evidence(net(norm))
    if isinstance(norm, nn.BatchNorm2d):
        norm.train = lambda mode=True: norm  # held, as in fine-tuning
    assert list(BiasBeforeNorm().check(item)) == []


def test_a_bias_that_something_else_reads_too_counts():
    class Reads(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.norm, self.fc = nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.Linear(288, 10)

        def forward(self, x):
            x = self.conv(x)
            return self.fc((self.norm(x).relu() + x).flatten(1))

    assert biases_before_norm(evidence(Reads()).flow) == {}


def test_a_sum_keeps_it_and_a_function_that_bends_does_not():
    class Sums(nn.Module):
        def __init__(self, bend):
            super().__init__()
            self.a, self.b = nn.Conv2d(1, 8, 3), nn.Conv2d(1, 8, 3)
            self.norm, self.fc, self.bend = nn.BatchNorm2d(8), nn.Linear(288, 10), bend

        def forward(self, x):
            return self.fc(F.relu(self.norm(self.a(x) + self.bend(self.b(x)))).flatten(1))

    assert biases_before_norm(evidence(Sums(lambda x: x)).flow) == {"a": "norm", "b": "norm"}
    assert biases_before_norm(evidence(Sums(torch.tanh)).flow) == {"a": "norm"}


def test_published_networks_have_none():
    images = torch.randn(2, 3, 32, 32)
    for name in ("mobilenet_v2", "shufflenet_v2_x0_5"):
        assert list(BiasBeforeNorm().check(evidence(getattr(torchvision.models, name)(num_classes=10), images))) == []


# ------------------------------------------------------------------------------------------------ dropout
class Dropped(nn.Module):
    """Dropout between two layers, before the norm of the second."""

    def __init__(self, p, *, functional=False):
        super().__init__()
        self.first, self.drop, self.second = nn.Linear(64, 256), nn.Dropout(p), nn.Linear(256, 128, bias=False)
        self.norm, self.last, self.p = nn.BatchNorm1d(128), nn.Linear(128, 10), p
        self.functional = functional

    def forward(self, x):
        x = self.first(x.flatten(1)).relu()
        x = F.dropout(x, self.p, self.training) if self.functional else self.drop(x)
        return self.last(self.norm(self.second(x)).relu())


@pytest.mark.parametrize("functional", [False, True])
def test_dropout_before_a_batch_norm(functional):
    item = evidence(Dropped(0.5, functional=functional))
    (found,) = DropoutBeforeNorm().check(item)
    assert (found.id, found.severity, found.where) == ("dropout-before-norm", "warning", "norm")
    assert found.evidence["predicted"] == 2
    measured = found.evidence["measured"]["norm"]
    assert found.evidence["p"] == 0.5
    # by PyTorch alone, in the modes of training and of use
    variances = []
    for training in (True, False):
        item.model.train(training)
        draws = []
        for _ in range(16):
            x = F.relu(item.model.first(item.images.flatten(1)))
            x = F.dropout(x, 0.5, training)
            draws.append(item.model.second(x).var(0, unbiased=False))
        variances.append(torch.stack(draws).mean(0).detach())
    assert measured == pytest.approx(float((variances[0] / variances[1]).log().mean().exp()), rel=0.15)
    assert next(iter(DropoutBeforeNorm().check(item))) == found  # the same every time


def test_inputs_without_mean_show_the_closed_form():
    images = torch.randn(512, 1, 8, 8)
    model = nn.Sequential(nn.Flatten(), nn.Dropout(0.3), nn.BatchNorm1d(64), nn.Linear(64, 10))
    (found,) = DropoutBeforeNorm().check(evidence(model, images))
    assert found.evidence["measured"]["2"] == pytest.approx(1 / 0.7, rel=0.01)
    assert found.evidence["predicted"] == pytest.approx(1 / 0.7)


def test_a_little_dropout_is_harmless():
    assert list(DropoutBeforeNorm().check(evidence(Dropped(0.05)))) == []
    assert list(DropoutBeforeNorm().check(evidence(Dropped(0.0)))) == []


@pytest.mark.parametrize(
    "model",
    [
        nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Dropout(), nn.Linear(32, 10)),
        nn.Sequential(nn.Flatten(), nn.Dropout(), nn.Linear(64, 32), nn.LayerNorm(32), nn.ReLU(), nn.Linear(32, 10)),
    ],
)
def test_dropout_behind_the_last_batch_norm_or_before_another_norm(model):
    assert list(DropoutBeforeNorm().check(evidence(model))) == []


def test_too_few_images_tell_nothing():
    item = evidence(Dropped(0.5), torch.randn(4, 1, 8, 8))
    assert DropoutBeforeNorm().lacks(item) == "a batch of 8 images or more"
    assert DropoutBeforeNorm().lacks(evidence(Dropped(0.5))) == ""
