from __future__ import annotations

import pytest
import torch
from torch import nn

from clearsight.errors import ConfigError
from clearsight.recipe.schema import OptimizerConfig
from clearsight.train.optimise import BUILDERS, build_optimizer, parameter_groups


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4))
        self.head = nn.Linear(4, 2)
        self.scale = nn.Parameter(torch.ones(()))


def names(model: nn.Module, group: dict) -> set[str]:
    ids = {id(p) for p in group["params"]}
    return {name for name, p in model.named_parameters() if id(p) in ids}


def test_groups_hold_what_they_say():
    model = Net()
    config = OptimizerConfig(lr=0.1, backbone_lr=0.2, weight_decay=0.3)
    groups = {group["name"]: group for group in parameter_groups(model, config)}
    assert {key: names(model, group) for key, group in groups.items()} == {
        "backbone, decayed": {"backbone.0.weight"},
        "backbone, not decayed": {"backbone.0.bias", "backbone.1.weight", "backbone.1.bias"},
        "head, decayed": {"head.weight"},
        "head, not decayed": {"head.bias", "scale"},
    }
    assert {key: (group["lr"], group["initial_lr"], group["weight_decay"]) for key, group in groups.items()} == {
        "backbone, decayed": pytest.approx((0.02, 0.02, 0.3)),
        "backbone, not decayed": pytest.approx((0.02, 0.02, 0.0)),
        "head, decayed": pytest.approx((0.1, 0.1, 0.3)),
        "head, not decayed": pytest.approx((0.1, 0.1, 0.0)),
    }


def test_decay_everything_and_leave_out_frozen_parts():
    model = Net()
    model.backbone.requires_grad_(requires_grad=False)
    groups = parameter_groups(model, OptimizerConfig(weight_decay=0.3, decay_norm_and_bias=True))
    assert len(groups) == 1
    assert names(model, groups[0]) == {"head.weight", "head.bias", "scale"}
    assert groups[0]["weight_decay"] == 0.3


def test_a_name_that_only_begins_alike_is_no_backbone():
    model = nn.ModuleDict({"backbone_head": nn.Linear(2, 2)})
    groups = parameter_groups(model, OptimizerConfig(backbone_lr=0.1))
    assert all(group["name"].startswith("head") for group in groups)


def test_nothing_to_train():
    model = Net().requires_grad_(requires_grad=False)
    with pytest.raises(ConfigError, match="no parameter is trainable"):
        build_optimizer(model, OptimizerConfig())


@pytest.mark.parametrize(
    ("name", "kind", "extra"),
    [
        ("sgd", torch.optim.SGD, {"momentum": 0.0, "nesterov": False}),
        ("momentum", torch.optim.SGD, {"momentum": 0.8, "nesterov": False}),
        ("nesterov", torch.optim.SGD, {"momentum": 0.8, "nesterov": True}),
        ("adagrad", torch.optim.Adagrad, {}),
        ("adadelta", torch.optim.Adadelta, {}),
        ("rmsprop", torch.optim.RMSprop, {"momentum": 0.8}),
        ("adam", torch.optim.Adam, {"betas": (0.8, 0.99)}),
        ("adamw", torch.optim.AdamW, {"betas": (0.8, 0.99)}),
        ("nadam", torch.optim.NAdam, {"betas": (0.8, 0.99), "decoupled_weight_decay": True}),
    ],
)
def test_names(name, kind, extra):
    config = OptimizerConfig(name=name, lr=0.1, weight_decay=0.01, momentum=0.8, betas=(0.8, 0.99))
    optimizer = build_optimizer(Net(), config)
    assert type(optimizer) is kind
    assert {key: optimizer.defaults[key] for key in extra} == extra


def test_every_name_of_the_schema_is_built():
    said = set(OptimizerConfig.model_fields["name"].annotation.__args__)  # pyright: ignore
    assert said == {*BUILDERS, "lbfgs"}


@pytest.mark.parametrize("name", sorted(BUILDERS))
def test_each_lowers_a_quadratic(name):
    model = nn.Linear(3, 1, bias=False)
    optimizer = build_optimizer(model, OptimizerConfig(name=name, lr=0.05, weight_decay=0.0))
    before = model.weight.square().sum().item()
    for _ in range(20):
        optimizer.zero_grad()
        model.weight.square().sum().backward()
        optimizer.step()
    assert model.weight.square().sum().item() < before * 0.999


def test_fused_and_plain_agree():
    results = []
    for fused in (True, False):
        torch.manual_seed(0)
        model = nn.Linear(5, 5)
        optimizer = build_optimizer(model, OptimizerConfig(lr=0.01), fused=fused)
        for _ in range(10):
            optimizer.zero_grad()
            model(torch.ones(2, 5)).square().sum().backward()
            optimizer.step()
        results.append(model.weight.detach().clone())
    torch.testing.assert_close(*results, rtol=1e-5, atol=1e-6)


def test_lbfgs_refuses_what_it_cannot_do():
    optimizer = build_optimizer(Net(), OptimizerConfig(name="lbfgs", weight_decay=0.0))
    assert type(optimizer) is torch.optim.LBFGS
    with pytest.raises(ConfigError, match=r"optimizer\.weight_decay.*lbfgs"):
        build_optimizer(Net(), OptimizerConfig(name="lbfgs"))
    with pytest.raises(ConfigError, match=r"optimizer\.backbone_lr.*lbfgs"):
        build_optimizer(Net(), OptimizerConfig(name="lbfgs", weight_decay=0.0, backbone_lr=0.1))
