"""Blocks beside those of other libraries, and gradients beside finite differences."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from clearsight.nn import conv


def settle(block: nn.Module) -> None:
    """Norms that are not one and zero, so that one left out, or out of its place, shows."""
    for layer in block.modules():
        if isinstance(layer, nn.BatchNorm2d):
            for value in (layer.weight, layer.running_var):
                value.data.uniform_(0.5, 1.5)
            for value in (layer.bias, layer.running_mean):
                value.data.normal_(std=0.3)


def step(block: nn.Module, x: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """Output, and the gradients of a sum that treats no two elements alike, by parameter name and `x`."""
    x = x.clone().requires_grad_()
    y = block(x)
    block.zero_grad()
    (y * torch.linspace(-1, 1, y.numel()).to(y).view_as(y)).sum().backward()
    gradients = {"x": x.grad, **{name: value.grad for name, value in block.named_parameters()}}
    return y.detach(), {name: value for name, value in gradients.items() if value is not None}


@pytest.fixture
def same_block(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Whether two blocks with the same names of parameters do the same: values, gradients, running statistics.

    In training, in evaluation, and in evaluation with every norm folded that can be. `names` maps their names to ours.
    """

    def check(ours: nn.Module, theirs: nn.Module, x: Tensor, names: Callable[[str], str] = str) -> None:
        ours, theirs, x = ours.double(), theirs.double(), x.double()
        settle(theirs)
        ours.load_state_dict({names(name): value.clone() for name, value in theirs.state_dict().items()})
        before = x.clone()
        for training, folding in ((True, False), (False, False), (False, True)):
            if folding:
                monkeypatch.setattr(conv, "_PER_CALL", -1)
                monkeypatch.setattr(conv, "_PER_WEIGHT", 0)
            mine, my_gradients = step(ours.train(training), x)
            other, gradients = step(theirs.train(training), x)
            torch.testing.assert_close(mine, other, rtol=1e-9, atol=1e-9)
            gradients = {names(name): value for name, value in gradients.items()}
            torch.testing.assert_close(my_gradients, gradients, rtol=1e-7, atol=1e-9)
            state = {names(name): value for name, value in theirs.state_dict().items()}
            torch.testing.assert_close(dict(ours.state_dict()), state, rtol=1e-9, atol=1e-9)
        assert torch.equal(x, before)

    return check


@pytest.fixture
def right_gradients() -> Callable[..., None]:
    """Whether a block's gradients in training mode are those of finite differences; its activations must be smooth."""

    def check(block: nn.Module, *shape: int) -> None:
        block.double().train()
        settle(block)
        leaves = [torch.randn(shape, dtype=torch.float64, requires_grad=True), *block.parameters()]
        assert torch.autograd.gradcheck(lambda x, *_: block(x), leaves, fast_mode=True)

    return check
