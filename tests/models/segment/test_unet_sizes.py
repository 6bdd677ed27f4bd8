"""Sizes of the unpadded U-Net against its layers one by one, and mirrored borders against NumPy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from clearsight.errors import ConfigError, ShapeError
from clearsight.models.segment.unet_sizes import (
    mirror_pad,
    pad_to_multiple,
    valid_crops,
    valid_input_size,
    valid_margin,
    valid_output_size,
    valid_step,
)


def walk(size: int, depth: int) -> tuple[int, list[int]] | None:
    """Side of the output and crop of each skip, layer by layer; None where a pooling meets an odd side or nothing."""
    skips = []
    for level in range(depth + 1):
        size -= 4
        if size < 1:
            return None
        if level < depth:
            if size % 2:
                return None
            skips.append(size)
            size //= 2
    crops = []
    for skip in reversed(skips):
        size *= 2
        crops.append((skip - size) // 2)
        size -= 4
        if size < 1:
            return None
    return size, crops[::-1]


@pytest.mark.parametrize("depth", [1, 2, 3, 4, 5])
def test_sizes_are_those_of_the_layers(depth: int) -> None:
    fits = {size: found for size in range(1, 700) if (found := walk(size, depth))}
    for size in range(1, 700):
        if size in fits:
            out, crops = fits[size]
            assert valid_output_size(size, depth) == out == size - 2 * valid_margin(depth)
            assert valid_crops(depth) == tuple(crops)
        else:
            with pytest.raises(ShapeError, match="without padding a U-Net of"):
                valid_output_size(size, depth)
    for wanted in range(1, 200):
        smallest = min(size for size, (out, _) in fits.items() if out >= wanted)
        assert valid_input_size(wanted, depth) == smallest
    assert {b - a for a, b in zip(list(fits), list(fits)[1:], strict=False)} == {valid_step(depth)}


def test_the_papers_numbers() -> None:
    assert valid_output_size(572, 4) == 388
    assert valid_input_size(388, 4) == 572
    assert valid_margin(4) == (572 - 388) // 2
    assert valid_crops(4) == ((568 - 392) // 2, (280 - 200) // 2, (136 - 104) // 2, (64 - 56) // 2)  # figure 1


def test_messages_name_the_next_size() -> None:
    with pytest.raises(ShapeError, match=r"takes sides of 188, 16 more, and so on, got 573; the next that fits is 588"):
        valid_output_size(573, 4)
    with pytest.raises(ShapeError, match=r"got 12; the next that fits is 188"):
        valid_output_size(12, 4)
    with pytest.raises(ConfigError, match="depth: must be at least 1"):
        valid_margin(0)
    with pytest.raises(ConfigError, match="wanted: must be at least 1"):
        valid_input_size(0, 4)


@pytest.mark.parametrize("size", [(1, 1), (1, 4), (3, 5), (8, 7)])
@pytest.mark.parametrize("pads", [(0, 0, 0, 0), (1, 2, 0, 3), (0, 9, 11, 2), (20, 20, 20, 20)])
def test_mirror_is_numpys(size: tuple[int, int], pads: tuple[int, int, int, int]) -> None:
    x = torch.randn(2, 3, *size)
    left, right, top, bottom = pads
    expected = np.pad(x.numpy(), ((0, 0), (0, 0), (top, bottom), (left, right)), mode="reflect")
    np.testing.assert_array_equal(mirror_pad(x, *pads).numpy(), expected)


def test_the_border_is_not_repeated() -> None:
    row = torch.tensor([[[[1.0, 2.0, 3.0]]]])
    assert mirror_pad(row, 1, 1, 0, 0).flatten().tolist() == [2, 1, 2, 3, 2]  # nn.ReplicationPad2d: 1 1 2 3 3


def test_multiples() -> None:
    x = torch.randn(2, 1, 33, 47).contiguous(memory_format=torch.channels_last)
    found = pad_to_multiple(x, 16)
    assert found.shape == (2, 1, 48, 48)
    assert torch.equal(found[..., :33, :47], x)
    assert torch.equal(found[..., 33, :47], x[..., 31, :])
    assert pad_to_multiple(found, 16) is found
    assert pad_to_multiple(x[:0], 16).shape == (0, 1, 48, 48)


def test_gradients() -> None:
    x = torch.randn(1, 1, 3, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda y: mirror_pad(y, 1, 1, 2, 0), x)
    assert torch.autograd.gradcheck(lambda y: mirror_pad(y, 5, 1, 2, 7), x)


def test_compiled_and_exported() -> None:
    x = torch.randn(1, 1, 5, 3)

    class Padded(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return mirror_pad(x, 7, 1, 0, 4)

    compiled = torch.compile(Padded(), backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(x), Padded()(x))
    torch.testing.assert_close(torch.export.export(Padded(), (x,)).module()(x), Padded()(x))
