"""Pixels to a network's input."""

from __future__ import annotations

import pytest
import torch

from clearsight.data.normalisation import Statistics
from clearsight.errors import ShapeError
from clearsight.nn.input import InputNorm

STATISTICS = Statistics(mean=(0.5, 0.25), std=(0.5, 0.2), scale=255.0)


def test_by_hand() -> None:
    pixels = torch.tensor([255, 51], dtype=torch.uint8).view(1, 2, 1, 1)
    result = InputNorm(STATISTICS)(pixels)
    assert result.dtype == torch.float32
    torch.testing.assert_close(result.flatten(), torch.tensor([1.0, -0.25]))


def test_sixteen_bits_and_floats_give_the_same() -> None:
    share = torch.rand(2, 2, 4, 4)
    deep = (share * 65535).round()
    wide = InputNorm(Statistics(mean=STATISTICS.mean, std=STATISTICS.std, scale=65535.0))
    expected = InputNorm(STATISTICS)(deep / 65535)
    torch.testing.assert_close(wide(deep.to(torch.uint16)), expected)
    torch.testing.assert_close(InputNorm(STATISTICS)((deep / 65535).double()), expected.double(), rtol=1e-5, atol=1e-5)


def test_memory_format_is_kept() -> None:
    images = torch.randint(0, 256, (2, 2, 5, 6), dtype=torch.uint8)
    layer = InputNorm(STATISTICS)
    assert layer(images).is_contiguous()
    last = layer(images.contiguous(memory_format=torch.channels_last))
    assert last.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(last, layer(images))


def test_the_statistics_travel_with_the_weights() -> None:
    assert set(InputNorm(STATISTICS).state_dict()) == {"mean", "std"}


def test_wrong_channels() -> None:
    with pytest.raises(ShapeError, match=r"expected \(n, 2, h, w\), got \(1, 3, 4, 4\); set data.channels"):
        InputNorm(STATISTICS)(torch.zeros(1, 3, 4, 4))
