"""Sizes, strides and offsets from what single places see."""

from __future__ import annotations

import pytest
import torch

from clearsight.measure.field_reading import read_extent, read_place


def along(first, last, shape=(1, 4, -1, 1)):
    return -torch.tensor(first).view(shape), torch.tensor(last).view(shape)


def test_a_row_of_places():
    found = read_extent(*along([0.0, 1.0, 5.0, 9.0, 13.0], [3.0, 7.0, 11.0, 15.0, 19.0], (1, 1, -1, 1)), 20)
    assert (found.state, found.pixels, found.stride, found.offset, found.dim) == ("inside", 7, 4.0, 0.5, 2)


def test_after_upsampling_the_pattern_takes_two_places():
    first = [float(4 * (i // 2) + 2) for i in range(10)]
    found = read_extent(*along(first, [one + 5 for one in first], (1, -1)), 40)
    assert (found.pixels, found.stride, found.dim) == (6, 2.0, 1)
    assert found.offset == pytest.approx(2 + 2.5 - 1 + 0.5)


def test_what_cannot_be_told_is_not():
    assert read_extent(*along([0.0, 0.0, 0.0], [5.0, 9.0, 9.0], (1, -1)), 10).state == "cut"
    assert read_extent(*along([-torch.inf], [torch.inf], (1, 1)), 10).state == "whole"
    assert read_extent(*along([torch.inf], [-torch.inf], (1, 1)), 10).state == "nothing"


def test_channels_are_seen_together():
    first = torch.tensor([[3.0, 5.0, 7.0], [2.0, 4.0, 6.0]])
    found = read_extent(-first[None], first[None] + 1, 20)
    assert (found.pixels, found.stride, found.dim) == (3, 2.0, 2)
    assert read_place(-first[None], first[None] + 1, 2, 1) == (4, 7)
    assert read_place(-first[None] - torch.inf, first[None], 2, 1) is None
