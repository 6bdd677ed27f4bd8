"""All rules on the parts of a model together: quiet on published networks and on our own."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import nn
from torchvision.models.convnext import CNBlockConfig

from clearsight.doctor.model.batch_norm import OneValueNorm, TinyBatchNorm
from clearsight.doctor.model.evidence import ModelEvidence
from clearsight.doctor.model.identical_units import IdenticalUnits
from clearsight.doctor.model.kernels import CheckerboardKernel, GriddingDilations
from clearsight.doctor.model.missing_parts import MissingNonLinearity, SoftmaxBeforeCrossEntropy
from clearsight.doctor.model.norm_order import BiasBeforeNorm, DropoutBeforeNorm
from clearsight.doctor.model.parameters import (
    CoupledDecayWithAdam,
    DecayOnNormAndBias,
    FrozenParameters,
    NotInOptimizer,
    ParametersWithoutGradient,
)
from clearsight.doctor.rule import examine
from clearsight.models import create_model
from clearsight.types import Finding, Targets

RULES = (
    BiasBeforeNorm(), DropoutBeforeNorm(), SoftmaxBeforeCrossEntropy(), MissingNonLinearity(),
    ParametersWithoutGradient(), NotInOptimizer(), FrozenParameters(), DecayOnNormAndBias(), CoupledDecayWithAdam(),
    IdenticalUnits(), GriddingDilations(), CheckerboardKernel(), TinyBatchNorm(), OneValueNorm(),
)  # fmt: skip


def alarms(model, images, targets, loss) -> list[Finding]:
    item = ModelEvidence(
        model=model,
        images=images,
        targets=targets,
        loss=loss,
        take=lambda t, i: t[list(i)],
        optimizer=torch.optim.AdamW(model.parameters()),
        recipe={"loader": {"batch_size": 16}},
    )
    seen = examine(RULES, item)
    assert seen.silent == {}
    assert len(seen.passed) >= len(RULES) - 3
    return [one for one in seen.findings if one.severity != "info" or one.id == "rule-failed"]


def class_loss(model, images, targets):
    return F.cross_entropy(model(images), targets)


@pytest.mark.parametrize(
    "name", ["resnet18", "mobilenet_v3_small", "densenet121", "efficientnet_b0",
             "regnet_y_400mf"],
)  # fmt: skip
def test_published_classifiers(name):
    model = getattr(torchvision.models, name)(weights=None, num_classes=4)
    assert alarms(model, torch.randn(2, 3, 64, 64), torch.arange(2), class_loss) == []


def test_published_transformers_of_few_blocks():
    swin = torchvision.models.SwinTransformer([4, 4], 24, [2, 2], [2, 4], [4, 4], num_classes=4)
    settings = [CNBlockConfig(16, 32, 2), CNBlockConfig(32, None, 2)]
    for model in (swin, torchvision.models.ConvNeXt(settings, num_classes=4)):
        assert alarms(model, torch.randn(2, 3, 64, 64), torch.arange(2), class_loss) == []


def test_a_transformer_of_pytorch():
    class Tiny(nn.Module):
        def __init__(self):
            super().__init__()
            self.patches = nn.Conv2d(3, 16, 8, 8)
            self.body = nn.TransformerEncoder(nn.TransformerEncoderLayer(16, 2, 32, batch_first=True), 2)
            self.head = nn.Linear(16, 4)

        def forward(self, x):
            return self.head(self.body(self.patches(x).flatten(2).mT).mean(1))

    assert alarms(Tiny(), torch.randn(2, 3, 32, 32), torch.arange(2), class_loss) == []


@pytest.mark.parametrize(
    ("name", "options"),
    [("light", {}), ("semantic_fpn", {"backbone": "mobilenet_v3_small"}), ("unet", {"width": 8})],
)
def test_our_own(name, options):
    model = create_model(name, num_classes=3, **options)
    targets = Targets(
        boxes=torch.tensor([[4.0, 8, 40, 50], [20, 20, 60, 56]]),
        labels=torch.tensor([0, 1]),
        image=torch.tensor([0, 1]),
        semantic=torch.randint(0, 3, (2, 64, 64)),
    )

    def loss(model, images, targets):
        return sum(model.loss(images, targets).values(), torch.zeros(()))

    assert alarms(model, torch.rand(2, 3, 64, 64), targets, loss) == []


def test_several_faults_at_once_are_all_named():
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Conv2d(8, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1),
        nn.GroupNorm(8, 8), nn.Flatten(), nn.Linear(8, 4), nn.Softmax(dim=1),
    )  # fmt: skip
    model[2].bias.requires_grad_(False)
    item = ModelEvidence(
        model=model,
        images=torch.randn(4, 3, 16, 16),
        targets=torch.arange(4),
        loss=class_loss,
        take=lambda t, i: t[list(i)],
        optimizer=torch.optim.Adam(model[:7].parameters(), weight_decay=0.1),
    )
    assert [one.id for one in examine(RULES, item).findings] == [
        "bias-before-norm", "softmax-before-cross-entropy", "missing-non-linearity", "not-in-optimizer",
        "frozen-parameters", "decay-on-norm-and-bias", "coupled-decay-with-adam", "tiny-batch-norm", "one-value-norm",
    ]  # fmt: skip
