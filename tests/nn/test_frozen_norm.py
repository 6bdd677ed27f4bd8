"""A batch norm that stays as it is."""

from __future__ import annotations

import pytest
import torch
import torchvision
from torch import nn

from clearsight.errors import ShapeError
from clearsight.nn.frozen_norm import FrozenBatchNorm


def trained_batch_norm(channels: int, kind: type[nn.Module] = nn.BatchNorm2d, dims: int = 2) -> nn.Module:
    layer = kind(channels)
    with torch.no_grad():
        layer.weight.uniform_(0.5, 2)
        layer.bias.normal_()
    layer.train()
    layer(torch.randn(4, channels, *[5] * dims) * 3 + 1)
    return layer.eval()


@pytest.mark.parametrize(("kind", "dims"), [(nn.BatchNorm1d, 1), (nn.BatchNorm2d, 2), (nn.BatchNorm3d, 3)])
def test_frozen_equals_evaluated_batch_norm_even_in_training(kind: type[nn.Module], dims: int) -> None:
    reference = trained_batch_norm(6, kind, dims)
    frozen = FrozenBatchNorm(6)
    assert frozen.load_state_dict(reference.state_dict()) == ([], [])
    x = torch.randn(2, 6, *[3, 4, 2][:dims])
    torch.testing.assert_close(frozen.train()(x), reference(x))
    assert list(frozen.parameters()) == []
    before = {name: value.clone() for name, value in frozen.state_dict().items()}
    frozen(x)
    for name, value in frozen.state_dict().items():
        torch.testing.assert_close(value, before[name], rtol=0, atol=0)


def test_frozen_is_torchvisions() -> None:
    theirs = torchvision.ops.FrozenBatchNorm2d(6)
    state = {name: torch.rand(6) + 0.1 for name in theirs.state_dict()}
    theirs.load_state_dict(state)
    frozen = FrozenBatchNorm(6)
    frozen.load_state_dict(state)
    x = torch.randn(2, 6, 4, 4)
    torch.testing.assert_close(frozen(x), theirs(x))


def test_a_vector_is_refused() -> None:
    with pytest.raises(ShapeError, match=r"FrozenBatchNorm: x: expected \(n, c, w\) or .*, got \(2, 6\)"):
        FrozenBatchNorm(6)(torch.zeros(2, 6))
