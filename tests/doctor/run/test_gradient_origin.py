"""Gradients of backward against those of the update, in plain loops on digits."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.testing._internal.distributed.fake_pg import FakeStore
from torch.utils.checkpoint import checkpoint

from clearsight.doctor.run.gradient_origin import GradientOrigin
from clearsight.doctor.run.loop_faults import GradientChanged
from clearsight.doctor.watch import Watch


class Net(nn.Module):
    """A small conv net; `saving` computes its first part again in the backward pass."""

    def __init__(self, *, saving=False) -> None:
        super().__init__()
        self.saving = saving
        self.body = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2))
        self.head = nn.Sequential(nn.Flatten(), nn.Linear(128, 32), nn.ReLU(), nn.Linear(32, 10))

    def forward(self, x):
        return self.head(checkpoint(self.body, x, use_reentrant=False) if self.saving else self.body(x))


def gradients(model):
    return [p.grad for p in model.parameters() if p.grad is not None]


def add_noise(model, level) -> None:
    for gradient in gradients(model):
        gradient += level * gradient.std(correction=0) * torch.randn_like(gradient)


def add_decay(model, factor=1e-4) -> None:
    for p in model.parameters():
        p.grad += factor * p.detach()


def scale_layers(model) -> None:
    for number, gradient in enumerate(gradients(model)):
        gradient.mul_(10.0 ** (number - 4))


def cut_small(model) -> None:
    for gradient in gradients(model):
        gradient.mul_(gradient.abs() < gradient.abs().quantile(0.7))  # the small ones only: far from the whole


def train(digits, change=lambda model: None, *, adam=False, scale=1.0, batches=1, own=False, clear=True, saving=False):
    """20 steps, all of them measured; returns the facts and what was found."""
    images, labels = digits[0].reshape(-1, 1, 8, 8), digits[1]
    torch.manual_seed(0)
    model = Net(saving=saving)
    optimizer = torch.optim.Adam(model.parameters(), 2e-3) if adam else torch.optim.SGD(model.parameters(), 0.02)
    with Watch(model, optimizer, every=1, rules=[GradientChanged()], on_finding=lambda _: None) as watch:
        for step in range(20):
            if clear:
                optimizer.zero_grad()
            buffers = [torch.zeros_like(p) for p in model.parameters()]
            for batch in range(batches):
                rows = (torch.arange(16) + 16 * (batches * step + batch)) % len(images)
                (scale * F.cross_entropy(model(images[rows]), labels[rows])).backward()
                if own:
                    for buffer, p in zip(buffers, model.parameters(), strict=True):
                        buffer += p.grad / batches
                        p.grad = None
            if own:
                for buffer, p in zip(buffers, model.parameters(), strict=True):
                    p.grad = buffer
            for gradient in gradients(model):
                gradient.div_(scale)
            change(model)
            optimizer.step()
            watch.step(0.0)
        assert sum(bool(p._post_accumulate_grad_hooks) for p in model.parameters()) == 4
    assert not any(p._post_accumulate_grad_hooks for p in model.parameters())
    return watch.record().facts, watch.findings


SOUND = {
    "nothing": {},
    "Adam": {"adam": True},
    "clip_grad_norm_": {"change": lambda model: nn.utils.clip_grad_norm_(model.parameters(), 0.1)},
    "clip_grad_value_": {"change": lambda model: nn.utils.clip_grad_value_(model.parameters(), 1e-4)},
    "unscaled": {"scale": 65536.0},
    "two batches": {"batches": 2},
    "eight batches in buffers of its own": {"batches": 8, "own": True},
    "not cleared": {"clear": False},
    "checkpoints": {"saving": True},
    "decay by hand": {"change": add_decay},
    "far more decay by hand": {"change": lambda model: add_decay(model, 100.0)},
    "a factor a layer": {"change": scale_layers},
    "masks": {"change": cut_small},
}


@pytest.mark.parametrize("form", SOUND)
def test_what_sound_loops_do_is_no_change(digits, form) -> None:
    facts, findings = train(digits, **SOUND[form])
    assert facts["gradient_cosines"] == [1.0] * 4
    assert findings == []


@pytest.mark.parametrize("form", [{}, {"adam": True}, {"batches": 2}, {"batches": 4, "own": True}, {"scale": 65536.0}])
def test_noise_of_three_deviations_is_found(digits, form) -> None:
    facts, findings = train(digits, lambda model: add_noise(model, 3.0), **form)
    assert max(facts["gradient_cosines"]) < 0.45
    assert [(one.id, one.severity, one.evidence["row"]) for one in findings] == [("gradient-changed", "warning", "P7")]


def test_a_turned_gradient_is_found_and_a_little_noise_is_not(digits) -> None:
    facts, findings = train(digits, lambda model: [gradient.neg_() for gradient in gradients(model)])
    assert max(facts["gradient_cosines"]) < 0.5  # not 0: a part of it lies along the weights
    assert findings
    facts, findings = train(digits, lambda model: add_noise(model, 0.3))
    assert 0.9 < min(facts["gradient_cosines"]) < 1
    assert findings == []


def test_plain_formulas_without_what_the_weights_give() -> None:
    layer = nn.Linear(50, 40, bias=False).double()
    origin = GradientOrigin(layer)
    origin.arm()
    (layer(torch.randn(8, 50, dtype=torch.float64)) ** 2).sum().backward()
    before, noise, weights = layer.weight.grad.clone().flatten(), torch.randn(2000).double() * 3, layer.weight.flatten()
    now = before + noise + 0.7 * weights
    layer.weight.grad = now.reshape(40, 50).detach()
    origin.compare()
    origin.fetch()
    plane = torch.linalg.qr(torch.stack([before, weights.detach()], 1)).Q
    assert origin.cosine == pytest.approx(float((plane.T @ now.detach()).norm() / now.detach().norm()), rel=1e-4)


def test_parameters_are_spread_and_large_odd_and_frozen_ones_left_out() -> None:
    model = nn.Sequential(*(nn.Linear(4, 4) for _ in range(8)), nn.Linear(4, 4, device="meta"), nn.LazyLinear(3))
    model[1].requires_grad_(False)
    model.append(nn.Linear(100, 100))
    chosen = GradientOrigin(model, largest=9999)._choice()
    assert [next(n for n, p in model.named_parameters() if p is one) for one in chosen] == [
        "0.weight", "3.weight", "5.weight", "10.bias",
    ]  # fmt: skip
    assert GradientOrigin(nn.Linear(100, 100, bias=False), largest=9999)._choice() == []
    assert len(GradientOrigin(nn.Linear(3, 3))._choice()) == 2


def test_nothing_is_said_where_nothing_can_be_compared() -> None:
    model = nn.Sequential(nn.Embedding(30, 4, sparse=True), nn.Linear(4, 4))
    for change in ("sparse", "none", "zero", "not finite"):
        origin = GradientOrigin(model[0] if change == "sparse" else model[1])
        model.zero_grad()
        origin.arm()
        model(torch.arange(9)).square().sum().backward()
        for p in model[1].parameters():
            p.grad = None if change == "none" else p.grad * {"zero": 0.0}.get(change, torch.inf)
        origin.compare()
        origin.fetch()
        assert origin.cosine is None, change


def test_copies_have_no_hooks_and_no_graph_is_kept() -> None:
    layer = nn.Linear(4, 4)
    origin = GradientOrigin(layer)
    origin.arm()
    twin = copy.deepcopy(layer)
    twin(torch.ones(1, 4)).sum().backward()
    assert not origin._kept
    with pytest.warns(UserWarning, match="create_graph=True"):
        layer(torch.ones(1, 4)).square().sum().backward(create_graph=True)
    assert layer.weight.grad.requires_grad
    assert not any(kept.requires_grad for pair in origin._kept.values() for kept in pair)
    layer.zero_grad()


def test_with_several_processes_nothing_is_looked_at() -> None:
    layer = nn.Linear(4, 4)
    origin = GradientOrigin(layer)
    for size, hooked in ((2, False), (1, True)):
        torch.distributed.init_process_group("fake", rank=0, world_size=size, store=FakeStore())
        try:
            origin.arm()
        finally:
            torch.distributed.destroy_process_group()
        assert bool(layer.weight._post_accumulate_grad_hooks) is hooked
