"""Statistics of several batches, and the gradient through the share of one."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from clearsight.errors import ShapeError
from clearsight.nn.window_norm import Statistics, accumulate, measure, pooled, window_norm

EPS = 1e-5


def statistics(batches: list[Tensor]) -> Statistics:
    """Those of each batch, `(t, c)`, by PyTorch's own means."""
    means = torch.stack([y.mean((0, 2, 3)) for y in batches])
    variances = torch.stack([y.var((0, 2, 3), correction=0) for y in batches])
    return Statistics(means, variances, torch.tensor([y.numel() // y.shape[1] for y in batches]))


def by_autograd(y: Tensor, past: Statistics, weight: Tensor, bias: Tensor) -> Tensor:
    """The plain formula: means of y and y² over all values, the past ones constant."""
    own = y.numel() // y.shape[1]
    total = own + past.values.sum()
    mean = (own * y.mean((0, 2, 3)) + (past.values[:, None] * past.mean).sum(0)) / total
    square = (own * y.square().mean((0, 2, 3)) + (past.values[:, None] * (past.var + past.mean**2)).sum(0)) / total
    scale = weight * (square - mean**2 + EPS).rsqrt()
    return (y - mean.view(1, -1, 1, 1)) * scale.view(1, -1, 1, 1) + bias.view(1, -1, 1, 1)


def test_a_measured_batch_has_batch_norms_statistics() -> None:
    y = torch.randn(3, 4, 5, 6) * 7 + 50
    batch = measure(y, eps=EPS)
    torch.testing.assert_close(batch.statistics.mean, y.mean((0, 2, 3)))
    torch.testing.assert_close(batch.statistics.var, y.var((0, 2, 3), correction=0))
    assert batch.statistics.values == 90
    torch.testing.assert_close(batch.normed, nn.functional.batch_norm(y, None, None, training=True, eps=EPS))
    half = measure(y.bfloat16(), eps=EPS)
    assert half.normed.dtype == torch.bfloat16
    assert half.statistics.mean.dtype == torch.float32
    with pytest.raises(ShapeError, match=r"more than one value per channel in training, got \(1, 4, 1, 1\)"):
        measure(torch.zeros(1, 4, 1, 1), eps=EPS)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(1, 4), min_size=2, max_size=5))
def test_pooled_statistics_are_those_of_the_batches_put_together(sizes: list[int]) -> None:
    batches = [torch.randn(n, 3, 2, 3).double() * (n + 1) + 10 * n for n in sizes]
    own, past = statistics(batches[:1]), statistics(batches[1:])
    found = pooled(Statistics(own.mean[0], own.var[0], own.values[0]), past)
    expected = statistics([torch.cat(batches)])
    torch.testing.assert_close(found, Statistics(expected.mean[0], expected.var[0], expected.values[0]))
    left_out = past._replace(values=torch.zeros_like(past.values))
    alone = pooled(Statistics(own.mean[0], own.var[0], own.values[0]), left_out)
    torch.testing.assert_close(alone.var, own.var[0])


def test_pooling_keeps_the_digits_that_a_difference_of_squares_would_lose() -> None:
    batches = [torch.randn(8, 3, 8, 8) * 0.01 + 100 for _ in range(2)]
    own, past = statistics(batches[:1]), statistics(batches[1:])
    found = pooled(Statistics(own.mean[0], own.var[0], own.values[0]), past).var
    expected = torch.cat(batches).double().var((0, 2, 3), correction=0).float()
    torch.testing.assert_close(found, expected, rtol=1e-2, atol=0)


@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("past_batches", [0, 1, 3])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_value_and_gradient_are_those_of_the_plain_formula(
    affine: bool, past_batches: int, layout: torch.memory_format
) -> None:
    y = (torch.randn(2, 4, 3, 5).double() * 3 + 1).contiguous(memory_format=layout).requires_grad_()
    weight, bias = (torch.rand(4).double() + 0.5).requires_grad_(), torch.randn(4).double().requires_grad_()
    past = statistics([torch.randn(n + 1, 4, 3, 5).double() * 2 - 1 for n in range(max(past_batches, 1))])
    past = past if past_batches else past._replace(values=torch.zeros_like(past.values))
    batch = measure(y, eps=EPS)
    given_affine = (weight, bias) if affine else (None, None)
    found = window_norm(y, batch, pooled(batch.statistics, past), *given_affine, eps=EPS)
    ones, zeros = torch.ones(4).double(), torch.zeros(4).double()
    expected = by_autograd(y, past, weight if affine else ones, bias if affine else zeros)
    torch.testing.assert_close(found, expected)
    assert found.is_contiguous(memory_format=layout)
    leaves, grad = [y, weight, bias] if affine else [y], torch.randn_like(y)
    gradients = torch.autograd.grad(expected, leaves, grad)
    torch.testing.assert_close(torch.autograd.grad(found, leaves, grad), gradients, rtol=1e-9, atol=1e-9)
    if not past_batches and affine:  # and for a window of one it is batch norm
        plain = nn.functional.batch_norm(y, None, None, weight, bias, training=True, eps=EPS)
        torch.testing.assert_close(torch.autograd.grad(plain, leaves, grad), gradients)


def test_only_one_derivative_and_a_word_about_it() -> None:
    y = torch.randn(2, 4, 3, 5, requires_grad=True)
    batch = measure(y, eps=EPS)
    output = window_norm(y, batch, batch.statistics, None, None, eps=EPS)
    (first,) = torch.autograd.grad(output.square().sum(), y, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        first.sum().backward()


@pytest.mark.parametrize("momentum", [0.3, None])
def test_running_statistics_are_gathered_as_by_batch_norm(momentum: float | None) -> None:
    ours, theirs = nn.BatchNorm2d(4, momentum=momentum), nn.BatchNorm2d(4, momentum=momentum)
    for _ in range(3):
        y = torch.randn(2, 4, 3, 5) * 3 + 1
        theirs(y)
        accumulate(ours, measure(y, eps=EPS).statistics)
    torch.testing.assert_close(ours.state_dict(), theirs.state_dict())
