from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.optim import optimizer as torch_optimizer

from clearsight.doctor.run.optimizer_hooks import OptimizerHooks, bare_optimizer, first_momentum, loss_scale


class Told:
    """Writes down what it is told, with the gradient and the weight at that moment."""

    def __init__(self, model: nn.Linear) -> None:
        self.model, self.said = model, []

    def before_update(self, optimizer) -> None:
        self.said.append(("before", self.model.weight.grad.item(), round(self.model.weight.item(), 4)))

    def after_update(self) -> None:
        self.said.append(("after", self.model.weight.grad.item(), round(self.model.weight.item(), 4)))


@pytest.fixture
def model() -> nn.Linear:
    model = nn.Linear(1, 1, bias=False)
    nn.init.constant_(model.weight, 1.0)
    return model


def backward(model) -> torch.Tensor:
    model.zero_grad()
    loss = 2 * model(torch.ones(1, 1)).sum()
    loss.backward()
    return loss


@pytest.mark.parametrize("given", [True, False], ids=["given", "found"])
def test_gradients_are_there_before_and_weights_new_after(model, given) -> None:
    optimizer, told = torch.optim.SGD(model.parameters(), lr=0.1), Told(model)
    hooks = OptimizerHooks(model, told, [optimizer] if given else [])
    for _ in range(2):
        backward(model)
        optimizer.step()
    assert told.said == [("before", 2, 1), ("after", 2, 0.8), ("before", 2, 0.8), ("after", 2, 0.6)]
    hooks.detach()
    backward(model)
    optimizer.step()
    assert len(told.said) == 4
    assert not torch_optimizer._global_optimizer_pre_hooks


def test_a_stranger_is_not_taken_for_the_optimizer(model) -> None:
    other = nn.Linear(1, 1)
    hooks = OptimizerHooks(model, told := Told(model))
    other(torch.ones(1, 1)).sum().backward()
    torch.optim.SGD(other.parameters(), lr=0.1).step()
    assert (told.said, hooks.optimizers) == ([], [])
    hooks.detach()


@pytest.mark.parametrize("by_name", [True, False])
def test_with_a_closure_gradients_are_read_behind_its_first_evaluation(model, by_name) -> None:
    optimizer, told = torch.optim.LBFGS(model.parameters(), lr=0.1, max_iter=3), Told(model)
    calls = []

    def closure() -> torch.Tensor:
        calls.append(1)
        return backward(model)

    hooks = OptimizerHooks(model, told, [optimizer])
    loss = optimizer.step(closure=closure) if by_name else optimizer.step(closure)
    assert loss.item() == 2
    assert len(calls) > 1
    assert [entry[0] for entry in told.said] == ["before", "after"]
    assert told.said[0] == ("before", 2, 1)
    hooks.detach()


def test_two_optimizers_make_one_update_and_names_are_told_of_what_none_has() -> None:
    model = nn.Sequential(nn.Linear(1, 1), nn.Linear(1, 1), nn.Linear(1, 1))
    model[2].bias.requires_grad_(False)
    pair = [torch.optim.SGD(model[k].parameters(), lr=0.1) for k in range(2)]
    told = Told(model[0])
    hooks = OptimizerHooks(model, told, pair)
    model(torch.ones(1, 1)).sum().backward()
    for optimizer in pair:
        optimizer.step()
    assert [entry[0] for entry in told.said] == ["before", "after"]
    assert hooks.left_out() == ["2.weight"]
    unknown = OptimizerHooks(model, told)
    assert unknown.left_out() == []
    unknown.detach()


def test_wrappers_are_looked_through(model) -> None:
    inner = torch.optim.SGD(model.parameters(), lr=0.1)

    class AcceleratedOptimizer(torch.optim.SGD):
        def __init__(self) -> None:
            super().__init__(model.parameters(), lr=0.1)
            self.optimizer = inner

    assert bare_optimizer(AcceleratedOptimizer()) is inner
    assert bare_optimizer(inner) is inner


def test_a_scale_is_one_only_where_it_is_a_tensor(model) -> None:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    assert loss_scale(optimizer) is None
    optimizer.grad_scale = torch.tensor(4.0)
    assert loss_scale(optimizer).item() == 4


def test_momentum_is_that_of_the_first_group(model) -> None:
    for optimizer, wanted in (
        (torch.optim.SGD(model.parameters(), 0.1, momentum=0.99), 0.99),
        (torch.optim.SGD(model.parameters(), 0.1), 0.0),
        (torch.optim.AdamW(model.parameters(), 0.1, betas=(0.8, 0.9)), 0.8),
        (torch.optim.RMSprop(model.parameters(), 0.1, momentum=0.5), 0.5),
        (torch.optim.Adagrad(model.parameters(), 0.1), None),
    ):
        assert first_momentum(optimizer) == wanted
