"""Layers in a row that give a pyramid."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from clearsight.errors import ShapeError
from clearsight.models.backbones.pyramid import Pyramid


class _Never(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        raise RuntimeError


def test_it_gives_what_ends_a_level_and_runs_nothing_behind_the_last() -> None:
    layers = [nn.Conv2d(2, 4, 1), nn.MaxPool2d(2), nn.Conv2d(4, 8, 1), _Never()]
    row = Pyramid(layers, ends={"c2": 0, "c3": 2}, in_channels=2, strides={"c2": 1, "c3": 2})
    x = torch.randn(1, 2, 6, 6)
    levels = row(x)
    assert list(levels) == ["c2", "c3"]
    assert torch.equal(levels["c2"], layers[0](x))
    assert torch.equal(levels["c3"], layers[2](layers[1](layers[0](x))))
    assert [name for name, _ in row.named_parameters()] == ["0.weight", "0.bias", "2.weight", "2.bias"]


def test_it_refuses_what_its_network_cannot_take() -> None:
    row = Pyramid([nn.Identity()], ends={"c2": 0}, in_channels=2, strides={"c2": 4})
    with pytest.raises(ShapeError, match=r"images \(n, 2, h, w\), got \(1, 3, 8, 8\)"):
        row(torch.zeros(1, 3, 8, 8))
    with pytest.raises(ShapeError, match="images of 3×8 are smaller than its largest stride, 4"):
        row(torch.zeros(1, 2, 3, 8))
