"""Statistics of earlier iterations under the weights of today: against autograd, exact cases, and the true ones."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from clearsight.errors import ConfigError, ShapeError
from clearsight.nn.conv import ConvNormAct, conv_norm
from clearsight.nn.cross_iteration_norm import CrossIterationBatchNorm, patch_mean
from clearsight.nn.freeze import freeze_norm

GEOMETRIES = [
    {"kernel_size": 3, "padding": 1},
    {"kernel_size": 1},
    {"kernel_size": (3, 2), "stride": (2, 1), "padding": (0, 1), "groups": 2},
    {"kernel_size": 3, "stride": 3, "padding": 4, "dilation": 2},
    {"kernel_size": 2, "stride": 3, "groups": 4},
]


def pair(window: int = 4, *, burn_in: int = 0, **geometry: object) -> tuple[nn.Conv2d, CrossIterationBatchNorm]:
    """A convolution and its norm, in double precision."""
    geometry = geometry or GEOMETRIES[0]
    convolution = nn.Conv2d(4, 8, bias=False, **geometry).double()
    return convolution, CrossIterationBatchNorm(convolution, window=window, burn_in=burn_in).double()


def inputs(number: int, n: int = 2) -> list[Tensor]:
    return [torch.randn(n, 4, 9, 8).double() + i for i in range(number)]


def moments(y: Tensor) -> tuple[Tensor, Tensor]:
    return y.mean((0, 2, 3)), y.var((0, 2, 3), correction=0)


def moved(convolution: nn.Conv2d, by: float) -> None:
    """A step of the weights."""
    with torch.no_grad():
        convolution.weight.add_(torch.randn_like(convolution.weight), alpha=by)


def normalised(y: Tensor, mean: Tensor, var: Tensor) -> Tensor:
    return (y - mean.view(1, -1, 1, 1)) * (var + 1e-5).rsqrt().view(1, -1, 1, 1)


# ------------------------------------------------------------------------------------------------ the derivatives
@pytest.mark.parametrize("geometry", GEOMETRIES)
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_slopes_are_autograds(geometry: dict[str, object], layout: torch.memory_format) -> None:
    convolution, norm = pair(**geometry)
    (x,) = inputs(1)
    x = x.contiguous(memory_format=layout)
    y = conv_norm(convolution, nn.Identity(), x)
    mean, var = moments(y)
    (d_mean,) = torch.autograd.grad(mean.sum(), convolution.weight, retain_graph=True)
    (d_var,) = torch.autograd.grad(var.sum(), convolution.weight)
    norm(y, convolution, x)
    rows = [slope.permute(0, 2, 3, 1).flatten(1) for slope in (d_mean, d_var)]
    torch.testing.assert_close(norm.past_mean_slope[0].repeat_interleave(8 // convolution.groups, 0), rows[0])
    torch.testing.assert_close(norm.past_var_slope[:, 0] * norm.past_var_scale[0].unsqueeze(1), rows[1])
    torch.testing.assert_close(patch_mean(x, convolution, (y.shape[2], y.shape[3])), norm.past_mean_slope[0])
    torch.testing.assert_close((norm.past_mean[0], norm.past_var[0]), (mean, var))


@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_where_the_weights_stay_it_is_batch_norm_over_all_batches_of_the_window(geometry: dict[str, object]) -> None:
    (convolution, norm), seen = pair(**geometry), inputs(7)
    for now, x in enumerate(seen):
        y = norm(convolution(x), convolution, x)
        window = torch.cat([convolution(past) for past in seen[max(0, now - 3) : now + 1]])
        torch.testing.assert_close(y, normalised(convolution(x), *moments(window)))


def test_the_mean_is_carried_over_exactly_and_the_variance_to_first_order() -> None:
    errors = []
    for step in (0.004, 0.002):
        torch.manual_seed(0)
        convolution, norm = pair(2)
        (x,) = inputs(1)
        norm(convolution(x), convolution, x)
        stale = norm.past_mean[0].clone(), norm.past_var[0].clone()
        moved(convolution, step)
        true = moments(convolution(x))
        found = norm._carried_over(convolution)
        torch.testing.assert_close(found.mean[0], true[0])
        assert (stale[0] - true[0]).abs().max() > 100 * (found.mean[0] - true[0]).abs().max()
        error, uncompensated = ((var - true[1]).abs().max().item() for var in (found.var[0], stale[1]))
        assert error < uncompensated / 5
        errors.append(error)
    assert errors[0] / errors[1] == pytest.approx(4, rel=0.2)  # half the step, a quarter of the error


def test_over_a_window_of_small_steps_it_is_far_nearer_to_the_truth_than_without_compensation() -> None:
    (convolution, norm), seen = pair(6), inputs(6)
    for x in seen[:-1]:
        norm(convolution(x), convolution, x)
        moved(convolution, 0.0005)
    true = moments(torch.cat([convolution(x) for x in seen]))
    batch = moments(convolution(seen[-1]))
    carried, kept = norm._carried_over(convolution), (norm.past_mean, norm.past_var)
    errors = []
    for past in ((carried.mean, carried.var), kept):
        means, variances = torch.cat((past[0], batch[0][None])), torch.cat((past[1], batch[1][None]))
        mean = means.mean(0)
        var = (variances + (means - mean) ** 2).mean(0)
        errors.append(max((mean - true[0]).abs().max().item(), (var - true[1]).abs().max().item()))
    assert errors[0] < errors[1] / 20


def test_it_is_the_papers_equations_written_out() -> None:
    (convolution, norm), seen, kept = pair(4), inputs(4), []
    for x in seen[:-1]:
        y = convolution(x)
        mean, square = y.mean((0, 2, 3)), y.square().mean((0, 2, 3))
        slopes = [torch.autograd.grad(q.sum(), convolution.weight, retain_graph=True)[0] for q in (mean, square)]
        kept.append((mean.detach(), square.detach(), *slopes, convolution.weight.detach().clone()))
        norm(y, convolution, x)
        moved(convolution, 0.01)
    y, now = convolution(seen[-1]).detach(), convolution.weight.detach()
    means, squares = [y.mean((0, 2, 3))], [y.square().mean((0, 2, 3))]
    for mean, square, mean_slope, square_slope, then in kept:
        means.append(mean + (mean_slope * (now - then)).sum((1, 2, 3)))  # the expansions
        carried = square + (square_slope * (now - then)).sum((1, 2, 3))
        squares.append(torch.maximum(carried, means[-1] ** 2))
    mean = torch.stack(means).mean(0)  # averaged over the window
    expected = normalised(y, mean, torch.stack(squares).mean(0) - mean**2)
    torch.testing.assert_close(norm(convolution(seen[-1]), convolution, seen[-1]), expected)


def test_a_variance_that_the_expansion_makes_negative_counts_as_zero() -> None:
    convolution, norm = pair(2)
    (x,) = inputs(1)
    norm(convolution(x), convolution, x)
    with torch.no_grad():
        convolution.weight.mul_(-1)  # the line through σ² at θ is 2σ² · (θ'·θ) - σ²: below 0 here
    assert norm._carried_over(convolution).var.eq(0).all()
    assert torch.isfinite(norm(convolution(x), convolution, x)).all()


# ------------------------------------------------------------------------------------------------ as a layer
def test_the_gradient_runs_through_this_iteration_alone() -> None:
    (convolution, norm), seen = pair(3), inputs(4)
    with torch.no_grad():
        norm.weight.uniform_(0.5, 2)
        norm.bias.normal_()
    for x in seen[:-1]:
        norm(convolution(x), convolution, x)
        moved(convolution, 0.05)
    past, x = norm._carried_over(convolution), seen[-1].requires_grad_()

    def plain() -> Tensor:
        y = convolution(x)
        means = torch.cat((past.mean, y.mean((0, 2, 3))[None]))
        squares = torch.cat((past.var + past.mean**2, y.square().mean((0, 2, 3))[None]))
        mean = means.mean(0)
        y = normalised(y, mean, squares.mean(0) - mean**2)
        return y * norm.weight.view(1, -1, 1, 1) + norm.bias.view(1, -1, 1, 1)

    leaves, grad = [x, convolution.weight, norm.weight, norm.bias], torch.randn_like(convolution(x))
    expected = plain()
    found = conv_norm(convolution, norm, x)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(torch.autograd.grad(found, leaves, grad), torch.autograd.grad(expected, leaves, grad))


def test_in_its_burn_in_it_is_batch_norm_and_then_the_window_is_full() -> None:
    (convolution, norm), seen = pair(3, burn_in=3), inputs(4)
    plain = nn.BatchNorm2d(8).double()
    for x in seen[:-1]:
        torch.testing.assert_close(norm(convolution(x), convolution, x), plain(convolution(x)))
    torch.testing.assert_close((norm.running_mean, norm.running_var), (plain.running_mean, plain.running_var))
    x = seen[-1]
    window = torch.cat([convolution(past) for past in seen[1:]])
    torch.testing.assert_close(norm(convolution(x), convolution, x), normalised(convolution(x), *moments(window)))


def test_batches_of_other_sizes_count_by_their_values() -> None:
    convolution, norm = pair(3)
    seen = [torch.randn(n, 4, side, side).double() for n, side in ((1, 9), (4, 5), (2, 7))]
    y = [norm(convolution(x), convolution, x) for x in seen][-1]
    values = torch.cat([convolution(x).transpose(0, 1).flatten(1) for x in seen], 1)
    mean, var = values.mean(1), values.var(1, correction=0)
    torch.testing.assert_close(y, normalised(convolution(seen[-1]), mean, var))


@pytest.mark.parametrize("frozen", [False, True])
def test_in_use_it_is_batch_norm_with_the_running_statistics(frozen: bool) -> None:
    (convolution, norm), seen = pair(3), inputs(3)
    for x in seen:
        norm(convolution(x), convolution, x)
    if frozen:
        assert freeze_norm(nn.Sequential(norm)) == 1
        norm.train()
    norm.eval()
    plain = nn.BatchNorm2d(8).double().eval()
    plain.load_state_dict({name: norm.state_dict()[name] for name in plain.state_dict()})
    for x in (seen[0], torch.randn(2, 4, 64, 64).double()):  # the second is large enough to be folded
        torch.testing.assert_close(conv_norm(convolution, norm, x), plain(convolution(x)))


def test_running_statistics_take_in_the_windows() -> None:
    convolution = nn.Conv2d(4, 8, 3, bias=False)
    norm, seen = CrossIterationBatchNorm(convolution, window=3, burn_in=0, momentum=1.0), inputs(2)
    for x in seen:
        norm(convolution(x.float()), convolution, x.float())
    window = convolution(torch.cat(seen).float())
    torch.testing.assert_close((norm.running_mean, norm.running_var), (window.mean((0, 2, 3)), window.var((0, 2, 3))))


def trained(model: nn.Module, batches: list[Tensor]) -> list[Tensor]:
    """Losses of some steps."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    losses = []
    for x in batches:
        loss = model(x).square().sub(1).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.detach())
    return losses


def test_a_resumed_run_and_a_copy_go_on_bit_by_bit() -> None:
    def net() -> nn.Sequential:
        torch.manual_seed(0)
        layers = [ConvNormAct(4, 8, norm="cbn"), ConvNormAct(8, 4, stride=2, norm="cbn", activation="silu")]
        for layer in layers:
            layer[1].burn_in = 1
        return nn.Sequential(*layers)

    batches = [x.float() for x in inputs(9)]
    model = net()
    trained(model, batches[:5])
    resumed, copied = net(), copy.deepcopy(model)
    resumed.load_state_dict(model.state_dict())
    expected = trained(model, batches[5:])
    assert torch.equal(torch.stack(trained(resumed, batches[5:])), torch.stack(expected))
    assert torch.equal(torch.stack(trained(copied, batches[5:])), torch.stack(expected))
    for mine, other in zip(model.state_dict().values(), resumed.state_dict().values(), strict=True):
        assert torch.equal(mine, other)


def test_weights_of_an_ordinary_batch_norm_load_and_fresh_statistics_forget() -> None:
    (convolution, norm), seen = pair(), inputs(3)
    plain = nn.BatchNorm2d(8).double()
    plain(convolution(seen[0]))
    norm(convolution(seen[1]), convolution, seen[1])
    assert norm.load_state_dict(plain.state_dict()) == ([], [])
    assert norm.past_count.sum() == 0
    norm(convolution(seen[1]), convolution, seen[1])
    norm.reset_running_stats()
    x = seen[2]
    torch.testing.assert_close(
        norm(convolution(x), convolution, x), normalised(convolution(x), *moments(convolution(x)))
    )
    with pytest.raises(RuntimeError, match="past_var_slope"):  # but no half of a history
        norm.load_state_dict({name: value for name, value in norm.state_dict().items() if "slope" not in name})


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_keeps_the_statistics_of_single(dtype: torch.dtype) -> None:
    torch.manual_seed(1)
    convolution = nn.Conv2d(4, 8, 3, padding=1, bias=False)
    exact = CrossIterationBatchNorm(convolution, window=3, burn_in=0)
    half = copy.deepcopy(exact)
    for x in (torch.randn(4, 4, 96, 96) * 3 for _ in range(3)):
        exact(convolution(x), convolution, x)
        assert half(convolution(x).to(dtype), convolution, x).dtype == dtype
    assert half.past_var_slope.dtype == torch.float32
    slopes = [norm.past_var_slope * norm.past_var_scale.mT.unsqueeze(2) for norm in (half, exact)]
    torch.testing.assert_close(slopes[0], slopes[1], rtol=0.02, atol=0.02)
    torch.testing.assert_close(half.running_var, exact.running_var, rtol=0.01, atol=0.01)


def test_a_model_all_in_bfloat16_trains() -> None:
    torch.manual_seed(1)
    exact = ConvNormAct(4, 8, norm="cbn")
    exact[1].burn_in = 0
    half = copy.deepcopy(exact).bfloat16()
    seen = [torch.randn(4, 4, 16, 16) * 3 for _ in range(3)]
    expected, found = [exact(x) for x in seen][-1], [half(x.bfloat16()) for x in seen][-1]
    assert found.dtype == torch.bfloat16
    gradients = (
        torch.autograd.grad(y.float().square().sum(), layer.parameters())
        for y, layer in ((found, half), (expected, exact))
    )
    for mine, other in zip(*gradients, strict=True):
        torch.testing.assert_close(mine.float() / other.norm(), other / other.norm(), rtol=0.1, atol=0.1)


def test_an_empty_batch_changes_nothing() -> None:
    (convolution, norm), (x,) = pair(), inputs(1)
    norm(convolution(x), convolution, x)
    before = {name: value.clone() for name, value in norm.state_dict().items()}
    assert norm(convolution(x[:0]), convolution, x[:0]).shape == (0, 8, 9, 8)
    torch.testing.assert_close(norm.state_dict(), before)


# ------------------------------------------------------------------------------------------------ bad input
def test_training_without_the_convolution_is_refused_and_use_is_not() -> None:
    convolution, norm = pair()
    y = convolution(torch.randn(2, 4, 9, 8).double())
    with pytest.raises(ConfigError, match=r"needs the convolution before it and its input; call conv_norm"):
        norm(y)
    norm.eval()(y)
    with pytest.raises(ShapeError, match=r"CrossIterationBatchNorm: y: expected \(n, c, h, w\), got \(2, 8\)"):
        norm(torch.zeros(2, 8))


@pytest.mark.parametrize(
    ("convolution", "options", "message"),
    [
        ({}, {"window": 1}, "window: must be at least 2 iterations, got 1"),
        ({}, {"burn_in": -1}, "burn_in: must be at least 0 iterations, got -1"),
        ({"bias": True}, {}, "has a bias, which the norm would take away again"),
        ({"padding": "same"}, {}, "expected zero padding by numbers, found padding='same'"),
        ({"padding_mode": "reflect", "padding": 1}, {}, "padding_mode='reflect'"),
    ],
)
def test_what_cannot_be_is_refused(convolution: dict[str, object], options: dict[str, int], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        CrossIterationBatchNorm(nn.Conv2d(4, 8, 3, **{"bias": False, **convolution}), **options)
