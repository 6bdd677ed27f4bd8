"""Likelihoods of bags: by hand, object by object, at the edges, and their gradients."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from clearsight.errors import RangeError, ShapeError
from clearsight.losses.bags import confidence_loss, confidence_mean, mean_max, mean_max_loss

OBJECT = torch.tensor([0, 0, 0, 2, 2, 3])  # object 1 and 4 have no pair
WEIGHT = torch.tensor([0.9, 0.5, 0.1, 1.0, 0.2, 0.3], dtype=torch.float64)

Mean = Callable[[Tensor], Tensor]
MEANS: dict[str, tuple[Mean, Mean]] = {
    "mean_max": (lambda x: mean_max(x, OBJECT, 5), lambda x: mean_max_loss(x, OBJECT, 5)),
    "confidence": (
        lambda x: confidence_mean(x, WEIGHT.to(x), OBJECT, 5),
        lambda x: confidence_loss(x, WEIGHT.to(x), OBJECT, 5),
    ),
}
both = pytest.mark.parametrize("name", MEANS)


def one_by_one(name: str, likelihood: Tensor) -> list[float]:
    found = []
    for number in range(5):
        mine = (number == OBJECT).nonzero().flatten().tolist()
        above = below = 0.0
        for pair in mine:
            x = float(likelihood[pair])
            share = 1 / (1 - x) if name == "mean_max" else math.exp(3 * x) * float(WEIGHT[pair])
            above, below = above + share * x, below + share
        found.append(above / below if mine else 0.0)
    return found


@both
def test_equals_the_loop(name: str) -> None:
    mean, loss = MEANS[name]
    likelihood = torch.rand(6, dtype=torch.float64)
    expected = one_by_one(name, likelihood)
    assert mean(likelihood).tolist() == pytest.approx(expected)
    terms = [-math.log(x) if x else 0.0 for x in expected]
    assert loss(likelihood.log()).tolist() == pytest.approx(terms)


def test_by_hand() -> None:
    zero = torch.tensor([0, 0])
    assert mean_max(torch.tensor([0.5, 0.75]), zero, 1).item() == pytest.approx(4 / 6)  # (1 + 3) / (2 + 4)
    assert mean_max(torch.tensor([0.01, 0.03]), zero, 1).item() == pytest.approx(0.02, rel=0.02)  # a mean
    assert mean_max(torch.tensor([0.1, 0.9999]), zero, 1).item() == pytest.approx(0.9998, abs=1e-4)  # a maximum
    even = torch.ones(2)
    found = confidence_mean(torch.tensor([0.0, 1.0]), even, zero, 1, 1.0)
    assert found.item() == pytest.approx(math.e / (1 + math.e))
    # e^(3·0.2)·3 against e^(3·0.6)·1 = 5.466 against 6.050: (1.093 + 3.630) / 11.516
    found = confidence_mean(torch.tensor([0.2, 0.6]), torch.tensor([3.0, 1.0]), zero, 1)
    assert found.item() == pytest.approx(0.41013, abs=1e-5)
    assert confidence_mean(torch.tensor([0.2, 0.6]), even * 0.01, zero, 1).item() == pytest.approx(
        confidence_mean(torch.tensor([0.2, 0.6]), even, zero, 1).item()
    )  # only the ratio of the weights counts


@both
def test_gradients_are_those_of_differences(name: str) -> None:
    mean, loss = MEANS[name]
    likelihood = (torch.rand(6, dtype=torch.float64) * 0.98 + 0.01).requires_grad_()
    assert torch.autograd.gradcheck(mean, (likelihood,))
    assert torch.autograd.gradcheck(loss, (likelihood.detach().log().requires_grad_(),))


def test_gradients_of_weights() -> None:
    x, weight = torch.rand(6, dtype=torch.float64), WEIGHT.clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda w: confidence_mean(x, w, OBJECT, 5), (weight,))
    assert torch.autograd.gradcheck(lambda w: confidence_loss(x.log(), w, OBJECT, 5), (weight,))


@both
@pytest.mark.parametrize("value", [0.0, 1e-30, 1 - 1e-7, 1.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_certainty_is_finite(name: str, value: float, dtype: torch.dtype) -> None:
    likelihood = torch.full((6,), value, dtype=dtype)
    for mixed in (likelihood, likelihood.index_fill(0, torch.tensor([1, 4]), 0.5)):
        x = mixed.clone().requires_grad_()
        found = MEANS[name][0](x)
        found.sum().backward()
        assert found.dtype == torch.float32
        assert x.grad is not None
        assert torch.isfinite(found).all()
        assert torch.isfinite(x.grad).all()
    assert MEANS[name][0](likelihood)[[0, 2, 3]].tolist() == pytest.approx([float(likelihood[0])] * 3)


@both
@pytest.mark.parametrize("value", [-1e4, -200.0, -1e-9, 0.0])
def test_losses_of_certainty_are_finite(name: str, value: float) -> None:
    for others in (value, -0.7):
        x = torch.tensor([value, others, others, value, others, value], requires_grad=True)
        found = MEANS[name][1](x)
        found.sum().backward()
        assert x.grad is not None
        assert torch.isfinite(found).all()
        assert torch.isfinite(x.grad).all()
        if others == value:
            assert found[[0, 2, 3]].tolist() == pytest.approx([-value] * 3, rel=1e-6, abs=1e-6)
            assert x.grad.sum().item() == pytest.approx(-3)  # three objects: each loss falls as its bag rises


@both
def test_no_number_is_not_hidden(name: str) -> None:
    x = torch.full((6,), -1.0)
    x[4] = torch.nan
    found = MEANS[name][1](x)
    assert torch.isnan(found).tolist() == [False, False, True, False, False]
    impossible = torch.full((6,), -torch.inf)
    assert torch.isinf(MEANS[name][1](impossible)).tolist() == [True, False, True, True, False]


@pytest.mark.parametrize("objects", [0, 3])
def test_no_pairs_keep_the_graph(objects: int) -> None:
    none, object_ = torch.zeros(0, requires_grad=True), torch.zeros(0, dtype=torch.int64)
    for found in (
        mean_max(none, object_, objects),
        mean_max_loss(none, object_, objects),
        confidence_mean(none, none.detach(), object_, objects),
        confidence_loss(none, none.detach(), object_, objects),
    ):
        assert found.tolist() == [0.0] * objects
        found.sum().backward()
    assert none.grad is not None


def test_order_within_and_between_objects_does_not_matter() -> None:
    likelihood = torch.rand(6, dtype=torch.float64)
    order = torch.tensor([2, 0, 1, 4, 3, 5])
    torch.testing.assert_close(mean_max(likelihood[order], OBJECT, 5), mean_max(likelihood, OBJECT, 5))
    found = confidence_loss(likelihood[order].log(), WEIGHT[order], OBJECT, 5)
    torch.testing.assert_close(found, confidence_loss(likelihood.log(), WEIGHT, OBJECT, 5))


@both
def test_compiled_is_eager(name: str) -> None:
    torch.compiler.reset()
    for call, x in zip(MEANS[name], (torch.rand(6), -torch.rand(6)), strict=True):
        torch.testing.assert_close(torch.compile(call, backend="aot_eager", fullgraph=True)(x), call(x))


def test_what_does_not_fit_is_refused() -> None:
    x = torch.rand(6)
    with pytest.raises(ShapeError, match=r"object: expected one for each of the likelihoods \(6,\), got \(5,\)"):
        mean_max(x, OBJECT[:5], 5)
    with pytest.raises(ShapeError, match=r"weight: expected one for each pair, \(6,\), got \(6, 1\)"):
        confidence_mean(x, x[:, None], OBJECT, 5)
    with pytest.raises(RangeError, match="temperature: must be above 0, got 0"):
        confidence_loss(x, x, OBJECT, 5, 0)
