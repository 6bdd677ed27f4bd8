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


class Grown(nn.Module):
    """A dense block behind a first layer."""

    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Conv2d(1, 8, 3, padding=1), nn.Linear(16, 4)
        self.more = nn.ModuleList(nn.Conv2d(8 + 4 * n, 4, 3, padding=1) for n in range(2))

    def forward(self, x):
        x = self.first(x).relu()
        for layer in self.more:
            x = torch.cat([x, layer(x).relu()], 1)
        return self.last(x.mean((2, 3)))


class Around(nn.Module):
    """A residual block with a layer on both ways, then a part of another kind before the loss."""

    def __init__(self, last=None):
        super().__init__()
        self.first, self.body, self.short = nn.Linear(64, 16), nn.Linear(16, 16), nn.Linear(16, 16, bias=False)
        self.last = last or nn.Linear(16, 4)

    def forward(self, x):
        x = self.first(x.flatten(1)).relu()
        return self.last((self.body(x) + self.short(x)).relu())


def zeroed(model, *names) -> nn.Module:
    for name in names:
        nn.init.zeros_(model.get_submodule(name).weight)
    return model


@pytest.mark.parametrize(
    ("model", "names", "told"),
    [
        (Grown, ["first", "more.0", "more.1", "last"], ["first"]),
        (Grown, ["first"], ["first"]),
        (Grown, ["more.0", "more.1", "last"], []),  # the first layer goes around them
        (Around, ["body", "short"], ["body", "short"]),
        (Around, ["body"], []),
        (Around, ["short"], []),
        (Around, ["last"], []),
        (Around, ["first", "body", "short", "last"], ["first"]),
    ],
)
def test_zeros_on_every_way(model, names, told):
    found = found_in(zeroed(model(), *names))
    assert [(severity, list(layers)) for severity, layers in found] == ([("warning", told)] if told else [])


def test_zeros_on_every_way_that_are_frozen():
    model = zeroed(Around(), "first").requires_grad_(False)
    assert found_in(model) == [("warning", {"first": {"units": 16, "alike": 16}})]


class Scaled(nn.Module):
    """The end of a head: one number that is learned."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))

    def forward(self, x):
        return x * self.scale


def test_a_last_layer_of_zeros_before_a_part_without_weights():
    assert found_in(zeroed(Around(nn.Sequential(nn.Linear(16, 4), Scaled())), "last.0")) == []


class LowRank(nn.Module):
    """A frozen layer with an addition of low rank that starts at zero; Hu et al. 2021."""

    def __init__(self):
        super().__init__()
        self.base, self.down, self.up = nn.Linear(64, 16), nn.Linear(64, 4, bias=False), nn.Linear(4, 16, bias=False)
        self.last = nn.Linear(16, 4)
        nn.init.zeros_(self.up.weight)

    def forward(self, x):
        x = x.flatten(1)
        return self.last((self.base(x) + self.up(self.down(x))).relu())


def test_a_low_rank_addition():
    assert found_in(LowRank()) == []


def test_a_loss_that_looks_at_the_images_does_not_hide_it():
    item = evidence(zeroed(Around(nn.Linear(16, 64)), "body", "short"))
    item.loss = lambda m, x, t: F.mse_loss(m(x), x.flatten(1))
    assert [one.where for one in IdenticalUnits().check(item)] == ["body"]


@pytest.mark.parametrize("name", ["densenet121", "resnet18"])
def test_published_networks_of_zeros(name):
    model = getattr(torchvision.models, name)(weights=None, num_classes=4)
    images = torch.randn(2, 3, 64, 64)
    assert found_in(model, images) == []
    for layer in model.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            nn.init.zeros_(layer.weight)
    ((severity, layers),) = found_in(model, images)
    assert severity == "warning"
    assert next(iter(layers)) in ("conv1", "features.conv0")
