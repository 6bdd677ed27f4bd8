"""Reaches: the same as dense tensors, without keeping what repeats."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from clearsight.measure.reach import NOTHING, alike, constant, largest, moved, reshaped, settled, slim, union, windows


def rows(*shape):
    return torch.arange(float(shape[2]))[:, None].expand(shape)


def test_what_repeats_is_kept_once():
    x = rows(1, 8, 5, 6)
    assert slim(x).shape == (1, 1, 5, 1)
    dense = x.contiguous()
    assert not alike(dense, 1)
    assert settled(dense).stride()[1] == settled(dense).stride()[3] == 0
    assert torch.equal(settled(dense), dense)


@given(st.permutations([2, 3, 4, 5]), st.sampled_from([(6, 20), (2, 3, 20), (120,), (24, 5), (1, 120, 1), (2, 60)]))
def test_reshaping_is_reshaping(shape, wanted):
    one = torch.arange(float(shape[2])).view(1, 1, -1, 1).expand(shape)
    for x in (one, torch.rand(shape), constant(3.0, shape)):
        assert torch.equal(reshaped(x, wanted), x.reshape(wanted))
    assert slim(reshaped(constant(3.0, shape), wanted)).numel() == 1


def test_channels_stay_out_of_a_window_partition():
    x = rows(1, 6, 8, 8).permute(0, 2, 3, 1)
    parts = reshaped(x, (1, 2, 4, 2, 4, 6)).permute(0, 1, 3, 2, 4, 5)
    flat = reshaped(parts, (4, 16, 6))
    assert torch.equal(flat, x.reshape(1, 2, 4, 2, 4, 6).permute(0, 1, 3, 2, 4, 5).reshape(4, 16, 6))
    assert slim(flat).shape[2] == 1


def test_union_largest_and_moves():
    x, y = rows(1, 2, 3, 4), constant(1.5, (3, 1))
    assert torch.equal(union([x, y], (1, 2, 3, 4)), torch.maximum(x, torch.tensor(1.5)))
    assert union([], (2,)).tolist() == [NOTHING, NOTHING]
    assert torch.equal(largest(x, [2], keepdim=False), x.amax(2))
    assert largest(x, [-2, 1], keepdim=True).shape == (1, 1, 1, 4)
    assert torch.equal(moved(x, (), lambda t: t.roll(1, 2)), x.roll(1, 2))


def test_windows_take_nothing_from_outside():
    x = rows(1, 1, 3, 2)
    found = windows(x, 2, torch.tensor([[-1, 0], [1, 2], [3, 4]]))
    assert found[0, 0, :, 0].tolist() == [0.0, 2.0, NOTHING]
    assert windows(x, 3, torch.tensor([[0], [0], [1]])).shape == (1, 1, 3, 3)


@pytest.mark.parametrize("shape", [(0, 3), (2, 0)])
def test_empty_tensors(shape):
    assert reshaped(torch.empty(shape), (0,)).shape == (0,)
