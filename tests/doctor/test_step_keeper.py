from __future__ import annotations

import contextlib
import copy
import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clearsight.doctor.nonfinite import NonFinite
from clearsight.doctor.step_keeper import StepKeeper, check_before_update, explain_step
from clearsight.errors import NonFiniteLoss


class Root(nn.Module):
    """Its slope is infinite where all that it is given is 0."""

    def forward(self, x: Tensor) -> Tensor:
        return x.abs().sum(dim=1, keepdim=True).sqrt() * x


class Own(nn.Module):
    """Computes its loss."""

    def __init__(self) -> None:
        super().__init__()
        self.net = net()

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)

    def loss(self, images: Tensor, targets: Tensor) -> dict[str, Tensor]:
        logits = self(images)
        return {"class": F.cross_entropy(logits, targets), "share": (targets == 0).sum() / (targets < 2).sum()}


def net(*more: nn.Module) -> nn.Sequential:
    return nn.Sequential(nn.Flatten(), nn.Linear(16, 8), nn.Dropout(0.2), nn.ReLU(), *more, nn.Linear(8, 3))


def batches(number: int = 4) -> list[tuple[Tensor, Tensor]]:
    return [(torch.randn(6, 1, 4, 4), torch.arange(6) % 3) for _ in range(number)]


def train(model: nn.Module, optimizer: torch.optim.Optimizer, given: list[tuple[Tensor, Tensor]], every: int = 1):
    """A plain loop."""
    for number, (images, labels) in enumerate(given):
        outputs = model(images)
        loss = F.cross_entropy(outputs, labels) if labels.dtype == torch.int64 else F.mse_loss(outputs, labels)
        loss.backward()
        if number % every == every - 1:
            optimizer.step()
            optimizer.zero_grad()


def stopped(model: nn.Module, loop: Callable[[torch.optim.Optimizer], None], *, lr: float = 0.1) -> StepKeeper:
    """A loop that the keeper ends."""
    optimizer = torch.optim.SGD(model.parameters(), lr=lr)
    with StepKeeper(model, optimizer) as keeper, pytest.raises(NonFiniteLoss, match="before the update"):
        loop(optimizer)
    assert keeper.found is not None
    assert keeper.blamed is not None
    return keeper


def spoiled(model: nn.Module, given: list[tuple[Tensor, Tensor]], every: int = 1) -> NonFinite:
    """What is found in a plain loop, having seen that the weights are finite still."""
    found = stopped(model, lambda optimizer: train(model, optimizer, given, every)).found
    assert found is not None
    assert all(bool(one.isfinite().all()) for one in model.parameters())
    return found


def test_training_is_the_same_to_the_bit() -> None:
    first, given = net(), batches(6)
    second = copy.deepcopy(first)
    for model, watched in ((first, True), (second, False)):
        torch.manual_seed(7)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        with StepKeeper(model, optimizer) if watched else contextlib.nullcontext():
            train(model, optimizer, given)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))


def test_the_weights_are_those_of_before_the_update() -> None:
    model, given = net(), batches(3)
    twin = copy.deepcopy(model)
    torch.manual_seed(7)
    train(twin, torch.optim.SGD(twin.parameters(), lr=0.1), given[:2])
    torch.manual_seed(7)
    given[2][0][0] = math.nan
    spoiled(model, given)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), twin.parameters(), strict=True))


def test_a_dirty_image_in_a_plain_loop() -> None:
    given = batches()
    given[2][0][4, 0, 1, 1] = math.nan
    found = spoiled(net(), given)
    assert (found.direction, found.module, found.samples) == ("input", None, (4,))


def test_a_fault_of_the_backward_pass_in_a_plain_loop() -> None:
    given = batches()
    given[2][0].zero_()
    model = nn.Sequential(nn.Flatten(), Root(), nn.Linear(16, 3, bias=False), Root(), nn.Linear(3, 3))
    found = spoiled(model, given)
    assert (found.direction, found.module, found.operation) == ("backward", "3", "sqrt")


def test_dropout_of_then_decides_where_it_began() -> None:
    class Log(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.abs().log()  # of what was dropped

    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 8), nn.Dropout(0.03), Log(), nn.Linear(8, 3))
    rows: list[int] = []
    handle = model[3].register_forward_hook(lambda module, args, out: rows.__setitem__(slice(None), bad_rows(out)))
    given = batches(40)

    def loop(optimizer: torch.optim.Optimizer) -> None:
        for images, labels in given:
            F.cross_entropy(model(images), labels).backward()
            if rows:
                handle.remove()
            optimizer.step()
            optimizer.zero_grad()

    found = stopped(model, loop, lr=0.01).found
    assert 0 < len(rows) < 6
    assert list(found.samples) == rows
    assert (found.module, found.operation) == ("3", "log")


def bad_rows(out: Tensor) -> list[int]:
    return torch.isinf(out).any(dim=1).nonzero().flatten().tolist()


def test_a_dirty_label_in_a_plain_loop() -> None:
    given = [(images, torch.randn(6, 3)) for images, _ in batches()]
    given[2][1][5, 1] = math.inf
    found = spoiled(net(), given)
    assert (found.direction, found.module, found.samples) == ("loss", None, (5,))
    assert "outputs are finite" in str(found)


def test_an_update_that_spoils_the_weights() -> None:
    model = net()

    def loop(optimizer: torch.optim.Optimizer) -> None:
        for images, labels in batches():
            (F.cross_entropy(model(images), labels) * 1e3).backward()
            optimizer.step()
            optimizer.zero_grad()

    found = stopped(model, loop, lr=3e38).found
    assert (found.direction, found.cause.kind) == ("update", "weights")
    assert "earlier update" in str(found)


def test_of_accumulated_batches_the_one_that_did_it() -> None:
    given = batches(6)
    given[2][0][1] = math.inf
    found = spoiled(net(), given, every=2)
    assert (found.direction, found.samples) == ("input", (1,))


def test_a_model_that_computes_its_loss() -> None:
    model, given = Own(), batches(3)
    given[2][0].fill_(math.nan)
    keeper: StepKeeper

    def loop(optimizer: torch.optim.Optimizer) -> None:
        for images, labels in given:
            keeper.keep(images, labels)
            torch.stack(list(model.loss(images, labels).values())).sum().backward()
            optimizer.step()
            optimizer.zero_grad()

    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with StepKeeper(model, optimizer) as keeper, pytest.raises(NonFiniteLoss):
        loop(optimizer)
    assert (keeper.found.direction, keeper.found.samples) == ("input", (0, 1, 2, 3, 4, 5))
    assert keeper.blamed.by_loss


def test_a_term_of_the_models_own_loss() -> None:
    model, images = Own(), torch.randn(6, 1, 4, 4)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with StepKeeper(model, optimizer) as keeper:
        keeper.keep(images, torch.full((6,), 2))
        assert math.isnan(sum(one.item() for one in model.loss(images, torch.full((6,), 2)).values()))
        assert len(keeper.kept) == 1
        found = keeper.explain()
    assert found is not None
    assert (found.direction, found.operation, found.cause.kind) == ("loss", "div", "zero-over-zero")


def test_autocast_is_kept() -> None:
    model, (images, labels) = net(), batches(1)[0]
    with torch.no_grad():
        model[-1].bias.fill_(3e5)

    def loop(optimizer: torch.optim.Optimizer) -> None:
        with torch.autocast("cpu", dtype=torch.float16):
            outputs = model(images)
        F.cross_entropy(outputs.float(), labels).backward()
        optimizer.step()

    keeper = stopped(model, loop)
    assert keeper.found.cause.kind == "half-overflow"
    assert keeper.blamed.autocast == ("cpu", torch.float16)


def test_inputs_that_come_from_a_graph_that_is_gone() -> None:
    source, model = nn.Linear(4, 16), net()
    with torch.no_grad():
        model[-1].weight[0, 0] = math.nan

    def loop(optimizer: torch.optim.Optimizer) -> None:
        F.cross_entropy(model(source(torch.randn(6, 4))), torch.arange(6) % 3).backward()
        optimizer.step()

    found = stopped(model, loop).found
    assert (found.direction, found.operation) == ("parameter", "4.weight")
    assert source.weight.grad is not None


def test_report_is_called_in_place_of_raising() -> None:
    model, seen = net(), []
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with StepKeeper(model, optimizer, report=seen.append) as keeper:
        F.cross_entropy(model(torch.full((6, 1, 4, 4), math.nan)), torch.arange(6) % 3).backward()
        optimizer.step()
        assert seen == [keeper.found]
        assert explain_step(net(), keeper.blamed) is not None
    assert seen[0].direction == "input"


def test_what_does_not_repeat_and_what_cannot_be_repeated() -> None:
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with StepKeeper(model, optimizer):
        loss = F.cross_entropy(model(torch.randn(6, 1, 4, 4)), torch.arange(6) % 3)
        loss.backward()
        model[1].weight.grad[0, 0] = math.nan
        with pytest.raises(NonFiniteLoss, match="does not repeat"):
            optimizer.step()
    with StepKeeper(model, optimizer):
        F.cross_entropy(model(torch.full((6, 1, 4, 4), math.nan)), torch.arange(6) % 3).backward()
        model[1] = nn.Linear(5, 8)
        with pytest.raises(NonFiniteLoss, match="could not be run again"):
            optimizer.step()


def test_only_what_is_trained_is_kept_and_no_hook_stays() -> None:
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with StepKeeper(model, optimizer) as keeper:
        with torch.no_grad():
            model(torch.randn(2, 1, 4, 4))
        assert not keeper.kept
        for _ in range(40):
            model(torch.randn(2, 1, 4, 4))
        assert len(keeper.kept) == 16
    assert not keeper.kept
    assert not model._forward_hooks
    assert not model._forward_pre_hooks
    assert not optimizer._optimizer_step_pre_hooks


@pytest.mark.parametrize(
    ("gradients", "loss", "good"),
    [
        ([1.0, -2.0], None, True),
        ([1e38, -3e38, 2e38], None, True),  # their norm overflows, and they do not
        ([1.0, math.nan], None, False),
        ([-math.inf], None, False),
        ([], None, True),
        ([1.0], 2.0, True),
        ([1.0], math.nan, False),
        ([], -math.inf, False),
    ],
)
def test_check_before_update(gradients: list[float], loss: float | None, good: bool) -> None:
    parameters = [nn.Parameter(torch.zeros(3)) for _ in gradients] + [nn.Parameter(torch.zeros(2))]
    for one, value in zip(parameters, gradients, strict=False):
        one.grad = torch.tensor([0.0, value, 1.0])
    assert check_before_update(parameters, None if loss is None else torch.tensor(loss)) is good


def test_check_before_update_of_sparse_empty_and_half_gradients() -> None:
    table = nn.Parameter(torch.zeros(4, 2))
    table.grad = torch.sparse_coo_tensor([[1, 3]], [[1.0, 2.0], [3.0, 4.0]], (4, 2), check_invariants=True)
    nothing = nn.Parameter(torch.zeros(0))
    nothing.grad = torch.zeros(0)
    half = nn.Parameter(torch.zeros(2, dtype=torch.float64))
    half.grad = torch.tensor([1e300, 1.0], dtype=torch.float64)
    assert check_before_update([table, nothing])
    assert check_before_update([half, table])
    assert check_before_update([table, half])
    table.grad = torch.sparse_coo_tensor([[1, 3]], [[1.0, 2.0], [math.nan, 4.0]], (4, 2), check_invariants=True)
    assert not check_before_update([table, nothing])


def test_a_norm_that_is_known_saves_reading_the_gradients() -> None:
    one = nn.Parameter(torch.zeros(2))
    one.grad = torch.tensor([math.nan, 1.0])
    assert check_before_update([one], norm=torch.tensor(1.0))
    assert not check_before_update([one], norm=torch.tensor(math.nan))
    one.grad = torch.tensor([3e38, 3e38])
    assert check_before_update([one], norm=torch.tensor(math.inf))
