"""Whose each operation is, forward and backward, and how many bytes it moves."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint

from clearsight.measure.count import count


class Functional(nn.Module):
    """Convolves without a convolution layer, beside layers that are modules."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(4, 3, 3, 3))
        self.inner = nn.Sequential(nn.Conv2d(4, 6, 1), nn.ReLU())

    def forward(self, x):
        y = F.conv2d(x, self.weight, padding=1)
        return torch.einsum("nchw,kc->nkhw", self.inner(y), torch.ones(2, 6))


def test_functional_calls_belong_to_the_module_that_makes_them():
    found = count(Functional(), torch.empty(1, 3, 5, 5))
    assert found.layers[""].multiply_adds == 4 * 27 * 25 + 2 * 6 * 25
    assert found.layers["inner.0"].multiply_adds == 6 * 4 * 25
    assert found.layers["inner.1"].flops == 6 * 25
    assert found.layers["inner"].multiply_adds == 0
    assert list(found.layers) == ["", "inner", "inner.0", "inner.1"]
    assert found.layers["inner"].outputs == ((1, 6, 5, 5),)


def test_gradients_belong_to_the_module_whose_they_are():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(inplace=True), nn.Sequential(nn.Conv2d(4, 5, 3), nn.Flatten()))
    model.append(nn.Linear(5 * 16, 7))
    found = count(model, torch.empty(2, 3, 8, 8), training=True).layers
    assert found["0"].backward_multiply_adds == found["0"].multiply_adds
    assert found["2.0"].backward_multiply_adds == 2 * found["2.0"].multiply_adds
    assert found["3"].backward_multiply_adds == 2 * found["3"].multiply_adds
    assert found["1"].backward_flops == 2 * 4 * 36
    assert found[""].backward_multiply_adds == found["2"].backward_multiply_adds == 0


def test_functional_gradients_belong_to_the_caller_too():
    found = count(Functional(), torch.empty(1, 3, 5, 5), training=True).layers
    assert found["inner.0"].backward_multiply_adds == 2 * 6 * 4 * 25
    assert found[""].backward_multiply_adds == 4 * 27 * 25 + 2 * 6 * 25  # no gradient for the image, none for ones


def test_a_module_that_is_called_twice_is_counted_twice():
    shared = nn.Linear(6, 6)
    found = count(nn.Sequential(shared, nn.ReLU(), shared), torch.empty(1, 6))
    assert found.layers["0"].calls == 2
    assert found.multiply_adds == 72


class Recomputed(nn.Module):
    """Keeps its input only, and runs its layers again for the backward pass."""

    def __init__(self, *, again):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 8), nn.Tanh())
        self.again = again

    def forward(self, x):
        return checkpoint(self.layers, x, use_reentrant=False) if self.again else self.layers(x)


def test_what_is_run_again_for_the_backward_pass_is_counted_there():
    plain, again = (
        count(Recomputed(again=one), torch.empty(4, 8), training=True, input_gradient=True) for one in (False, True)
    )
    assert again.multiply_adds == plain.multiply_adds
    assert again.backward_multiply_adds == plain.backward_multiply_adds + plain.multiply_adds
    assert again.saved_bytes < plain.saved_bytes
    first, extra = plain.layers["layers.0"], again.layers["layers.0"]
    assert extra.backward_multiply_adds == first.backward_multiply_adds + first.multiply_adds


def test_inference_mode_within_a_model_hides_nothing():
    class Hidden(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(64, 5))

        def forward(self, x):
            with torch.inference_mode():
                return self.layers(x)

    model, x = Hidden(), torch.empty(1, 3, 6, 6)
    hidden, plain = count(model, x), count(model.layers, x)
    assert hidden.uncounted == {}
    assert (hidden.multiply_adds, hidden.flops) == (plain.multiply_adds, plain.flops)


def test_what_has_no_rule_is_named_with_how_often_it_ran():
    class Sorts(nn.Module):
        def forward(self, x):
            return x.topk(2).values + x.topk(2).values + x.sort().values[:, :2]

    found = count(Sorts(), torch.empty(3, 5))
    assert found.uncounted == {"aten.topk": 2, "aten.sort": 1}
    assert found.flops == 2 * 6


@pytest.mark.parametrize(
    ("function", "moved"),
    [
        (lambda x: x + 1, 2 * 48),
        (lambda x: x + x[:1], 48 + 16 + 48),
        (lambda x: x.T.reshape(3, 4).unsqueeze(0)[:, 1:], 2 * 48),  # the reshape copies, views move nothing
        (lambda x: x.expand(7, 3, 4) * 1, 48 + 7 * 48),  # a value that is repeated is read once
        (lambda x: torch.cat([x, x]), 2 * 48 + 96),
        (lambda x: torch.zeros_like(x), 48),
        (lambda x: x[torch.zeros(2, dtype=torch.int64)], 16 + 16 + 2 * 32),  # zeros, read again; two rows
        (lambda x: torch.empty(3, 4).copy_(x), 2 * 48),
        (lambda x: x.clone().add_(1), 2 * 48 + 2 * 48),
    ],
    ids=["add", "broadcast", "views", "expand", "cat", "zeros", "index", "copy", "inplace"],
)
def test_bytes_are_those_that_are_read_and_written(function, moved):
    class Layer(nn.Module):
        def forward(self, x):
            return function(x)

    assert count(Layer(), torch.empty(3, 4)).moved_bytes == moved


def test_weights_are_read_too():
    assert count(nn.Linear(8, 5), torch.empty(2, 8)).moved_bytes == 4 * (16 + 40 + 5 + 10)
    half = count(nn.Linear(8, 5).bfloat16(), torch.empty(2, 8, dtype=torch.bfloat16))
    assert half.moved_bytes == 2 * (16 + 40 + 5 + 10)
