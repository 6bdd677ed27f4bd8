"""Parameters that will not learn, and weight decay: faults made in real nets, checked by a step of training."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import nn

from clearsight.doctor.model.evidence import ModelEvidence
from clearsight.doctor.model.parameters import (
    CoupledDecayWithAdam,
    DecayOnNormAndBias,
    FrozenParameters,
    NotInOptimizer,
    ParametersWithoutGradient,
)


def evidence(model, optimizer=None, recipe=None) -> ModelEvidence:
    return ModelEvidence(
        model=model,
        images=torch.randn(4, 3, 32, 32),
        targets=torch.arange(4),
        loss=lambda m, x, t: F.cross_entropy(m(x), t),
        take=lambda t, i: t[list(i)],
        optimizer=optimizer,
        recipe=recipe or {},
    )


class Net(nn.Module):
    def __init__(self, *, cut=False, spare=False):
        super().__init__()
        self.conv, self.norm, self.fc = nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8), nn.Linear(8, 4)
        self.cut = cut
        if spare:
            self.spare = nn.Linear(8, 4)

    def forward(self, x):
        x = F.relu(self.norm(self.conv(x))).mean((2, 3))
        return self.fc(x.detach() if self.cut else x)


# ------------------------------------------------------------------------------------------------ gradients
def test_a_layer_that_is_cut_off():
    (found,) = ParametersWithoutGradient().check(evidence(Net(cut=True)))
    assert (found.id, found.severity, found.where) == ("parameters-without-gradient", "warning", "conv.weight")
    assert found.evidence["parameters"] == ["conv.weight", "norm.weight", "norm.bias"]
    assert found.evidence["share"] == pytest.approx((216 + 16) / (216 + 16 + 36))


def test_a_layer_that_never_ran_is_only_told():
    (found,) = ParametersWithoutGradient().check(evidence(Net(spare=True)))
    assert (found.severity, found.where, found.evidence["count"]) == ("info", "spare.weight", 2)


def test_nothing_learns():
    item = evidence(Net())
    item.loss = lambda m, x, t: F.cross_entropy(m(x).detach(), t)
    (found,) = ParametersWithoutGradient().check(item)
    assert (found.severity, found.evidence["share"]) == ("error", 1)


def test_frozen_ones_ask_for_none():
    model = Net(cut=True)
    model.conv.requires_grad_(False)
    model.norm.requires_grad_(False)
    item = evidence(model)
    assert list(ParametersWithoutGradient().check(item)) == []
    (found,) = FrozenParameters().check(item)
    assert (found.severity, found.evidence["count"], found.evidence["untrained"]) == ("warning", 3, 3)
    (found,) = FrozenParameters().check(evidence(model.requires_grad_(False)))
    assert found.severity == "error"


def body(*, norm) -> nn.Sequential:
    first, second = nn.Conv2d(3, 16, 3), nn.Conv2d(16, 16, 3)
    return nn.Sequential(first, norm(16), nn.ReLU(), second, norm(16), nn.ReLU(), nn.Flatten(), nn.Linear(12544, 4))


def test_a_body_that_was_trained_is_frozen_on_purpose():
    torch.manual_seed(0)
    model, images = body(norm=nn.BatchNorm2d), torch.randn(32, 3, 32, 32)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    for _ in range(20):
        optimizer.zero_grad()
        F.cross_entropy(model(images), torch.arange(32) % 4).backward()
        optimizer.step()
    for one in list(model.children())[:-1]:
        one.requires_grad_(False)
    for share, expected in ((0.0, "info"), (0.9, "info")):
        (found,) = FrozenParameters(share=share).check(evidence(model))
        assert (found.severity, found.evidence["untrained"]) == (expected, 0)


def test_a_small_part_may_be_random_on_purpose():
    item = evidence(nn.Sequential(nn.Flatten(), nn.Linear(3072, 8), nn.Linear(8, 4000), nn.Linear(4000, 4)))
    item.model[2].requires_grad_(False)
    (found,) = FrozenParameters(share=0.7).check(item)
    assert found.severity == "info"
    (found,) = FrozenParameters().check(item)
    assert found.severity == "warning"


def test_norms_alone_say_nothing():
    model = Net()
    model.norm.requires_grad_(False)
    (found,) = FrozenParameters(share=0.0).check(evidence(model))
    assert found.severity == "info"


# ------------------------------------------------------------------------------------------------ optimiser
def test_a_head_that_the_optimiser_was_not_given():
    model = torchvision.models.shufflenet_v2_x0_5(num_classes=7)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    model.fc = nn.Linear(1024, 4)  # after the optimiser was made
    item = evidence(model, optimizer)
    (found,) = NotInOptimizer().check(item)
    assert (found.severity, found.evidence["parameters"]) == ("warning", ["fc.weight", "fc.bias"])
    before = {name: value.clone() for name, value in model.state_dict().items()}
    item.loss(model, item.images, item.targets).backward()
    optimizer.step()
    stayed = [name for name, one in model.named_parameters() if torch.equal(one, before[name])]
    assert stayed == found.evidence["parameters"]


def test_an_optimiser_of_another_model():
    (found,) = NotInOptimizer().check(evidence(Net(), torch.optim.SGD(Net().parameters(), lr=0.1)))
    assert found.severity == "error"


def test_all_is_in_the_optimiser():
    model = Net()
    model.fc.bias.requires_grad_(False)  # frozen: need not be there
    kept = [one for one in model.parameters() if one.requires_grad]
    assert list(NotInOptimizer().check(evidence(model, torch.optim.SGD(kept, lr=0.1)))) == []
    assert NotInOptimizer().lacks(evidence(model)) == "an optimiser"


# ------------------------------------------------------------------------------------------------ decay
def test_decay_of_scales_and_biases():
    model = Net()
    recipe = {"optimizer": {"name": "adamw", "decay_norm_and_bias": True}}
    rule = DecayOnNormAndBias()
    (found,) = rule.check(evidence(model, torch.optim.AdamW(model.parameters(), weight_decay=0.05), recipe))
    assert found.severity == "info"
    assert found.evidence["parameters"] == ["norm.weight", "norm.bias", "fc.bias"]
    assert found.remedy == {"optimizer.decay_norm_and_bias": False}
    groups = [
        {"params": [one for one in model.parameters() if one.ndim > 1], "weight_decay": 0.05},
        {"params": [one for one in model.parameters() if one.ndim <= 1], "weight_decay": 0.0},
    ]
    assert list(rule.check(evidence(model, torch.optim.AdamW(groups)))) == []
    assert rule.lacks(evidence(model)) == "an optimiser"


@pytest.mark.parametrize(
    ("kind", "decay", "found"),
    [
        (torch.optim.Adam, 0.01, True),
        (torch.optim.NAdam, 0.01, True),
        (torch.optim.Adam, 0.0, False),
        (torch.optim.AdamW, 0.01, False),
        (torch.optim.SGD, 0.01, False),
    ],
)
def test_coupled_decay(kind, decay, found):
    optimizer = kind(Net().parameters(), lr=1e-3, weight_decay=decay)
    seen = list(CoupledDecayWithAdam().check(evidence(Net(), optimizer, {"optimizer": {"name": "adam"}})))
    assert [one.id for one in seen] == ["coupled-decay-with-adam"] * found
    assert all(one.remedy == {"optimizer.name": "adamw"} and one.severity == "info" for one in seen)
