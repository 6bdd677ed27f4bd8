"""A kernel for each image."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from clearsight.errors import ConfigError
from clearsight.nn.dynamic import DynamicConv2d


def test_each_image_is_convolved_with_its_own_mixture() -> None:
    torch.manual_seed(0)
    layer = DynamicConv2d(4, 6, 3, stride=2, experts=3, temperature=0.1)
    torch.nn.init.normal_(layer.bias)
    x = torch.randn(5, 4, 9, 8)
    out, share = layer(x), layer.mixture(x)
    assert out.shape == (5, 6, 5, 4)
    torch.testing.assert_close(share.sum(1), torch.ones(5))
    assert not torch.allclose(share[0], share[1])
    for i in range(5):
        weight = sum(s * w for s, w in zip(share[i], layer.weight.chunk(3), strict=True))
        torch.testing.assert_close(out[i : i + 1], F.conv2d(x[i : i + 1], weight, share[i] @ layer.bias, 2, 1))


def test_one_expert_is_a_convolution_and_temperature_evens_out() -> None:
    layer = DynamicConv2d(4, 6, experts=1)
    x = torch.randn(2, 4, 7, 7)
    torch.testing.assert_close(layer(x), F.conv2d(x, layer.weight, layer.bias[0], padding=1))
    even = DynamicConv2d(4, 6, experts=4, temperature=1e6).mixture(x)
    torch.testing.assert_close(even, torch.full((2, 4), 0.25))


def test_all_parts_learn_and_an_empty_batch_passes() -> None:
    layer = DynamicConv2d(4, 6)
    layer(torch.randn(2, 4, 7, 7)).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in layer.parameters())
    assert layer(torch.zeros(0, 4, 7, 6)).shape == (0, 6, 7, 6)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.isfinite(layer(torch.randn(2, 4, 7, 7)).float()).all()


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ConfigError, match="expected experts >= 1 and an odd kernel, got 4 and 2"):
        DynamicConv2d(4, 6, 2)
