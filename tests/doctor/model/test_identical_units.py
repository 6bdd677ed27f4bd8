"""Layers that start alike: by fault, by design, and by chance."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import nn

from clearsight.doctor.model.evidence import ModelEvidence
from clearsight.doctor.model.identical_units import IdenticalUnits
from clearsight.models import create_model


def evidence(model, images=None) -> ModelEvidence:
    return ModelEvidence(
        model=model,
        images=torch.randn(8, 1, 8, 8) if images is None else images,
        targets=torch.arange(8 if images is None else len(images)) % 4,
        loss=lambda m, x, t: F.cross_entropy(m(x), t),
        take=lambda t, i: t[list(i)],
    )


def mlp() -> nn.Sequential:
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 16), nn.ReLU(), nn.Linear(16, 4))


def found_in(model, images=None) -> list[tuple[str, dict]]:
    return [(one.severity, one.evidence["layers"]) for one in IdenticalUnits().check(evidence(model, images))]


@pytest.mark.parametrize("value", [0.0, 0.02])
def test_a_constant_start(value):
    model = mlp()
    for layer in (model[1], model[3]):
        nn.init.constant_(layer.weight, value)
        nn.init.zeros_(layer.bias)
    whole = {"1": {"units": 32, "alike": 32}, "3": {"units": 16, "alike": 16}}
    assert found_in(model) == [("warning", whole)]
    # and one sees it in training: after a step units of the first layer are still alike
    trained, item = copy.deepcopy(model), evidence(model)
    item.loss(trained, item.images, item.targets).backward()
    gradient = trained[1].weight.grad
    torch.testing.assert_close(gradient, gradient[:1].expand_as(gradient))


def test_a_random_start_is_quiet():
    assert found_in(mlp()) == []
    assert found_in(torchvision.models.mobilenet_v3_small(num_classes=4), torch.randn(2, 3, 32, 32)) == []


def test_a_few_alike_are_only_told():
    model = mlp()
    with torch.no_grad():
        model[1].weight[5] = 2 * model[1].weight[9]
    assert found_in(model) == [("info", {"1": {"units": 32, "alike": 2}})]
    with torch.no_grad():  # near, but not the same: a cosine of about 1 - 4e-6
        model[1].weight[5] += model[1].weight[5].norm() * F.normalize(torch.randn(64), dim=0) * 3e-3
    assert found_in(model) == []


def test_opposite_units_and_dead_ones_are_not_alike():
    model = mlp()
    with torch.no_grad():
        model[1].weight[5] = -model[1].weight[9]
        model[1].weight[7:9] = 0
    assert found_in(model) == []


def test_the_last_layer_may_be_constant():
    model = mlp()
    nn.init.zeros_(model[-1].weight)
    assert found_in(model) == []


class Branch(nn.Module):
    """A residual block, a gate and low-rank additions, all of which start with zeros."""

    def __init__(self):
        super().__init__()
        self.first, self.up, self.norm = nn.Linear(64, 32), nn.Linear(32, 32), nn.BatchNorm1d(32)
        self.gate, self.last = nn.Linear(32, 32), nn.Linear(32, 4)
        for layer in (self.up, self.gate):
            nn.init.zeros_(layer.weight)

    def forward(self, x):
        x = self.first(x.flatten(1)).relu()
        x = x + self.norm(self.up(x)).relu()
        return self.last(x * torch.sigmoid(self.gate(x)))


def test_zeros_that_are_joined_with_something():
    assert found_in(Branch()) == []


def test_kernels_of_channels_of_their_own_may_be_alike():
    model = nn.Sequential(
        nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3, groups=8), nn.ReLU(),
        nn.ConvTranspose2d(8, 8, 4, 2), nn.ReLU(), nn.Conv2d(8, 8, 3, groups=4), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4),
    )  # fmt: skip
    nn.init.constant_(model[2].weight, 1 / 9)
    with torch.no_grad():  # two kernels, the same in each of four groups
        model[6].weight.copy_(model[6].weight[:2].repeat(4, 1, 1, 1))
    nn.init.constant_(model[4].weight, 1 / 16)
    assert found_in(model) == []


def test_long_rows_are_sketched_and_found():
    model = nn.Sequential(nn.Flatten(), nn.Linear(3072, 1500), nn.ReLU(), nn.Linear(1500, 4))
    with torch.no_grad():
        model[1].weight[1400] = model[1].weight[3]
    images = torch.randn(2, 3, 32, 32)
    assert found_in(model, images) == [("info", {"1": {"units": 1500, "alike": 2}})]


def test_our_own_starts_are_quiet():
    model = create_model("centernet", num_classes=2, backbone="mobilenet_v3_small")  # its up-convolutions are bilinear
    item = evidence(model, torch.rand(2, 3, 64, 64))
    item.loss = lambda m, x, t: m(x)[0].square().mean() + m(x)[1].square().mean()
    assert list(IdenticalUnits().check(item)) == []
