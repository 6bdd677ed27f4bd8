from __future__ import annotations

import pytest
import torch
from torch import nn

from clearsight.doctor.run.layer_measures import (
    active_units,
    batch_against_running,
    flat_share,
    moments,
    norms,
    norms_by_layer,
    total_norm,
)

CPU = torch.device("cpu")


def test_moments_of_half_precision_do_not_overflow() -> None:
    mean, square = moments(torch.tensor([-400.0, 400.0], dtype=torch.float16))
    assert (float(mean), float(square)) == (0.0, 160000.0)  # float16 ends at 65504


@pytest.mark.parametrize(("shape", "axis", "units"), [((2, 3, 4, 4), 1, 3), ((2, 5, 3), -1, 3), ((2, 3), 1, 3)])
def test_active_units_by_axis(shape, axis, units) -> None:
    out = torch.zeros(shape)
    out.movedim(axis, 0)[1].fill_(1e-6)
    assert active_units(out, axis).tolist() == [k == 1 for k in range(units)]


def test_one_value_of_a_unit_is_enough() -> None:
    out = torch.zeros(4, 2, 3, 3)
    out[3, 1, 2, 2] = 0.1
    assert active_units(out, 1).tolist() == [False, True]


def test_flat_share_counts_both_sides_and_not_the_edge() -> None:
    assert float(flat_share(torch.tensor([-6.0, -5.0, 0.0, 7.0]), 5.0)) == 0.5


@pytest.mark.parametrize("momentum", [0.1, 0.5])
def test_statistics_of_the_batch_are_told_from_how_the_running_ones_moved(momentum) -> None:
    layer = nn.BatchNorm2d(3, momentum=momentum).double()
    layer.running_mean.copy_(torch.tensor([0.5, -1.0, 2.0]))
    layer.running_var.copy_(torch.tensor([1.0, 4.0, 0.25]))
    before = layer.running_mean.clone(), layer.running_var.clone()
    x = torch.randn(8, 3, 5, 5, dtype=torch.float64) * 3 + 1
    layer(x)
    found = batch_against_running(*before, layer.running_mean, layer.running_var, momentum=momentum, eps=layer.eps)
    mean, variance = x.mean((0, 2, 3)), x.var((0, 2, 3))
    gap = ((mean - before[0]).abs() / (before[1] + layer.eps).sqrt()).mean()
    ratio = torch.exp(torch.log((variance + layer.eps) / (before[1] + layer.eps)).mean())
    torch.testing.assert_close(torch.stack(found), torch.stack([gap, ratio]), rtol=1e-9, atol=0)


def test_norms_by_layer_and_in_total() -> None:
    tensors = [torch.tensor([3.0]), torch.tensor([[4.0]]), torch.tensor([2.0])]
    assert norms_by_layer(tensors, [0, 0, 2], 3, CPU).tolist() == [5, 0, 2]
    assert float(total_norm(tensors)) == pytest.approx(29**0.5)
    assert total_norm([]) is None
    assert norms_by_layer([], [], 2, CPU).tolist() == [0, 0]


def test_norms_of_half_precision_and_of_sparse_gradients() -> None:
    big = torch.full((4,), 300.0, dtype=torch.float16)
    assert float(norms([big, torch.ones(1)])[0]) == 600.0
    sparse = torch.sparse_coo_tensor([[0, 0]], [3.0, 1.0], (5,), check_invariants=True)
    assert float(norms([sparse])[0]) == 4.0  # equal places add up
