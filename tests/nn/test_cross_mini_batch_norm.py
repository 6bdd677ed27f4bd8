"""The last mini-batch of a step is normalised as the whole batch would be."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from clearsight.errors import ConfigError, ShapeError
from clearsight.nn.cross_mini_batch_norm import CrossMiniBatchNorm, start_batch


def mini_batches(*sizes: int) -> list[Tensor]:
    return [torch.randn(n, 3, 4, 5) * (i + 1) + 2 * i for i, n in enumerate(sizes)]


def last_of(batches: list[Tensor]) -> Tensor:
    """The last mini-batch as batch norm has it that sees all of them at once."""
    whole = nn.functional.batch_norm(torch.cat(batches), None, None, training=True)
    return whole[-len(batches[-1]) :]


def test_each_mini_batch_sees_those_before_it_in_its_batch_and_no_others() -> None:
    layer, batches = CrossMiniBatchNorm(3, window=3), mini_batches(2, 1, 3, 2, 2, 2, 1)
    for number, batch in enumerate(batches):
        start = number - number % 3
        torch.testing.assert_close(layer(batch), last_of(batches[start : number + 1]))


def test_a_short_batch_is_ended_by_the_start_of_the_next() -> None:
    layer, batches = CrossMiniBatchNorm(3, window=3), mini_batches(2, 2, 2, 2, 2)
    model = nn.Sequential(nn.Identity(), layer)
    for batch in batches[:2]:
        model(batch)
    start_batch(model)
    for end in (3, 4, 5):
        torch.testing.assert_close(model(batches[end - 1]), last_of(batches[2:end]))


def test_a_window_of_one_is_batch_norm_with_its_gradients_and_statistics() -> None:
    ours, theirs = CrossMiniBatchNorm(3, window=1), nn.BatchNorm2d(3)
    for batch in mini_batches(2, 3):
        x = batch.requires_grad_()
        mine, other = ours(x), theirs(x)
        torch.testing.assert_close(mine, other)
        grad = torch.randn_like(x)
        torch.testing.assert_close(torch.autograd.grad(mine, x, grad), torch.autograd.grad(other, x, grad))
    torch.testing.assert_close(ours.running_var, theirs.running_var)
    (x,) = mini_batches(2)
    torch.testing.assert_close(ours.eval()(x), theirs.eval()(x))


def test_running_statistics_take_in_what_was_normalised_with() -> None:
    layer, batches = CrossMiniBatchNorm(3, window=2, momentum=1.0), mini_batches(2, 3)
    for batch in batches:
        layer(batch)
    whole = torch.cat(batches)
    torch.testing.assert_close(layer.running_mean, whole.mean((0, 2, 3)))
    torch.testing.assert_close(layer.running_var, whole.var((0, 2, 3)))


def test_the_state_goes_on_bit_by_bit_and_an_ordinary_batch_norms_loads() -> None:
    layer, batches = CrossMiniBatchNorm(3, window=3), mini_batches(2, 2, 2, 2)
    for batch in batches[:2]:
        layer(batch)
    again, copied = CrossMiniBatchNorm(3, window=3), copy.deepcopy(layer)
    again.load_state_dict(layer.state_dict())
    for batch in batches[2:]:
        expected = layer(batch)
        assert torch.equal(again(batch), expected)
        assert torch.equal(copied(batch), expected)
    plain = nn.BatchNorm2d(3)
    plain(batches[0])
    assert again.load_state_dict(plain.state_dict()) == ([], [])
    torch.testing.assert_close(again(batches[1]), last_of(batches[1:2]))


def test_fresh_statistics_forget_the_batch_and_empty_ones_change_nothing() -> None:
    layer, batches = CrossMiniBatchNorm(3), mini_batches(2, 2)
    layer(batches[0])
    before = {name: value.clone() for name, value in layer.state_dict().items()}
    assert layer(torch.zeros(0, 3, 4, 5)).shape == (0, 3, 4, 5)
    torch.testing.assert_close(layer.state_dict(), before)
    layer.reset_running_stats()
    torch.testing.assert_close(layer(batches[1]), last_of(batches[1:]))


def test_bad_arguments_are_refused() -> None:
    with pytest.raises(ConfigError, match="window: must be at least 1, got 0"):
        CrossMiniBatchNorm(3, window=0)
    with pytest.raises(ShapeError, match=r"CrossMiniBatchNorm: x: expected \(n, c, h, w\), got \(2, 3\)"):
        CrossMiniBatchNorm(3)(torch.zeros(2, 3))
