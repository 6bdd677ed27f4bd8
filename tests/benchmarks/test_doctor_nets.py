"""Architectures of the doctor's benchmark take all knobs, and each fault that is allowed for one can be put into it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from doctor_data import split_of
from doctor_job import EVERY
from doctor_nets import NETS, build_net, layers_of
from doctor_setup import HABITS, Setup, resolved
from doctor_training import Bench


@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 16, 16)])
def test_net_gives_logits_whatever_its_knobs(name, shape):
    images = torch.randn(4, *shape, generator=torch.Generator().manual_seed(0))
    knobs = [{"norm": norm} for norm in ("", "bn", "gn", "none")] + [{"activation": "tanh"}, {"dropout": 0.5}]
    for knob in [*knobs, {"width": 0.01}, {"width": 1.5}]:
        assert build_net(name, shape, 5, **knob)(images).shape == (4, 5), knob


@pytest.mark.parametrize("name", NETS)
def test_last_layer_has_the_last_parameters(name):
    model = build_net(name, (3, 16, 16), 5)
    head = layers_of(model)[-1][1]
    assert [id(one) for one in list(model.parameters())[-2:]] == [id(head.weight), id(head.bias)]


def test_each_net_has_habits():
    assert list(HABITS) == list(NETS)


def bench(net: str) -> Bench:
    images = np.random.default_rng(0).random((60, 3, 16, 16), dtype=np.float32)
    return Bench(resolved(Setup(data="turns", net=net)), split_of(images, np.arange(60) % 4, np.full(60, -1), seed=0))


@pytest.mark.parametrize("net", NETS)
def test_faults_of_code_can_be_put_into_the_net(net):
    allowed = {name: fault for name, fault in EVERY.items() if net in (fault.nets or NETS)}
    for name, fault in allowed.items():
        if fault.built is None:
            continue
        given = bench(net)
        place = fault.built(given, fault.levels[-1])
        given.make_ready()
        images, labels = given.first_batch()
        given.loss_of(images, given.targets(labels)).backward()
        assert fault.spot is None or fault.spot[0] == "label" or place in dict(given.model.named_modules()), name


@pytest.mark.parametrize("net", [net for net in NETS if net in EVERY["dropout-before-norm"].nets])
def test_nets_that_faults_of_batch_norm_are_put_into_have_some(net):
    assert any(isinstance(one, nn.BatchNorm2d) for one in build_net(net, (3, 16, 16), 5).modules())
