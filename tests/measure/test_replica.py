"""A copy that runs without the model noticing."""

from __future__ import annotations

import copy
import threading
from collections import namedtuple
from dataclasses import dataclass

import pytest
import torch
from torch import nn
from torch.nn.utils.parametrizations import weight_norm

from clearsight.errors import ConfigError
from clearsight.measure.replica import replicate, tensors_in


@dataclass
class Pair:
    left: torch.Tensor
    right: object


def test_tensors_are_found_wherever_they_are():
    a, b, c, d = (torch.empty(n) for n in range(4))
    point = namedtuple("point", "x y")
    nested = {"a": a, "rest": [Pair(b, "text"), (point(c, 3), None)], "set": {1, 2}}
    assert [id(one) for one in tensors_in((nested, d))] == [id(one) for one in (a, b, c, d)]
    assert list(tensors_in("text")) == list(tensors_in(None)) == list(tensors_in(3.0)) == []


class Tied(nn.Module):
    """Weights in two places, a module in two, tensors that are no parameters, references between modules."""

    def __init__(self):
        super().__init__()
        self.one, self.two = nn.Linear(4, 4), nn.Linear(4, 4)
        self.two.weight = self.one.weight
        self.again = self.one
        self.register_buffer("mean", torch.ones(4))
        self.table = {"anchors": [torch.arange(3.0)]}
        self.order = [self.two, self.one]
        self.settings = {"depth": 3, "name": "tied"}
        self.two.bias.requires_grad_(False)
        self.seen = []

    def forward(self, x):
        self.seen.append(x)
        for layer in self.order:
            x = layer(x) + self.mean
        return x


@pytest.mark.parametrize("meta", [True, False])
def test_what_was_the_same_is_the_same_again(meta):
    model = Tied()
    twin = replicate(model, meta=meta)
    assert twin.one.weight is twin.two.weight
    assert twin.again is twin.one
    assert twin.order == [twin.two, twin.one]
    assert twin.settings == model.settings
    assert twin.settings is not model.settings
    assert (twin.one.bias.requires_grad, twin.two.bias.requires_grad) == (True, False)
    device = "meta" if meta else "cpu"
    assert {one.device.type for one in (*twin.parameters(), *twin.buffers(), *twin.table["anchors"])} == {device}
    assert {name: one.shape for name, one in twin.state_dict().items()} == {
        name: one.shape for name, one in model.state_dict().items()
    }
    ids = {id(one) for one in (*model.modules(), *model.parameters(), *model.buffers())}
    assert ids.isdisjoint(id(one) for one in (*twin.modules(), *twin.parameters(), *twin.buffers()))


def test_with_data_it_computes_the_same_and_leaves_no_trace():
    model, x = Tied(), torch.randn(2, 4)
    twin = replicate(model, meta=False)
    torch.testing.assert_close(twin(x), model(x))
    twin(x).sum().backward()
    twin.mean.zero_()
    assert len(model.seen) == 1
    assert len(twin.seen) == 2
    assert all(parameter.grad is None for parameter in model.parameters())
    assert model.mean.tolist() == [1.0] * 4
    assert twin.one.weight.data_ptr() == model.one.weight.data_ptr()  # weights are shared, not copied


def test_layouts_types_and_modes_are_kept():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Dropout()).to(torch.bfloat16, memory_format=torch.channels_last)
    model[1].eval()
    twin = replicate(model, meta=True)
    assert twin[0].weight.dtype == torch.bfloat16
    assert twin[0].weight.stride() == model[0].weight.stride()
    assert [one.training for one in twin.modules()] == [True, True, False]


def test_hooks_and_parametrizations_come_along():
    model = nn.Sequential(weight_norm(nn.Linear(3, 3)), nn.ReLU())
    model[1].register_forward_hook(lambda module, args, out: torch.add(out, 1))
    x = torch.randn(2, 3)
    torch.testing.assert_close(replicate(model, meta=False)(x), model(x))
    assert replicate(model, meta=True)(x.to("meta")).shape == (2, 3)


def test_modules_that_copy_in_a_way_of_their_own_do():
    class Counting(nn.Module):
        copies = 0

        def __deepcopy__(self, memo):
            Counting.copies += 1
            return Counting()

    replicate(nn.Sequential(Counting(), nn.LSTM(3, 4)), meta=True)
    assert Counting.copies == 1


def test_what_torch_compile_made_is_unwrapped():
    model = nn.Linear(2, 2)
    assert type(replicate(torch.compile(model, backend="eager"), meta=True)) is nn.Linear


def test_lazy_and_uncopiable_models_are_told_so():
    with pytest.raises(ConfigError, match=r"0\.weight: a lazy layer has no shape before its first use"):
        replicate(nn.Sequential(nn.LazyLinear(3)), meta=True)
    model = nn.ReLU()
    model.lock = threading.Lock()
    with pytest.raises(TypeError):
        copy.deepcopy(model)
    with pytest.raises(ConfigError, match=r"ReLU: to be counted it must allow copy\.deepcopy, which says: .*lock"):
        replicate(model, meta=True)
