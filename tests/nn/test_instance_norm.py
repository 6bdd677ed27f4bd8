"""Instance norm; `test_norm.py` holds it against its derivation."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from clearsight.errors import ShapeError
from clearsight.nn.instance_norm import InstanceNorm

PEERS = {1: nn.InstanceNorm1d, 2: nn.InstanceNorm2d, 3: nn.InstanceNorm3d}


@pytest.mark.parametrize("dims", PEERS)
@pytest.mark.parametrize("affine", [False, True])
def test_it_is_pytorchs_and_loads_its_weights(dims: int, affine: bool) -> None:
    theirs = PEERS[dims](5, eps=1e-3, affine=affine)
    for parameter in theirs.parameters():
        nn.init.normal_(parameter)
    ours = InstanceNorm(5, eps=1e-3, affine=affine)
    ours.load_state_dict(theirs.state_dict())
    x = torch.randn(2, 5, *[4] * dims) * 3 + 1
    torch.testing.assert_close(ours(x), theirs(x))
    torch.testing.assert_close(ours.eval()(x), theirs.eval()(x))


def test_one_value_per_channel_is_refused() -> None:
    with pytest.raises(ShapeError, match=r"expected more than one value per channel, got \(2, 5, 1, 1\)"):
        InstanceNorm(5)(torch.zeros(2, 5, 1, 1))
    with pytest.raises(ShapeError, match=r"got \(2, 5\)"):
        InstanceNorm(5)(torch.zeros(2, 5))
