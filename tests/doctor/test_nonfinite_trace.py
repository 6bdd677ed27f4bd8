from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from clearsight.doctor.nonfinite_trace import Known, Origin, Trace, address, finite


class Half(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return (x - 1).log()


class Twice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(3, 3), Half()

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.first(x) * 0 + x)


def run(trace: Trace, model: nn.Module, x: Tensor) -> list[Origin]:
    with trace.hooks(), trace:
        out = model(x)
    return trace.origins([out])


def test_the_origin_of_an_operation() -> None:
    x = torch.tensor([[2.0, 2.0, 2.0], [2.0, 0.5, 1.0]])
    (found,) = run(Trace(model := Twice(), {}), model, x)
    assert (found.module, found.layer, found.direction, found.operation) == ("second", "Half", "forward", "log")
    assert found.line == f"{__file__}:{Half.forward.__code__.co_firstlineno + 1}"
    assert (found.counts, found.samples, found.address) == ((1, 0, 1, 6), (1,), 0)
    assert found.cause.numbers["outside"] == 1


def test_views_and_writes_in_place_are_followed() -> None:
    class Views(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            y = torch.zeros(4, 4)
            y[1:3, 1] = (x * 0).log()
            return (y.t().reshape(2, 8).chunk(2, 1)[1] + 1).view(-1)

    (found,) = run(Trace(model := Views(), {}), model, torch.ones(2))
    assert found.operation == "log"


def test_two_origins_in_one_tensor_are_both_kept() -> None:
    class Both(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            y = torch.zeros(2, 2)
            y[0] = (x * 0).log()
            y[1] = (x - 5).sqrt()
            return y

    found = run(Trace(model := Both(), {}), model, torch.ones(2))
    assert [one.operation for one in found] == ["log", "sqrt"]


def test_memory_that_nobody_wrote() -> None:
    class Garbage(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            y = torch.empty(64)
            with torch.no_grad():
                y.view(torch.int32).fill_(-1)  # NaN, as may lie there
            return y.zero_() + x

    x = torch.ones(64)
    with Trace(model := Garbage(), {}) as trace, trace.hooks():
        out = model(x)
    assert finite(out)


def test_without_an_origin_all_is_finite() -> None:
    x = torch.tensor([[2.0, 0.5, 1.0]])
    (found,) = run(Trace(model := Twice(), {}), model, x)
    with Trace(model, {}, without=found) as trace, trace.hooks():
        out = model(x)
    assert finite(out)
    x[0, 0] = math.nan
    known = {address(x): Known("input")}
    (found,) = (one for one in run(Trace(model, known), model, x) if one.address)
    assert found.direction == "input"
    with Trace(model, known, without=found) as trace, trace.hooks():
        out = model(x)
    assert not bool(out[0, 0].isnan() and x[0, 0] == 0)


def test_checkpointed_modules_are_known_when_they_run_again() -> None:
    class Outer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Sequential(nn.Linear(3, 3), Root())

        def forward(self, x: Tensor) -> Tensor:
            out = checkpoint(self.inner, x, use_reentrant=False)
            assert isinstance(out, Tensor)
            return out

    model = Outer()
    with Trace(model, {}) as trace, trace.hooks():
        model(torch.ones(2, 3)).sum().backward()
    (found,) = trace.origins([model.inner[0].weight.grad])
    assert (found.module, found.direction, found.operation) == ("inner.1", "backward", "sqrt")


class Root(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return (x * 0).sqrt()


def test_a_module_that_is_used_twice_and_fails_leaves_the_stack_right() -> None:
    class Fails(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            raise ValueError("no")

    class Catches(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fails = Fails()

        def forward(self, x: Tensor) -> Tensor:
            with pytest.raises(ValueError, match="no"):
                self.fails(x)
            return (x * 0).log()

    (found,) = run(Trace(model := Catches(), {}), model, torch.ones(2))
    assert found.module == ""


def test_sources_outside() -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3)).eval()
    model[1].running_mean[0] = math.nan
    known = {address(one): Known("buffer", name) for name, one in model.named_buffers()}
    (found,) = run(Trace(model, known, batch=4), model, torch.ones(4, 3))
    assert (found.module, found.direction, found.operation) == ("1", "buffer", "1.running_mean")
    assert (found.samples, found.meant) == ((), False)
    model.train()
    with Trace(model, known) as trace, trace.hooks():
        out = model(torch.randn(4, 3))
    assert finite(out)


def test_statistics_that_evaluation_reads() -> None:
    class Evaluates(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            one, nan = torch.ones(3), torch.zeros(3) / 0
            return torch.ops.aten._native_batch_norm_legit_no_training(x, one, one, nan, one, 0.1, 1e-5)[0]

    (found,) = run(Trace(model := Evaluates(), {}), model, torch.ones(4, 3))
    assert (found.operation, found.cause.kind) == ("div", "zero-over-zero")
