"""Cosines between weight and input: against the derivation, patch by patch, and at zero."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from clearsight.errors import ConfigError, RangeError, ShapeError
from clearsight.nn.cosine_norm import CosineConv2d, CosineLinear
from clearsight.reference.weight_norm import cosine_norm, cosine_norm_backward


@settings(max_examples=20, deadline=None)
@given(st.sampled_from([(), (0,), (1,), (3,), (2, 3)]), st.integers(1, 5), st.integers(1, 4))
def test_the_linear_layer_is_the_derived_one(leading: tuple[int, ...], features: int, outputs: int) -> None:
    layer = CosineLinear(features, outputs, eps=1e-8).double()
    x = torch.randn(*leading, features, dtype=torch.float64, requires_grad=True)
    grad = torch.randn(*leading, outputs, dtype=torch.float64)
    y = layer(x)
    weight = layer.weight.detach().numpy()
    np.testing.assert_allclose(y.detach().numpy(), cosine_norm(x.detach().numpy(), weight), rtol=1e-10, atol=1e-12)
    found = torch.autograd.grad(y, [x, layer.weight], grad)
    expected = cosine_norm_backward(grad.numpy(), x.detach().numpy(), weight)
    for mine, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(mine.numpy(), other, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"kernel": 1},
        {"kernel": 2, "padding": 0, "stride": 2},
        {"stride": 2, "groups": 2},
        {"dilation": 2, "padding": 3, "groups": 4},
    ],
)
def test_the_convolution_is_the_linear_layer_on_every_patch_of_its_group(options: dict[str, int]) -> None:
    layer = CosineConv2d(4, 8, **options, eps=1e-8).double()
    x = torch.randn(2, 4, 5, 4, dtype=torch.float64, requires_grad=True)
    kernel, groups = options.get("kernel", 3), layer.groups
    y = layer(x)
    patches = F.unfold(x, kernel, layer.dilation, layer.padding, layer.stride)  # n c·k² places
    parts = patches.unflatten(1, (groups, -1)).detach().numpy()
    weights = layer.weight.detach().flatten(1).unflatten(0, (groups, -1)).numpy()
    expected = np.stack([cosine_norm(parts[:, g].swapaxes(1, 2), weights[g]) for g in range(groups)], 1)
    np.testing.assert_allclose(
        y.detach().flatten(2).unflatten(1, (groups, -1)).numpy(), expected.swapaxes(2, 3), rtol=1e-9, atol=1e-12
    )
    assert y.abs().max() <= 1 + 1e-12
    assert torch.autograd.gradcheck(layer, x)
    shape = F.conv2d(x, layer.weight, None, layer.stride, layer.padding, layer.dilation, groups).shape
    assert y.shape == shape


def test_the_response_knows_no_length_of_input_or_weight() -> None:
    layer, x = CosineConv2d(3, 5), torch.randn(1, 3, 6, 6)
    expected = layer(x)
    torch.testing.assert_close(layer(x * 1000), expected)
    torch.testing.assert_close(layer(x * 1e-4), expected)
    with torch.no_grad():
        layer.weight *= torch.rand(5, 1, 1, 1) + 0.1
    torch.testing.assert_close(layer(x), expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_zeros_give_zero_and_finite_gradients(dtype: torch.dtype) -> None:
    for layer, x in (
        (CosineConv2d(3, 5), torch.zeros(2, 3, 6, 6)),
        (CosineLinear(3, 5), torch.zeros(2, 3)),
    ):
        x[1] = torch.randn_like(x[1])
        x = x.to(dtype).requires_grad_()
        y = layer(x)
        y.float().sum().backward()
        assert y[0].eq(0).all()
        assert torch.isfinite(layer.weight.grad).all()
        assert torch.isfinite(x.grad).all()
        layer.zero_grad()
        with torch.no_grad():
            layer.weight.zero_()
        assert layer(x).eq(0).all()


def test_a_scale_is_learned() -> None:
    plain, scaled = CosineLinear(3, 5), CosineLinear(3, 5, scale=8.0)
    scaled.load_state_dict({**plain.state_dict(), "scale": torch.tensor(8.0)})
    x = torch.randn(4, 3)
    torch.testing.assert_close(scaled(x), 8 * plain(x))
    (gradient,) = torch.autograd.grad(scaled(x).sum(), scaled.scale)
    torch.testing.assert_close(gradient, plain(x).sum())
    assert set(CosineConv2d(3, 5, scale=2.0).state_dict()) == {"weight", "scale"}


def test_bad_arguments_are_refused() -> None:
    with pytest.raises(RangeError, match="eps: must be above 0, got 0"):
        CosineLinear(3, 5, eps=0.0)
    with pytest.raises(ConfigError, match="groups: found 2, which does not divide 3 channels"):
        CosineConv2d(3, 4, groups=2)
    with pytest.raises(ConfigError, match="groups: found 2, which does not divide 5 channels"):
        CosineConv2d(4, 5, groups=2)
    with pytest.raises(ConfigError, match="kernel: must be at least 1, got 0"):
        CosineConv2d(3, 5, 0)
    with pytest.raises(ShapeError, match=r"CosineLinear: x: expected \(…, 3\), got \(2, 4\)"):
        CosineLinear(3, 5)(torch.zeros(2, 4))
    with pytest.raises(ShapeError, match=r"CosineConv2d: x: expected \(n, c, h, w\)"):
        CosineConv2d(3, 5)(torch.zeros(2, 3))
