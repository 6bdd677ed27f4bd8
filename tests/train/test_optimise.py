from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

from clearsight.errors import ConfigError
from clearsight.recipe.schema import OptimizerConfig
from clearsight.reference import first_order
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


# ------------------------------------------------------------------------------------------------ a hundred steps
BETAS = (0.8, 0.99)
# What each name says, by hand: PyTorch's class with the documented settings, and our own rule.
SAID = {
    "sgd": (torch.optim.SGD, {}, first_order.Sgd, {}),
    "momentum": (torch.optim.SGD, {"momentum": 0.8}, first_order.Sgd, {"momentum": 0.8}),
    "nesterov": (
        torch.optim.SGD,
        {"momentum": 0.8, "nesterov": True},
        first_order.Sgd,
        {"momentum": 0.8, "nesterov": True},
    ),
    "adagrad": (torch.optim.Adagrad, {}, first_order.Adagrad, {}),
    "adadelta": (torch.optim.Adadelta, {}, first_order.Adadelta, {}),
    "rmsprop": (torch.optim.RMSprop, {"momentum": 0.8}, first_order.Rmsprop, {"momentum": 0.8}),
    "adam": (torch.optim.Adam, {"betas": BETAS}, first_order.Adam, {"betas": BETAS}),
    "adamw": (torch.optim.AdamW, {"betas": BETAS}, first_order.Adam, {"betas": BETAS, "decoupled": True}),
    "nadam": (
        torch.optim.NAdam,
        {"betas": BETAS, "decoupled_weight_decay": True},
        first_order.Nadam,
        {"betas": BETAS, "decoupled": True},
    ),
}
RATES = {"adadelta": 1.0, "rmsprop": 0.002, "sgd": 0.05}


@pytest.fixture
def _double_precision():
    """NAdam of PyTorch keeps its product of momenta in the default type."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def twins(count: int) -> list[Net]:
    models = [Net() for _ in range(count)]
    for model in models[1:]:
        model.load_state_dict(models[0].state_dict())
    return models


def loss_of(model: Net) -> torch.Tensor:
    """Not convex, and another function of each parameter."""
    terms = [((i + 1) * p.square() / 4 + torch.sin(2 * p + 1)).sum() for i, p in enumerate(model.parameters())]
    return torch.stack(terms).sum()


def by_hand(model: Net, rate: float, decay: float) -> list[dict]:
    """Four groups with rates and decays of their own, as `parameter_groups` says it makes them."""
    convolution, norm = model.backbone
    return [
        {"params": [convolution.weight], "lr": 0.3 * rate, "weight_decay": decay},
        {"params": [convolution.bias, norm.weight, norm.bias], "lr": 0.3 * rate, "weight_decay": 0.0},
        {"params": [model.head.weight], "lr": rate, "weight_decay": decay},
        {"params": [model.head.bias, model.scale], "lr": rate, "weight_decay": 0.0},
    ]


@pytest.mark.usefixtures("_double_precision")
@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("name", sorted(BUILDERS))
def test_a_hundred_steps_are_pytorchs_and_the_references(name, fused):
    model, other = twins(2)
    rate, decay = RATES.get(name, 0.02), 0.05
    config = OptimizerConfig(name=name, lr=rate, backbone_lr=0.3, weight_decay=decay, momentum=0.8, betas=BETAS)
    optimizer = build_optimizer(model, config, fused=fused)
    kind, options, rule, settings = SAID[name]
    peer = kind(by_hand(other, rate, decay), **options)
    points = [
        (p, p.detach().numpy().copy(), rule(rate=group["lr"], weight_decay=group["weight_decay"], **settings))
        for group in by_hand(model, rate, decay)
        for p in group["params"]
    ]
    start = [x for _, x, _ in points]
    for _ in range(100):
        for some, optimiser in ((model, optimizer), (other, peer)):
            optimiser.zero_grad()
            loss_of(some).backward()
            optimiser.step()
        # The model's own gradient is that of the point before the step, where the rule stands too.
        points = [(p, rule.update(x, p.grad.numpy()), rule) for p, x, rule in points]
        for mine, theirs in zip(model.parameters(), other.parameters(), strict=True):
            torch.testing.assert_close(mine, theirs, rtol=1e-12, atol=1e-13)
        for p, x, _ in points:
            np.testing.assert_allclose(p.detach().numpy(), x, rtol=1e-11, atol=1e-12)
    assert min(np.abs(x - before).max() for (_, x, _), before in zip(points, start, strict=True)) > 1e-3


@pytest.mark.usefixtures("_double_precision")
def test_lbfgs_is_pytorchs():
    model, other = twins(2)
    config = OptimizerConfig(name="lbfgs", lr=0.1, weight_decay=0.0)
    optimizer = build_optimizer(model, config)
    parameters = [p for group in by_hand(other, 0.1, 0.0) for p in group["params"]]
    peer = torch.optim.LBFGS(parameters, lr=0.1, max_iter=10, history_size=10)

    def closure(some: Net, optimiser: torch.optim.Optimizer) -> torch.Tensor:
        optimiser.zero_grad()
        loss = loss_of(some)
        loss.backward()
        return loss

    before = loss_of(model).item()
    for _ in range(20):
        optimizer.step(partial(closure, model, optimizer))
        peer.step(partial(closure, other, peer))
        for mine, theirs in zip(model.parameters(), other.parameters(), strict=True):
            torch.testing.assert_close(mine, theirs, rtol=1e-12, atol=1e-13)
    assert loss_of(model).item() < before - 1


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
