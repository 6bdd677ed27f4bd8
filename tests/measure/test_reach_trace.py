"""Following a run: outputs by name, levels, what is left as it was."""

from __future__ import annotations

from collections import namedtuple

import torch
from torch import nn

from clearsight.measure.levels import listen_to_levels
from clearsight.measure.reach_trace import trace

Pair = namedtuple("Pair", "a b")


class Several(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 1, 3)

    def forward(self, x):
        return {"pair": Pair(x, self.conv(x)), "list": [x[:, :, 1:]], "number": 3, "fixed": torch.ones(2)}


def test_outputs_have_the_names_of_their_places():
    model = Several()
    found = trace(model, torch.rand(1, 1, 9, 9))
    assert [one.key for one in found.modules[""]] == ["pair.a", "pair.b", "list.0", "fixed"]
    assert [one.seen is None for one in found.modules[""]] == [False, False, False, True]
    assert found.modules["conv"][0].shape == (1, 1, 7, 7)
    assert not model._forward_hooks


def test_the_first_call_counts_and_what_was_written_later_does_not():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(1, 1, 3, padding=1)

        def forward(self, x):
            return self.conv(self.conv(x)).add_(x.mean())

    found = trace(Twice(), torch.rand(1, 1, 9, 9))
    seen, whole = found.modules["conv"][0].seen, found.modules[""][0].seen
    assert seen is not None
    assert whole is not None
    assert float(seen.sides[1][0, 0, 4, 4]) == 5
    assert float(whole.sides[1][0, 0, 4, 4]) == torch.inf
    assert float(whole.local[1][0, 0, 4, 4]) == 6


def test_levels_are_heard_and_features_is_as_before():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.strides = {"c1": 1}

        def features(self, x):
            return {"c1": x + 1}

        def forward(self, x):
            return self.features(x)["c1"]

    net, heard = Net(), []
    with listen_to_levels(net, lambda name, level: heard.append((name, level.shape))):
        net(torch.rand(1, 1, 2, 2))
    assert heard == [("c1", (1, 1, 2, 2))]
    assert "features" not in vars(net)
    assert list(trace(net, torch.rand(1, 1, 4, 4)).levels) == ["c1"]
    with listen_to_levels(nn.Conv2d(1, 1, 1), lambda name, level: heard.append(name)):
        pass
    assert len(heard) == 1
