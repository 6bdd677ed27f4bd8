"""What rules on models look at."""

from __future__ import annotations

import torch
from torch import nn

from clearsight.doctor.model.evidence import ModelEvidence


def test_the_flow_is_followed_once_and_leaves_no_trace() -> None:
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 10))
    calls = []

    def loss(net: nn.Module, images: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        calls.append(1)
        return nn.functional.cross_entropy(net(images), targets)

    evidence = ModelEvidence(
        model=model,
        images=torch.rand(4, 1, 8, 8),
        targets=torch.arange(4),
        loss=loss,
        take=lambda targets, indices: targets[list(indices)],
    )
    before = {name: value.clone() for name, value in model.state_dict().items()}
    assert evidence.flow is evidence.flow
    assert len(calls) == 1
    assert evidence.flow.parameters_used == {name for name, _ in model.named_parameters()}
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in before.items())
    assert all(parameter.grad is None for parameter in model.parameters())
