"""Frozen batch norms stay frozen, and everything else goes on."""

from __future__ import annotations

import copy
import io

import pytest
import torch
from torch import Tensor, nn

from clearsight.nn.conv import ConvNormAct
from clearsight.nn.freeze import freeze_norm, unfreeze_norm
from clearsight.nn.norm import norm


def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(2), nn.BatchNorm1d(4), nn.GroupNorm(2, 4)
    )


def buffers(model: nn.Module) -> list[Tensor]:
    return [buffer.clone() for buffer in model.buffers()]


def step(model: nn.Module) -> None:
    model.train()
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    (model(torch.randn(4, 3, 6, 6)) * torch.randn(4, 4, 16)).sum().backward()
    optimizer.step()


@pytest.mark.parametrize("affine", [False, True])
def test_the_freeze_survives_train_copies_and_the_rest_learns(affine: bool) -> None:
    model = net()
    names = list(model.state_dict())
    assert freeze_norm(model, affine=affine) == 2
    assert list(model.state_dict()) == names
    for one in (model, copy.deepcopy(model)):
        before, scale, kernel = buffers(one), one[1].weight.detach().clone(), one[0].weight.detach().clone()  # pyright: ignore
        step(one)
        assert all(torch.equal(a, b) for a, b in zip(before, one.buffers(), strict=True))
        assert not one[1].training
        assert one[5].training
        assert torch.equal(scale, one[1].weight) == affine  # pyright: ignore
        assert not torch.equal(kernel, one[0].weight)  # pyright: ignore


def test_only_the_affine_part() -> None:
    model = net()
    freeze_norm(model, statistics=False, affine=True)
    before = buffers(model)
    step(model)
    assert not torch.equal(before[0], model[1].running_mean)  # pyright: ignore
    assert model[1].weight.grad is None


def test_it_computes_what_an_evaluated_norm_computes_and_can_be_undone() -> None:
    model, plain, x = net(), net(), torch.randn(4, 3, 6, 6)
    freeze_norm(model)
    torch.testing.assert_close(model.train()(x), plain.eval()(x))
    assert unfreeze_norm(model) == 2
    assert type(model[1]) is nn.BatchNorm2d
    torch.testing.assert_close(model(x), plain.train()(x))
    torch.testing.assert_close(model[1].running_var, plain[1].running_var)


def test_it_is_saved_as_a_whole() -> None:
    model = net()
    freeze_norm(model)
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    again = torch.load(file, weights_only=False).train()
    assert not again[1].training


@pytest.mark.parametrize("name", ["cross_iteration", "cross_mini_batch"])
def test_norms_over_several_batches_are_frozen_alike(name: str) -> None:
    model = nn.Sequential(ConvNormAct(3, 4, norm=name), ConvNormAct(4, 4, norm=name))
    kind, x = type(model[0][1]), torch.randn(2, 3, 6, 6)
    model(x)
    assert freeze_norm(model) == 2
    before = buffers(model)
    model.train()
    y = model(x)
    assert all(torch.equal(a, b) for a, b in zip(before, buffers(model), strict=True))
    torch.testing.assert_close(y, copy.deepcopy(model).eval()(x))
    assert unfreeze_norm(model) == 2
    assert type(model[0][1]) is kind
    model(x)
    assert not torch.equal(before[0], buffers(model)[0])


def test_there_is_nothing_to_freeze_in_the_others() -> None:
    model = nn.Sequential(*[norm(name, 4) for name in ("frozen_batch", "group", "layer", "instance", "layer_channels")])
    assert freeze_norm(model, affine=True) == 0
    assert all(p.requires_grad for p in model.parameters())
