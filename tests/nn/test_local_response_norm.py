"""Local response norm: against PyTorch's, and its gradient against the derived one and finite differences."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from clearsight.errors import ConfigError, RangeError, ShapeError
from clearsight.nn.local_response_norm import LocalResponseNorm, local_response_norm
from clearsight.reference import local_response_norm as reference


@settings(max_examples=40, deadline=None)
@given(
    st.integers(0, 2), st.integers(1, 7), st.integers(1, 3), st.integers(1, 9), st.sampled_from([0.75, 0.6, 1.0, 0.5])
)
def test_it_is_pytorchs_and_its_gradient_the_derived_one(n: int, c: int, side: int, size: int, beta: float) -> None:
    x = torch.randn(n, c, side, 2, dtype=torch.float64, requires_grad=True)
    grad = torch.randn_like(x)
    y = local_response_norm(x, size=size, alpha=0.7, beta=beta, k=1.5)
    torch.testing.assert_close(y, F.local_response_norm(x, size, 0.7, beta, 1.5))
    (found,) = torch.autograd.grad(y, x, grad)
    mine, other = x.detach().numpy(), grad.numpy()
    expected = reference.local_response_norm_backward(other, mine, size=size, alpha=0.7, beta=beta, k=1.5)
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-10, atol=1e-12)
    expected = reference.local_response_norm(mine, size=size, alpha=0.7, beta=beta, k=1.5)
    np.testing.assert_allclose(y.detach().numpy(), expected, rtol=1e-10)


@pytest.mark.parametrize("size", [1, 4, 5, 12])
@pytest.mark.parametrize("beta", [0.75, 0.4])
def test_it_can_be_differentiated_twice(size: int, beta: float) -> None:
    x = torch.randn(2, 5, 2, 2, dtype=torch.float64, requires_grad=True)

    def layer(x: torch.Tensor) -> torch.Tensor:
        return local_response_norm(x, size=size, alpha=0.7, beta=beta, k=1.5)

    assert torch.autograd.gradcheck(layer, x)
    assert torch.autograd.gradgradcheck(layer, x)


@pytest.mark.parametrize("dims", [1, 2, 3])
def test_the_layer_has_pytorchs_defaults(dims: int) -> None:
    x = torch.randn(2, 8, *[4] * dims) * 50
    torch.testing.assert_close(LocalResponseNorm()(x), nn.LocalResponseNorm(5)(x))


def test_squares_do_not_overflow_in_half_precision() -> None:
    x = torch.tensor([[300.0, -300.0, 10.0]]).view(1, 3, 1)
    y = LocalResponseNorm(3, alpha=1.0)(x.half())
    assert y.dtype == torch.float16
    torch.testing.assert_close(y.float(), LocalResponseNorm(3, alpha=1.0)(x), rtol=2e-3, atol=0)


def test_bad_arguments_are_refused() -> None:
    with pytest.raises(ConfigError, match="size: must be at least 1, got 0"):
        LocalResponseNorm(0)
    with pytest.raises(RangeError, match=r"k must be above 0 and alpha at least 0, got 0 and 0\.0001"):
        LocalResponseNorm(k=0.0)
    with pytest.raises(RangeError, match="got 1 and -1"):
        LocalResponseNorm(alpha=-1.0)
    with pytest.raises(ShapeError, match=r"local_response_norm: x: expected .*, got \(2, 3\)"):
        LocalResponseNorm()(torch.zeros(2, 3))
