"""Attention among positions and among channels against the equations in NumPy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from clearsight.errors import ConfigError, ShapeError
from clearsight.nn.attention import attend
from clearsight.nn.dual_attention import ChannelAttention, PositionAttention


def softmax(scores: np.ndarray) -> np.ndarray:
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    return weights / weights.sum(-1, keepdims=True)


def awake(layer: nn.Module, gamma: float = 0.75) -> nn.Module:
    """A layer that has learned to look."""
    with torch.no_grad():
        layer.gamma.fill_(gamma)
    return layer


def through(convolution: nn.Conv2d, x: np.ndarray) -> np.ndarray:
    weight, bias = convolution.weight.detach().numpy()[:, :, 0, 0], convolution.bias.detach().numpy()
    return np.einsum("oc,nci->noi", weight, x) + bias[:, None]


@pytest.mark.parametrize("shape", [(2, 16, 5, 4), (1, 8, 1, 1), (3, 24, 1, 7)])
def test_positions_are_the_equations(shape: tuple[int, ...]) -> None:
    layer, x = awake(PositionAttention(shape[1])).double(), torch.randn(shape, dtype=torch.float64)
    assert layer.query_conv.out_channels == layer.key_conv.out_channels == shape[1] // 8
    flat = x.flatten(2).numpy()
    q, k, v = (through(conv, flat) for conv in (layer.query_conv, layer.key_conv, layer.value_conv))
    weights = softmax(np.einsum("ndi,ndj->nij", q, k))  # of each position i, over the j
    expected = 0.75 * np.einsum("nij,ncj->nci", weights, v).reshape(shape) + x.numpy()
    np.testing.assert_allclose(layer(x).detach().numpy(), expected, atol=1e-10)


@pytest.mark.parametrize("shape", [(2, 6, 5, 4), (1, 1, 3, 3), (3, 9, 1, 1)])
def test_channels_are_the_authors_code(shape: tuple[int, ...]) -> None:
    layer, x = awake(ChannelAttention()).double(), torch.randn(shape, dtype=torch.float64)
    flat = x.flatten(2).numpy()
    energy = np.einsum("nci,ndi->ncd", flat, flat)
    weights = softmax(energy.max(-1, keepdims=True) - energy)
    expected = 0.75 * np.einsum("ncd,ndi->nci", weights, flat).reshape(shape) + x.numpy()
    np.testing.assert_allclose(layer(x).detach().numpy(), expected, atol=1e-10)


def test_a_channel_takes_in_the_one_that_is_least_like_it() -> None:
    x = torch.zeros(1, 3, 1, 8)
    x[0, 0], x[0, 1], x[0, 2] = 4.0, 3.9, -4.0
    out = awake(ChannelAttention(), 1.0)(x)
    torch.testing.assert_close(out[0, 0], x[0, 0] + x[0, 2])


@pytest.mark.parametrize("layer", [PositionAttention(8), ChannelAttention()])
def test_at_first_nothing_changes_and_gamma_learns(layer: nn.Module) -> None:
    x = torch.randn(2, 8, 4, 5)
    out = layer(x)
    assert torch.equal(out, x)
    out.square().sum().backward()
    assert layer.gamma.grad.abs() > 0


def test_where_there_is_a_kernel_it_gives_the_same() -> None:
    layer, x = awake(PositionAttention(16), 1.0), torch.randn(2, 16, 6, 5)
    q, k, v = (conv(x).flatten(2).mT[:, None] for conv in (layer.query_conv, layer.key_conv, layer.value_conv))
    other = x + attend(q, k, v, scale=1.0)[:, 0].mT.reshape(x.shape)
    torch.testing.assert_close(layer(x), other)


@pytest.mark.parametrize("make", [lambda: PositionAttention(8), ChannelAttention])
def test_gradients(make: type[ChannelAttention]) -> None:
    layer = awake(make()).double()
    x = torch.randn(1, 8, 2, 2, dtype=torch.float64, requires_grad=True)
    names = [name for name, _ in layer.named_parameters()]

    def run(x: Tensor, *weights: Tensor) -> Tensor:
        return torch.func.functional_call(layer, dict(zip(names, weights, strict=True)), (x,))

    assert torch.autograd.gradcheck(run, (x, *layer.parameters()))


def test_energies_keep_their_digits_in_mixed_precision() -> None:
    # Products of 4096 positions, around 4096 with differences of some units: bfloat16 has steps of 16 there.
    base = torch.ones(1, 1, 64, 64)
    x = base + torch.tensor([0.0, 0.0005, 0.001, 0.002]).view(1, 4, 1, 1)
    layer = awake(ChannelAttention(), 1.0)
    expected = layer(x * torch.linspace(0.9, 1.1, 64)) - x * torch.linspace(0.9, 1.1, 64)
    with torch.autocast("cpu", torch.bfloat16):
        found = layer(x * torch.linspace(0.9, 1.1, 64)) - x * torch.linspace(0.9, 1.1, 64)
    torch.testing.assert_close(found, expected, rtol=0, atol=0)


@pytest.mark.parametrize("make", [lambda: PositionAttention(8), ChannelAttention])
def test_channels_last_stays(make: type[ChannelAttention]) -> None:
    layer, x = awake(make()), torch.randn(2, 8, 5, 6)
    out = layer(x.to(memory_format=torch.channels_last))
    assert out.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(out, layer(x))
    assert layer(x).is_contiguous()


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ConfigError, match="PositionAttention: reduction: found 8, which does not divide 12 channels"):
        PositionAttention(12)
    for layer in (PositionAttention(8), ChannelAttention()):
        with pytest.raises(ShapeError, match=rf"{type(layer).__name__}: x: expected \(n, c, h, w\), got \(2, 8, 4\)"):
            layer(torch.randn(2, 8, 4))
