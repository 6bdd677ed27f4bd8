"""Pooling: against the formulas, and by counting what is drawn."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import chisquare
from timm.layers.blur_pool import BlurPool2d
from torch import Tensor

from clearsight.errors import ConfigError, RangeError, ShapeError
from clearsight.nn.pool import (
    POOLS,
    BlurPool,
    GeneralisedMean,
    StochasticPool,
    pool,
    probability_weighted_pool,
    stochastic_pool,
)
from clearsight.reference.global_pooling import global_average_pool, global_average_pool_backward, global_max_pool
from clearsight.reference.pooling import average_pool, average_pool_backward, max_pool, max_pool_backward
from clearsight.reference.stochastic_pooling import (
    probability_weighted_pool as reference_mean,
)
from clearsight.reference.stochastic_pooling import probability_weighted_pool_backward
from clearsight.reference.stochastic_pooling import stochastic_pool as reference_draw

WINDOWS = [(2, 2, 0), (3, 2, 1), (3, 1, 1), (2, 3, 1), (3, 3, 0)]  # kernel, stride, padding


def both_ways(layer: Callable[[Tensor], Tensor], x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Output, the gradient that is sent back, and what arrives at x."""
    leaf = x.clone().requires_grad_()
    out = layer(leaf)
    sent = torch.randn_like(out)
    return out.detach(), sent, torch.autograd.grad(out, leaf, sent)[0]


def positive(*shape: int) -> Tensor:
    """Different activations, some of them zero."""
    return (torch.rand(shape, dtype=torch.float64) - 0.3).clamp(min=0)


# ------------------------------------------------------------------------------------------------ max and average
@pytest.mark.parametrize(("kernel", "stride", "padding"), WINDOWS)
def test_maximum_and_average_are_the_reference_there_and_back(kernel: int, stride: int, padding: int) -> None:
    x = torch.randn(2, 3, 7, 8, dtype=torch.float64)
    options = {"stride": stride, "padding": padding}
    out, sent, back = both_ways(pool("max", kernel, **options), x)
    pooled = max_pool(x.numpy(), kernel, **options)
    torch.testing.assert_close(out, torch.from_numpy(pooled.values))
    # overlapping windows: a pixel that wins several gets the sum of their gradients
    torch.testing.assert_close(back, torch.from_numpy(max_pool_backward(sent.numpy(), x.numpy(), pooled.winners)))
    out, sent, back = both_ways(pool("average", kernel, **options), x)
    torch.testing.assert_close(out, torch.from_numpy(average_pool(x.numpy(), kernel, **options)))
    expected = average_pool_backward(sent.numpy(), x.numpy(), kernel, **options)
    torch.testing.assert_close(back, torch.from_numpy(expected))


def test_whole_maps_are_the_reference_there_and_back() -> None:
    x = torch.randn(2, 3, 5, 4, dtype=torch.float64).round()  # with ties, which go to the first
    out, sent, back = both_ways(pool("global_average"), x)
    torch.testing.assert_close(out, torch.from_numpy(global_average_pool(x.numpy())))
    torch.testing.assert_close(back, torch.from_numpy(global_average_pool_backward(sent.numpy(), x.numpy())))
    out, sent, back = both_ways(pool("global_max"), x)
    pooled = global_max_pool(x.numpy())
    torch.testing.assert_close(out, torch.from_numpy(pooled.values))
    torch.testing.assert_close(back, torch.from_numpy(max_pool_backward(sent.numpy(), x.numpy(), pooled.winners)))


# ------------------------------------------------------------------------------------------------ stochastic
def test_draws_are_as_frequent_as_the_values_are_large() -> None:
    values = torch.tensor([0.5, 0.0, 1.0, 2.5, 4.0, 0.0, 1.5, 0.25, 0.25 + 1e-6])
    out = stochastic_pool(values.view(1, 1, 3, 3).expand(20_000, 2, -1, -1), 3, stride=3)
    seen = np.array([(out == value).sum().item() for value in values.unique()])
    assert seen.sum() == out.numel()
    assert seen[0] == 0  # a zero is never drawn
    share = (values.unique() / values.sum()).numpy()[1:].astype(float)
    assert chisquare(seen[1:], share / share.sum() * seen.sum()).pvalue > 1e-3
    rng = np.random.default_rng(0)
    reference = reference_draw(np.broadcast_to(values.view(1, 1, 3, 3).numpy(), (4000, 2, 3, 3)), 3, rng=rng).values
    theirs = np.array([(reference == value).sum() for value in values.unique().numpy()])
    assert chisquare(theirs[1:], share / share.sum() * theirs.sum()).pvalue > 1e-3


@pytest.mark.parametrize(("kernel", "stride", "padding"), WINDOWS)
def test_the_mean_of_many_draws_is_what_evaluation_gives(kernel: int, stride: int, padding: int) -> None:
    x = positive(1, 2, 5, 6)
    draws = stochastic_pool(x.expand(20_000, -1, -1, -1), kernel, stride=stride, padding=padding)
    expected = torch.from_numpy(reference_mean(x.numpy(), kernel, stride=stride, padding=padding))
    error = (draws.mean(0) - expected[0]).abs() / (draws.std(0) / 20_000**0.5 + 1e-9)
    assert error.max() < 4.5  # standard errors


def test_overlapping_windows_draw_for_themselves() -> None:
    x = torch.tensor([[1.0, 1.001, 1.002], [0, 0, 0]]).expand(40_000, 1, -1, -1)
    left, right = stochastic_pool(x, 2, stride=1)[:, 0, 0].unbind(-1)
    middle = torch.tensor(1.001)
    seen = [((left == middle) == a).logical_and((right == middle) == b).sum().item() for a in (0, 1) for b in (0, 1)]
    assert chisquare(seen).pvalue > 1e-3  # one draw shared by both would give 1/3, 1/6, 1/6, 1/3


@pytest.mark.parametrize(("kernel", "stride", "padding"), WINDOWS)
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_the_gradient_goes_to_what_was_drawn(kernel: int, stride: int, padding: int, layout: Any) -> None:
    x = positive(2, 3, 7, 8).contiguous(memory_format=layout)
    x[0, 0] = 0  # whole windows without anything
    out, sent, back = both_ways(lambda x: stochastic_pool(x, kernel, stride=stride, padding=padding), x)
    winners = np.zeros(out.shape, dtype=np.int64)
    first = max_pool(np.zeros(x.shape), kernel, stride=stride, padding=padding).winners  # of ties: the first pixel
    for place in np.ndindex(*out.shape):
        plane = x[place[:2]].flatten()
        value = out[place]
        winners[place] = first[place] if value == 0 else int((plane == value).nonzero())
        sent[place] = sent[place] if value > 0 else 0  # nothing positive, nothing learned
    for place in np.ndindex(*out.shape):  # each lies in its window
        row, column = divmod(int(winners[place]), 8)
        assert 0 <= row - (place[2] * stride - padding) < kernel
        assert 0 <= column - (place[3] * stride - padding) < kernel
    torch.testing.assert_close(back, torch.from_numpy(max_pool_backward(sent.numpy(), x.numpy(), winners)))


@pytest.mark.parametrize(("kernel", "stride", "padding"), WINDOWS)
def test_evaluation_is_the_reference_there_and_back(kernel: int, stride: int, padding: int) -> None:
    x = positive(2, 3, 7, 8)
    x[0, 0] = 0
    layer = StochasticPool(kernel, stride=stride, padding=padding).eval()
    out, sent, back = both_ways(layer, x)
    options = {"stride": stride, "padding": padding}
    torch.testing.assert_close(out, torch.from_numpy(reference_mean(x.numpy(), kernel, **options)))
    expected = probability_weighted_pool_backward(sent.numpy(), x.numpy(), kernel, **options)
    smooth = torch.from_numpy(x.numpy() > 0)  # at zero the function has a corner
    torch.testing.assert_close(back[smooth], torch.from_numpy(expected)[smooth])
    assert torch.autograd.gradcheck(layer, torch.rand(1, 2, 5, 6, dtype=torch.float64, requires_grad=True) + 0.1)


def test_negative_values_count_as_zero_and_nan_shows() -> None:
    x = torch.tensor([[-3.0, 2, -1, -5], [0, -1, -2, -4]]).view(1, 1, 2, 4)
    for layer in (StochasticPool(2), StochasticPool(2).eval()):
        out, _, back = both_ways(layer, x)
        assert out.flatten().tolist() == [2, 0]
        assert (back != 0).flatten().tolist() == [False, True, False, False, False, False, False, False]
        spoilt = x.clone()
        spoilt[0, 0, 1, 3] = float("nan")
        assert layer(spoilt).isnan().flatten().tolist() == [False, True]
    assert probability_weighted_pool(-x, 2, stride=2).flatten().tolist() == pytest.approx([10 / 4, 46 / 12])


def test_draws_follow_the_seed_and_the_mode() -> None:
    layer, x = pool("stochastic"), torch.rand(2, 3, 8, 8)
    torch.manual_seed(3)
    first, second = layer(x), layer(x)
    torch.manual_seed(3)
    assert torch.equal(layer(x), first)
    assert not torch.equal(first, second)
    layer.eval()
    assert torch.equal(layer(x), layer(x))


def test_half_precision_is_not_squared_there() -> None:
    x = torch.full((1, 1, 2, 2), 300.0, dtype=torch.float16)  # 300² is infinite in half precision
    assert StochasticPool(2).eval()(x).item() == 300
    assert stochastic_pool(x, 2, stride=2).dtype == torch.float16


# ------------------------------------------------------------------------------------------------ generalised mean
@pytest.mark.parametrize("power", [0.5, 1.0, 3.0, 10.0])
def test_generalised_mean_is_its_formula(power: float) -> None:
    x = torch.rand(2, 3, 5, 4, dtype=torch.float64) + 0.1
    layer = GeneralisedMean(power).double()
    expected = (x.numpy() ** power).mean((2, 3), keepdims=True) ** (1 / power)
    torch.testing.assert_close(layer(x).detach(), torch.from_numpy(expected))
    assert layer.power.requires_grad
    assert not GeneralisedMean(power, learn=False).power.requires_grad


def test_generalised_mean_between_mean_and_maximum() -> None:
    x = torch.rand(2, 3, 8, 8) * 1e4
    torch.testing.assert_close(GeneralisedMean(1.0)(x), pool("global_average")(x))
    torch.testing.assert_close(GeneralisedMean(500.0)(x), pool("global_max")(x), rtol=0.02, atol=0)  # 1e4^500 is ∞
    torch.testing.assert_close(GeneralisedMean()(-x), torch.full((2, 3, 1, 1), 1e-6))


def test_generalised_mean_gradients() -> None:
    layer = GeneralisedMean(2.5).double()
    x = (torch.rand(2, 2, 3, 3, dtype=torch.float64) + 0.1).requires_grad_()

    def run(x: Tensor, power: Tensor) -> Tensor:
        return torch.func.functional_call(layer, {"power": power}, (x,))

    assert torch.autograd.gradcheck(run, (x, layer.power))
    below = torch.tensor([[-1.0, 2.0]]).view(1, 1, 1, 2).requires_grad_()
    GeneralisedMean()(below).backward()
    assert (below.grad != 0).flatten().tolist() == [False, True]


# ------------------------------------------------------------------------------------------------ blur
@pytest.mark.parametrize("kernel", [3, 5])
@pytest.mark.parametrize("stride", [1, 2])
def test_blur_is_timms(kernel: int, stride: int) -> None:
    x = torch.randn(2, 3, 9, 8, dtype=torch.float64)
    peer = BlurPool2d(3, filt_size=kernel, stride=stride).double()
    layer = BlurPool(kernel, stride=stride).double()
    out, sent, back = both_ways(layer, x)
    leaf = x.clone().requires_grad_()
    expected = peer(leaf)
    torch.testing.assert_close(out, expected)
    torch.testing.assert_close(back, torch.autograd.grad(expected, leaf, sent)[0])
    assert layer.state_dict() == {}


def test_blur_makes_a_shift_matter_less() -> None:
    x = torch.randn(4, 3, 32, 32)
    shifted = x.roll(1, dims=3)
    blurred, strided = (pool("blur")(x) - pool("blur")(shifted)), (x - shifted)[..., ::2, ::2]
    assert blurred[..., 2:-2].std() < 0.5 * strided[..., 2:-2].std()


# ------------------------------------------------------------------------------------------------ all of them
@pytest.mark.parametrize("name", list(POOLS))
def test_layout_precision_and_empty_batches(name: str) -> None:
    layer = pool(name).eval()
    x = torch.rand(2, 4, 8, 6).to(memory_format=torch.channels_last)
    out = layer(x)
    assert out.shape == ((2, 4, 1, 1) if name in ("global_average", "global_max", "gem") else (2, 4, 4, 3))
    assert out.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(out, layer(x.contiguous()))
    torch.testing.assert_close(layer(x.bfloat16()).float(), out, rtol=0.02, atol=0.02)
    for mode in (False, True):
        empty, _, back = both_ways(layer.train(mode), x[:0])
        assert (empty.shape, back.shape) == ((0, *out.shape[1:]), (0, 4, 8, 6))


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ConfigError, match="there is none named 'stochastik'; did you mean 'stochastic'"):
        pool("stochastik")
    for name in ("max", "average", "stochastic"):
        with pytest.raises(ConfigError, match="padding: must be from 0 to half the kernel of 3, got 2"):
            pool(name, 3, padding=2)
        with pytest.raises(ConfigError, match="kernel: must be at least 1, got 0"):
            pool(name, 0)
        with pytest.raises(ConfigError, match="stride: must be at least 1, got 0"):
            pool(name, 2, stride=0)
    for options in ({"kernel": 2}, {"stride": 2}, {"padding": 1}):
        with pytest.raises(ConfigError, match="gem takes whole maps"):
            pool("gem", **options)
    with pytest.raises(ConfigError, match="blur reflects the border"):
        pool("blur", 3, padding=1)
    with pytest.raises(ConfigError, match="kernel: must be odd and at least 1, got 4"):
        pool("blur", 4)
    for arguments in ({"power": 0.0}, {"floor": 0.0}):
        with pytest.raises(RangeError, match="must be above 0"):
            GeneralisedMean(**arguments)
    for layer in (StochasticPool(3), StochasticPool(3).eval()):
        with pytest.raises(ShapeError, match="a window of 3×3 is larger than the padded map of 2×5"):
            layer(torch.zeros(1, 1, 2, 5))
        with pytest.raises(ShapeError, match=r"expected \(n, c, h, w\), got \(5, 5\)"):
            layer(torch.zeros(5, 5))
    for name in ("gem", "blur"):
        with pytest.raises(ShapeError, match=r"expected \(n, c, h, w\), got \(1, 5, 5\)"):
            pool(name)(torch.zeros(1, 5, 5))


def test_layers_print_what_they_are() -> None:
    assert str(pool("stochastic", 3, padding=1)) == "StochasticPool(kernel=3, stride=3, padding=1)"
    assert str(pool("blur")) == "BlurPool(kernel=3, stride=2)"
