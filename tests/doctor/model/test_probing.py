from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from torch import nn

from clearsight.doctor.model.probing import (
    first_logits,
    labels_of,
    loss_of,
    roughen,
    subset,
    undropped,
    untouched,
)
from clearsight.types import Targets


def state(model):
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    return {name: (t.data_ptr(), t.dtype, t.requires_grad, t.detach().clone()) for name, t in tensors.items()}


def assert_same(before, after):
    assert before.keys() == after.keys()
    for name in before:
        assert before[name][:3] == after[name][:3]
        assert torch.equal(before[name][3], after[name][3])


@pytest.mark.parametrize("fails", [False, True])
def test_whatever_is_done_inside_is_undone(cnn_bn, evidence_of, fails):
    evidence = evidence_of(cnn_bn)
    cnn_bn[1].eval()
    cnn_bn[0].weight.requires_grad_(False)
    loss_of(evidence).backward()
    gradient = cnn_bn[4].weight.grad
    kept = gradient.clone()
    before, modes = state(cnn_bn), [module.training for module in cnn_bn.modules()]
    try:
        with untouched(cnn_bn):
            assert cnn_bn[4].weight.grad is None
            cnn_bn.eval().train().double().requires_grad_(True)
            for parameter in cnn_bn.parameters():
                parameter.data = parameter.data * 2
            cnn_bn[5].running_mean = torch.ones(32, dtype=torch.float64)
            cnn_bn[0].extra = nn.Parameter(torch.zeros(1))
            loss_of(evidence, evidence.images.double()).backward()
            if fails:
                raise KeyboardInterrupt
    except KeyboardInterrupt:
        pass
    assert_same(before, state(cnn_bn))
    assert modes == [module.training for module in cnn_bn.modules()]
    assert cnn_bn[4].weight.grad is gradient
    assert torch.equal(gradient, kept)
    assert not torch.is_grad_enabled() or gradient is not None


def test_random_streams_go_on_as_if_nothing_had_been(mlp):
    def draw():
        return torch.rand(1).item(), np.random.rand(), random.random()  # noqa: NPY002

    torch.manual_seed(3)
    np.random.seed(3)  # noqa: NPY002
    random.seed(3)
    expected = draw()
    torch.manual_seed(3)
    np.random.seed(3)  # noqa: NPY002
    random.seed(3)
    with untouched(mlp):
        torch.manual_seed(7)
        draw()
    assert draw() == expected


def test_the_loss_is_the_same_from_call_to_call_and_images_stay(evidence_of):
    model = nn.Sequential(nn.Flatten(), nn.ReLU(inplace=True), nn.Dropout(0.5), nn.Linear(64, 10))
    evidence = evidence_of(model)
    images = evidence.images.clone()
    first = float(loss_of(evidence).detach())
    assert first == float(loss_of(evidence).detach())
    assert torch.equal(images, evidence.images)
    undropped(model)
    assert float(loss_of(evidence).detach()) != first


def test_parts_of_a_batch(mlp, evidence_of):
    evidence = evidence_of(mlp)
    images, targets = subset(evidence, [3, 1])
    assert torch.equal(images, evidence.images[[3, 1]])
    assert torch.equal(targets, evidence.targets[[3, 1]])


def test_labels_and_logits_are_found():
    ids = torch.tensor([1, 2])
    empty = torch.zeros(0, dtype=torch.int64)
    targets = Targets(boxes=torch.zeros(0, 4), labels=empty, image=empty)
    assert labels_of(targets) is None
    targets.label = ids
    assert labels_of(targets) is ids
    assert labels_of(ids) is ids
    outputs = {"count": torch.tensor(2.0), "ids": ids, "logits": torch.zeros(2, 3, dtype=torch.bfloat16)}
    found = first_logits(outputs, 2)
    assert found.shape == (2, 3)
    assert found.dtype == torch.float32
    assert first_logits(outputs, 5) is None


def test_a_zero_layer_speaks_after_noise():
    model = nn.Linear(8, 3)
    nn.init.zeros_(model.weight)
    with untouched(model):
        roughen(model)
        assert 0.01 < float(model.weight.detach().std()) < 0.04
    assert float(model.weight.detach().abs().max()) == 0
