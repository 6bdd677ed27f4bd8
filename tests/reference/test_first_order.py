from __future__ import annotations

import numpy as np
import pytest
import torch

from clearsight.reference.first_order import (
    Adadelta,
    Adagrad,
    Adam,
    FirstOrderRule,
    Nadam,
    Rmsprop,
    Sgd,
    draw_batches,
    nesterov_look_ahead,
)

SCALE = np.array([[1.0, 30.0], [0.2, 5.0]])
START = np.array([[1.5, -2.0], [3.0, 0.7]])


@pytest.fixture(autouse=True)
def _double_precision():
    """NAdam of PyTorch keeps its product of momenta in the default type."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def slope(x):
    """Of Σ scale·x²/2 + cos(x), which is not convex, with noise that depends on x alone."""
    return SCALE * x - np.sin(x) if isinstance(x, np.ndarray) else torch.tensor(SCALE) * x - torch.sin(x)


RULES = {
    "sgd": (Sgd, torch.optim.SGD, {}),
    "momentum": (Sgd, torch.optim.SGD, {"momentum": 0.9}),
    "dampening": (Sgd, torch.optim.SGD, {"momentum": 0.9, "dampening": 0.9}),
    "dampening_half": (Sgd, torch.optim.SGD, {"momentum": 0.7, "dampening": 0.5}),
    "nesterov": (Sgd, torch.optim.SGD, {"momentum": 0.9, "nesterov": True}),
    "adagrad": (Adagrad, torch.optim.Adagrad, {}),
    "adagrad_eps": (Adagrad, torch.optim.Adagrad, {"eps": 0.3}),
    "adadelta": (Adadelta, torch.optim.Adadelta, {"rho": 0.95, "eps": 1e-3}),
    "rmsprop": (Rmsprop, torch.optim.RMSprop, {"alpha": 0.9, "eps": 0.1}),
    "rmsprop_momentum": (Rmsprop, torch.optim.RMSprop, {"alpha": 0.9, "momentum": 0.5}),
    "adam": (Adam, torch.optim.Adam, {"betas": (0.8, 0.99), "eps": 0.1}),
    "adamw": (Adam, torch.optim.AdamW, {"betas": (0.8, 0.99)}),
    "nadam": (Nadam, torch.optim.NAdam, {"betas": (0.8, 0.99), "momentum_decay": 0.01, "eps": 0.1}),
    "nadamw": (Nadam, torch.optim.NAdam, {"decoupled_weight_decay": True}),
}
DECOUPLED = {"adamw", "nadamw"}
OUR_NAMES = {"rho": "decay", "alpha": "decay"}
RATES = {
    "rmsprop": 0.01,
    "rmsprop_momentum": 0.005,
    "sgd": 0.02,
    "momentum": 0.005,
    "adadelta": 1.0,
    "dampening": 0.02,
    "dampening_half": 0.01,
    "nesterov": 0.005,
}


def ours(name: str, rate: float, weight_decay: float, wrong: type[FirstOrderRule] | None = None) -> FirstOrderRule:
    kind, _, options = RULES[name]
    options = {OUR_NAMES.get(key, key): value for key, value in options.items() if key != "decoupled_weight_decay"}
    if name in DECOUPLED:
        options["decoupled"] = True
    return (wrong or kind)(rate=rate, weight_decay=weight_decay, **options)


@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
@pytest.mark.parametrize("factor", [1.0, 0.3])
def test_a_hundred_steps_are_pytorchs(name, weight_decay, factor):
    rate = RATES.get(name, 0.05) * factor
    rule = ours(name, rate, weight_decay)
    x, parameter = START.copy(), torch.nn.Parameter(torch.tensor(START))
    optimiser = RULES[name][1]([parameter], lr=rate, weight_decay=weight_decay, **RULES[name][2])
    for step in range(100):
        if step == 50:  # a schedule
            rule.rate = optimiser.param_groups[0]["lr"] = rate / 2
        parameter.grad = slope(parameter.detach())
        optimiser.step()
        x = rule.update(x, slope(x))
        np.testing.assert_allclose(x, parameter.detach().numpy(), rtol=1e-10, atol=1e-13, err_msg=f"step {step}")
    assert np.abs(x - START).max() > 0.1


GROUPS = [(1.0, 0.1), (0.3, 0.0), (2.0, 0.02)]  # factor of the rate, and decay


def largest_gap(rules: list[FirstOrderRule], optimiser: torch.optim.Optimizer, steps: int = 100) -> float:
    """|ours - theirs| / max(1, |theirs|), over all steps and groups of an optimiser; group i starts at START + i."""
    points, gap = [START + i for i in range(len(rules))], 0.0
    for step in range(steps):
        for i, group in enumerate(optimiser.param_groups):
            group["params"][0].grad = slope(group["params"][0].detach())
            if step == steps // 2:  # a schedule, which halves every group's rate
                rules[i].rate = group["lr"] = group["lr"] / 2
        optimiser.step()
        points = [rule.update(x, slope(x)) for rule, x in zip(rules, points, strict=True)]
        for x, group in zip(points, optimiser.param_groups, strict=True):
            y = group["params"][0].detach().numpy()
            gap = max(gap, float(np.nan_to_num(np.abs(x - y) / np.maximum(1, np.abs(y)), nan=np.inf).max()))
    return gap


def pytorchs(name: str) -> torch.optim.Optimizer:
    """With three groups, each with a rate and a decay of its own."""
    rate = RATES.get(name, 0.05)
    groups = [
        {"params": [torch.nn.Parameter(torch.tensor(START + i))], "lr": rate * factor, "weight_decay": decay}
        for i, (factor, decay) in enumerate(GROUPS)
    ]
    return RULES[name][1](groups, **RULES[name][2])


@pytest.mark.parametrize("name", RULES)
def test_a_rule_for_each_group_is_pytorchs_groups(name):
    rules = [ours(name, RATES.get(name, 0.05) * factor, decay) for factor, decay in GROUPS]
    assert largest_gap(rules, pytorchs(name)) < 1e-12


class WrongAdam(Adam):
    """m/1 − β₁ᵗ and v/1 − β₂ᵗ: the bracket left out."""

    def first_moment(self, grad):
        m = super().first_moment(grad) * (1 - self.betas[0] ** self.t)
        return np.asarray(m / 1 - self.betas[0] ** self.t)

    def second_moment(self, grad):
        v = super().second_moment(grad) * (1 - self.betas[1] ** self.t)
        return np.abs(v / 1 - self.betas[1] ** self.t)


class UncorrectedAdam(Adam):
    """No correction at all."""

    def first_moment(self, grad):
        return super().first_moment(grad) * (1 - self.betas[0] ** self.t)

    def second_moment(self, grad):
        return super().second_moment(grad) * (1 - self.betas[1] ** self.t)


class WrongAdadelta(Adadelta):
    """E of a sum of squares."""

    _sum = 0.0

    def second_moment(self, grad):
        self._sum = self._sum + grad**2
        self._v = self.decay * self._v + (1 - self.decay) * self._sum
        return self._v


class WrongMomentum(Sgd):
    """v ← μ·v − (1 − μ)·g; x ← x + v: no rate."""

    def step(self, grad, m, v):
        return m


class SwappedMomentum(Sgd):
    """The averaged form where the classical one is said."""

    def first_moment(self, grad):
        self._m = (1 - self.momentum) * grad + (0 if self.t == 1 else self.momentum * self._m)
        return self._m


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("adam", WrongAdam),
        ("adam", UncorrectedAdam),
        ("adadelta", WrongAdadelta),
        ("momentum", WrongMomentum),
        ("dampening", WrongMomentum),
        ("momentum", SwappedMomentum),
    ],
)
@pytest.mark.filterwarnings("ignore:overflow", "ignore:invalid value")  # without a rate a step diverges
def test_the_forms_in_circulation_are_not_pytorchs(name, wrong):
    assert issubclass(wrong, RULES[name][0])
    rules = [ours(name, RATES.get(name, 0.05) * factor, decay, wrong) for factor, decay in GROUPS]
    assert largest_gap(rules, pytorchs(name)) > 1e-3


@pytest.mark.parametrize("name", ["adam", "adamw", "nadam", "nadamw"])
def test_an_l2_penalty_is_not_decoupled_decay(name):
    rules = [ours(name, RATES.get(name, 0.05) * factor, decay) for factor, decay in GROUPS]
    for rule in rules:
        rule.decoupled = not rule.decoupled
    assert largest_gap(rules, pytorchs(name)) > 1e-3


def test_the_start_is_not_changed():
    x = START.copy()
    for name in RULES:
        ours(name, 0.1, 0.1).update(x, slope(x))
    np.testing.assert_array_equal(x, START)


def test_adam_divides_by_the_whole_bracket():
    # Wrong form: m/1 − β₁ᵗ. The right first step is α long, whatever the gradient's scale.
    for scale in (1e-3, 1.0, 1e4):
        grad = np.array([scale, -scale])
        np.testing.assert_allclose(Adam(rate=0.1, eps=0.0).update(np.zeros(2), grad), [-0.1, 0.1], rtol=1e-12)
    m, v = 0.1 * 1e4, 0.001 * 1e8
    with np.errstate(invalid="ignore"):
        assert abs((m / 1 - 0.9) / np.sqrt(v / 1 - 0.999) - 1) > 1


def test_adadelta_averages_squares_and_not_their_sum():
    # Wrong form: E of Σ g², which grows without bound under a constant gradient.
    rule = Adadelta()
    x = np.zeros(1)
    for _ in range(500):
        x = rule.update(x, np.ones(1))
    assert rule.second_moment(np.ones(1))[0] == pytest.approx(1, rel=1e-6)


def test_adadelta_needs_no_global_rate():
    rule, half = Adadelta(), Adadelta(rate=0.5)
    first, second = rule.update(np.ones(1), np.ones(1)), half.update(np.ones(1), np.ones(1))
    assert 1 - first[0] == pytest.approx(np.sqrt(1e-6) / np.sqrt(0.1 + 1e-6))
    assert 1 - second[0] == pytest.approx((1 - first[0]) / 2)
    # The step has the unit of x: a function scaled by 1000 is walked alike, once ε is small beside its squares.
    small, large = Adadelta(eps=1e-12), Adadelta(eps=1e-12)
    x = y = np.ones(1)
    for _ in range(50):
        x, y = small.update(x, x), large.update(y, 1000 * y)
    np.testing.assert_allclose(x, y, rtol=1e-6)


def test_momentum_in_its_two_forms_by_hand():
    classical, averaged = Sgd(rate=0.1, momentum=0.5), Sgd(rate=0.1, momentum=0.5, dampening=0.5)
    x = y = x_before = y_before = np.zeros(1)
    for _ in range(60):
        x_before, y_before = x, y
        x, y = classical.update(x, np.ones(1)), averaged.update(y, np.ones(1))
    assert (x_before - x)[0] == pytest.approx(0.1 / (1 - 0.5))  # steps grow up to 1/(1 − μ) times
    assert (y_before - y)[0] == pytest.approx(0.1)  # steps keep the gradient's length


def test_without_a_rate_there_is_no_rule():
    # Wrong form: v ← μv − (1 − μ)g; x ← x + v, whose step cannot be made small.
    for rate in (0.0, -0.1, float("nan")):
        with pytest.raises(ValueError, match="rate: expected a number above 0, found"):
            Sgd(rate=rate)


def test_nesterov_look_ahead_is_the_rewritten_form():
    rule = Sgd(rate=0.005, momentum=0.9, nesterov=True)
    x, velocity, y = START.copy(), np.zeros_like(START), START.copy()
    for _ in range(100):
        x, velocity = nesterov_look_ahead(slope, x, velocity, rate=0.005, momentum=0.9)
        y = rule.update(y, slope(y))
        np.testing.assert_allclose(y, x + 0.9 * velocity, rtol=1e-9, atol=1e-12)  # y is the point that is looked at
    assert np.abs(y - START).max() > 0.1


def test_l2_penalty_is_weight_decay_for_plain_descent_only():
    x = START
    coupled = Sgd(rate=0.1, weight_decay=0.3).update(x, slope(x))
    np.testing.assert_allclose(coupled, x - 0.1 * 0.3 * x - 0.1 * slope(x), rtol=1e-12)
    adam, adamw = Adam(rate=0.1, weight_decay=0.3), Adam(rate=0.1, weight_decay=0.3, decoupled=True)
    assert np.abs(adam.update(x, slope(x)) - adamw.update(x, slope(x))).max() > 0.01
    # Decoupled decay is one share for all, the penalty's is divided by √v̂.
    flat = np.zeros_like(x)
    np.testing.assert_allclose(Adam(rate=0.1, weight_decay=0.3, decoupled=True).update(x, flat), x * 0.97)
    np.testing.assert_allclose(Adam(rate=0.1, weight_decay=0.3).update(x, flat), x - 0.1 * np.sign(x), rtol=1e-6)


def test_adagrad_by_hand():
    rule = Adagrad(rate=1.0, eps=0.0)
    x = rule.update(np.zeros(1), np.full(1, 3.0))
    assert x[0] == -1  # 3/√9
    assert rule.update(x, np.full(1, 4.0))[0] == pytest.approx(-1 - 4 / 5)  # 4/√(9 + 16)


@pytest.mark.parametrize("size", [1, 3, 10, 50])
def test_batches_hold_every_sample_once_and_their_gradients_average_to_the_whole(size):
    rng = np.random.default_rng(0)
    samples, target, w = rng.standard_normal((10, 3)), rng.standard_normal(10), rng.standard_normal(3)

    def gradient(index):
        return (samples[index] @ w - target[index]) @ samples[index] / len(index)

    batches = list(draw_batches(10, size, seed=1))
    assert sorted(np.concatenate(batches).tolist()) == list(range(10))
    assert max(len(batch) for batch in batches) == min(size, 10)
    average = sum(len(batch) / 10 * gradient(batch) for batch in batches)
    np.testing.assert_allclose(average, gradient(np.arange(10)), rtol=1e-12)


def test_batches_follow_the_seed():
    assert list(draw_batches(0, 3, seed=0)) == []
    same = [np.concatenate(list(draw_batches(20, 4, seed=seed))).tolist() for seed in (1, 1, 2)]
    assert same[0] == same[1] != same[2]


def test_errors():
    with pytest.raises(ValueError, match="weight_decay: expected a number of at least 0, found -1"):
        Adam(weight_decay=-1)
    with pytest.raises(ValueError, match=r"grad: expected the shape of x, \(2,\), found \(3,\)"):
        Adam().update(np.zeros(2), np.zeros(3))
    for options in ({}, {"momentum": 0.9, "dampening": 0.1}):
        with pytest.raises(ValueError, match="nesterov: expected a momentum above 0 and no dampening"):
            Sgd(rate=0.1, nesterov=True, **options)
    with pytest.raises(ValueError, match="size: expected at least 1 sample in a batch, found 0"):
        list(draw_batches(3, 0, seed=0))
