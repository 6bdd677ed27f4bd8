"""Rules for initial weights: their spread over many draws, and what becomes of a signal in a deep stack."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from clearsight.errors import ConfigError
from clearsight.nn.init_rules import (
    INIT_RULES,
    Fans,
    Rule,
    fans,
    kaiming,
    normal,
    orthogonal,
    truncated_normal,
    uniform,
    xavier,
    zeros,
)

OF = Fans(120, 480)
SHAPE = (480, 120)


def drawn(rule: Rule, of: Fans = OF, shape: tuple[int, ...] = SHAPE) -> Tensor:
    """Many weights by a rule."""
    weight = torch.full((8, *shape), float("nan"))
    for draw in weight:
        rule.fill(draw, of)
    return weight


# ------------------------------------------------------------------------------------------------ spread
@pytest.mark.parametrize(
    ("rule", "std", "bound"),
    [
        (normal(0.3), 0.3, None),
        (truncated_normal(0.3), 0.3, 2 * 0.3 / 0.8796256),
        (uniform(), 1 / math.sqrt(3 * 120), 1 / math.sqrt(120)),
        (uniform(3**0.5), 1 / math.sqrt(120), math.sqrt(3 / 120)),
        (xavier(), math.sqrt(2 / 600), math.sqrt(6 / 600)),
        (xavier(even=False, gain=2), 2 * math.sqrt(2 / 600), None),
        (kaiming(), math.sqrt(2 / 120), None),
        (kaiming(even=True), math.sqrt(2 / 120), math.sqrt(6 / 120)),
        (kaiming(fan="out"), math.sqrt(2 / 480), None),
        (kaiming(activation="leaky_relu", slope=0.5), math.sqrt(2 / 1.25 / 120), None),
        (kaiming(activation="linear"), math.sqrt(1 / 120), None),
        (kaiming(activation="tanh"), 5 / 3 / math.sqrt(120), None),
    ],
    ids=lambda value: value.name if isinstance(value, Rule) else "",
)
def test_spread_over_many_draws(rule: Rule, std: float, bound: float | None) -> None:
    weight = drawn(rule)
    n = weight.numel()
    assert abs(weight.mean().item()) < 5 * std / n**0.5
    assert weight.std().item() == pytest.approx(std, rel=5 / (2 * n) ** 0.5)  # five standard errors, of a normal
    if bound is None:
        assert weight.abs().max() > 4 * std  # a normal distribution has tails
    else:
        assert 0.999 * bound < weight.abs().max() <= bound * (1 + 1e-6)


def test_orthogonal_in_each_group() -> None:
    weight = drawn(orthogonal(2.0), shape=(60, 120))[0]
    torch.testing.assert_close(weight @ weight.T, 4 * torch.eye(60), rtol=1e-4, atol=1e-4)
    grouped = drawn(orthogonal(), Fans(9, 72, 8), (64, 1, 3, 3))[0]  # one matrix has no 64 orthogonal rows of 9
    for group in grouped.view(8, 8, 9):
        torch.testing.assert_close(group @ group.T, torch.eye(8), rtol=1e-4, atol=1e-4)
    assert not torch.equal(grouped[:8], grouped[8:16])


def test_zeros_and_the_table() -> None:
    assert not drawn(zeros()).any()
    for rule in INIT_RULES.values():
        assert drawn(rule, Fans(12, 24), (24, 12)).isfinite().all()
    assert len({rule.name for rule in INIT_RULES.values()}) == len(INIT_RULES)
    assert INIT_RULES["kaiming"].name == "kaiming normal, fan-in, relu"
    assert kaiming(activation="leaky_relu", slope=0.1).name == "kaiming normal, fan-in, leaky_relu 0.1"


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ConfigError, match="fan: expected 'in' or 'out', got 'fan_in'"):
        kaiming(fan="fan_in")
    with pytest.raises(ConfigError, match="no gain for 'leakyrelu'; did you mean 'leaky_relu'"):
        kaiming(activation="leakyrelu")


# ------------------------------------------------------------------------------------------------ fans
@pytest.mark.parametrize(
    ("layer", "expected"),
    [
        (nn.Linear(5, 7), (5, 7, 1)),
        (nn.Conv1d(4, 6, 3), (12, 18, 1)),
        (nn.Conv2d(4, 6, 3), (36, 54, 1)),
        (nn.Conv3d(4, 6, (1, 2, 3)), (24, 36, 1)),
        (nn.Conv2d(4, 6, 4, stride=2), (64, 24, 1)),
        (nn.Conv2d(4, 8, 3, groups=4), (9, 18, 4)),
        (nn.ConvTranspose1d(4, 6, 4, stride=2), (8, 24, 1)),
        (nn.ConvTranspose2d(4, 6, 4, stride=2), (16, 96, 1)),
        (nn.ConvTranspose2d(4, 8, 4, stride=2, groups=2), (8, 64, 2)),
        (nn.Embedding(100, 6), (6, 6, 1)),
        (nn.BatchNorm2d(4), None),
        (nn.ReLU(), None),
        (nn.utils.parametrizations.weight_norm(nn.Linear(5, 7)), None),
    ],
    ids=str,
)
def test_fans_by_hand(layer: nn.Module, expected: tuple[float, float, int] | None) -> None:
    assert fans(layer) == expected


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(4, 6, 3, padding=1),
        nn.Conv2d(4, 8, 4, stride=2, padding=1, groups=2),
        nn.ConvTranspose2d(4, 6, 4, stride=2, padding=1),
        nn.ConvTranspose2d(6, 4, 6, stride=3, padding=2, groups=2),
    ],
    ids=str,
)
def test_fans_count_the_terms_of_the_sums(layer: nn.Module) -> None:
    """With all weights 1, each output counts its inputs, and each gradient the outputs."""
    of = fans(layer)
    assert of is not None
    nn.init.ones_(layer.weight)
    nn.init.zeros_(layer.bias)
    x = torch.ones(1, layer.in_channels, 36, 36, requires_grad=True)
    out = layer(x)
    out.sum().backward()
    inner = slice(6, -6)
    assert out[..., inner, inner].mean().item() == pytest.approx(of.inputs)
    assert x.grad[..., inner, inner].mean().item() == pytest.approx(of.outputs)


# ------------------------------------------------------------------------------------------------ deep stacks
def stack(make: Callable[[], nn.Module], depth: int, rule: Rule) -> nn.Sequential:
    """Layers by a rule with ReLUs between."""
    layers: list[nn.Module] = []
    for _ in range(depth):
        layer = make()
        of = fans(layer)
        assert of is not None
        with torch.no_grad():
            rule.fill(layer.weight, of)
        layers += [layer, nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def circular(**options: int) -> nn.Module:
    """Without a border, which has fewer terms."""
    return nn.Conv2d(64, 64, 3, padding=1, padding_mode="circular", bias=False, **options)


def assert_about_two(ratios: list[Tensor]) -> None:
    """Each layer doubles and each ReLU halves, and there is one layer more; the geometric mean, for it varies less."""
    assert 0.8 < torch.stack(ratios).log().mean().exp() < 4


@pytest.mark.parametrize(
    ("make", "depth", "side"),
    [
        (lambda: nn.Linear(300, 300, bias=False), 30, None),
        (circular, 15, 6),
        (lambda: circular(groups=4), 10, 6),
        (lambda: nn.ConvTranspose2d(96, 96, 2, stride=2, bias=False), 5, 1),
        (lambda: nn.ConvTranspose2d(96, 48, 4, stride=2, padding=1, bias=False), 1, 40),
    ],
    ids=["linear", "convolution", "grouped", "transposed", "transposed, overlapping"],
)
def test_fan_in_keeps_the_second_moment_of_activations(make: Callable[[], nn.Module], depth: int, side: int) -> None:
    """PyTorch's fan of a transposed convolution is off by a factor of stride² o / i a layer, 4⁵ = 1024 here."""
    ratios = []
    for _ in range(10):
        model = stack(make, depth, kaiming())
        channels = next(model.parameters()).shape[0]
        x = torch.randn(32, channels) if side is None else torch.randn(4, channels, side, side)
        with torch.no_grad():
            ratios.append(model(x).square().mean() / x.square().mean())
    assert_about_two(ratios)


@pytest.mark.parametrize(
    ("make", "depth", "side"),
    [
        (lambda: circular(groups=4), 10, 6),
        (lambda: nn.Conv2d(64, 64, 2, stride=2, bias=False), 5, 32),
        (lambda: nn.ConvTranspose2d(96, 96, 2, stride=2, bias=False), 4, 2),
    ],
    ids=["grouped", "strided", "transposed"],
)
def test_fan_out_keeps_the_second_moment_of_gradients(make: Callable[[], nn.Module], depth: int, side: int) -> None:
    """PyTorch counts neither groups (a factor of 4 a layer here) nor strides (4)."""
    ratios = []
    for _ in range(10):
        model = stack(make, depth, kaiming(fan="out"))
        x = torch.randn(4, next(model.parameters()).shape[0], side, side, requires_grad=True)
        out = model(x)
        sent = torch.randn_like(out)
        back = torch.autograd.grad(out, x, sent)[0]
        ratios.append(back.square().mean() / sent.square().mean())
    assert_about_two(ratios)
