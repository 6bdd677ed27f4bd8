"""Sums and maxima of groups, against Python's."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from clearsight.ops.segments import segment_max, segment_sum


@pytest.mark.parametrize("shape", [(), (3,)])
def test_equals_the_loop(shape: tuple[int, ...]) -> None:
    segment = torch.tensor([0, 0, 2, 2, 2, 3, 6])
    values = torch.randn(7, *shape)
    total, most = segment_sum(values, segment, segments=8), segment_max(values, segment, segments=8)
    for number in range(8):
        mine = values[segment == number]
        torch.testing.assert_close(total[number], mine.sum(dim=0))
        expected = mine.amax(dim=0) if len(mine) else torch.full(shape, -math.inf)
        torch.testing.assert_close(most[number], expected)


def test_gradients() -> None:
    segment = torch.tensor([0, 0, 2, 2, 5])
    values = torch.randn(5, 2, dtype=torch.float64, requires_grad=True)

    def both(x: Tensor) -> tuple[Tensor, Tensor]:
        return segment_sum(x, segment, segments=7), segment_max(x[:, 0], segment, segments=7)[segment]

    assert torch.autograd.gradcheck(both, (values,))


@pytest.mark.parametrize("segments", [0, 3])
def test_no_values_keep_the_graph(segments: int) -> None:
    values = torch.zeros(0, requires_grad=True)
    total = segment_sum(values * 2, torch.zeros(0, dtype=torch.int64), segments=segments)
    assert total.tolist() == [0.0] * segments
    total.sum().backward()
    assert values.grad is not None


def test_the_same_bits_every_time() -> None:
    values, segment = torch.randn(5000) * 1e4, torch.randint(40, (5000,)).sort().values
    first = segment_sum(values, segment, segments=40)
    assert all(torch.equal(first, segment_sum(values, segment, segments=40)) for _ in range(5))
