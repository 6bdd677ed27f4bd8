"""Rules of operations, each against the gradient; what depends on the values of an index is not guessed."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from clearsight.measure.reach_rules import reach_rule
from clearsight.measure.reach_trace import trace


class Made(nn.Module):
    def __init__(self, make):
        super().__init__()
        self.make = make

    def forward(self, x):
        return self.make(x)


GRAPHS = {
    "rows as channels": lambda x: x.permute(0, 2, 1, 3).reshape(1, 12, 24).unflatten(2, (3, 8)),
    "roll and flip": lambda x: x.roll((1, 2), (2, 3)).flip(3),
    "pixel shuffle": lambda x: F.pixel_shuffle(x.repeat(1, 4, 1, 1), 2),
    "pixel unshuffle": lambda x: F.pixel_unshuffle(x, 2),
    "channel shuffle": lambda x: F.channel_shuffle(torch.cat([x[..., 1:], x[..., :-1].neg()[:, :1]], 1), 2),
    "stack": lambda x: torch.stack([x[:, :, ::2], x[:, :, 1::2]], dim=3),
    "glu": lambda x: F.glu(x, 2),
    "sum over rows": lambda x: x.sum(2, keepdim=True) + x,
    "layer norm over columns": lambda x: x * F.softmax(x, dim=3),
    "products": lambda x: x @ x.transpose(2, 3),
    "windows": lambda x: x.unfold(2, 4, 4).unfold(3, 4, 4).mean((4, 5)),
    "written in place": lambda x: _written(x),
    "in place views": lambda x: (x + 0).squeeze_(0).unsqueeze_(0).transpose_(2, 3),
}


def _written(x):
    y = torch.zeros_like(x)
    y[:, :, 1:5].copy_(x[:, :, :4])
    view = y[:, :, 2:]
    y[:, :, 4:7].add_(x[:, :, :3])
    view.add_(x[:, :, :6])
    return view * 1 + y[:, :, :6]


@pytest.mark.parametrize("name", GRAPHS)
def test_each_element_against_the_gradient(name):
    net = Made(GRAPHS[name])
    image = torch.rand(1, 3, 8, 12, dtype=torch.float64, requires_grad=True)
    out = image.transpose(2, 3) if name == "in place views" else net(image)
    seen = trace(net, image.detach()).modules[""][0].seen
    assert seen is not None
    assert seen.sides[0].shape == out.shape
    for index in torch.randperm(out.numel(), generator=torch.Generator().manual_seed(0))[:60].tolist():
        (gradient,) = torch.autograd.grad(out.flatten()[index], image, retain_graph=True)
        used = gradient[0].any(0)
        rows, columns = used.any(1).nonzero().flatten(), used.any(0).nonzero().flatten()
        found = [float(side.flatten()[index]) for side in seen.sides]
        if not len(rows):
            assert min(found) == -torch.inf
            continue
        want = (-float(rows[0]), float(rows[-1]), -float(columns[0]), float(columns[-1]))
        assert tuple(max(-0.0, a) if b == 0 else a for a, b in zip(found, want, strict=True)) == want or all(
            one == torch.inf for one in found
        )


@pytest.mark.parametrize(
    "make", [lambda x: x[:, :, x.long()[0, 0, 0] * 0], lambda x: x.roll(3), lambda x: x.take(torch.tensor([3]))]
)
def test_what_is_not_known_is_named(make):
    found = trace(Made(make), torch.rand(1, 2, 6, 6))
    assert sum(found.unknown.values()) == 1
    seen = found.modules[""][0].seen
    assert seen is not None
    assert not seen.sure


def test_rules_are_found_by_the_name_of_either_form():
    assert reach_rule(torch.ops.aten.relu_.default) == reach_rule(torch.ops.aten.relu.default)
    assert reach_rule(torch.ops.aten.nonzero.default) is None
    rule = reach_rule(torch.ops.aten.mean.dim)
    assert rule is not None
    assert rule.scope == "gate"
