"""Times: medians of what was really waited for, and the model put back as it was."""

from __future__ import annotations

import time

import pytest
import torch
from torch import nn

from clearsight.errors import ConfigError
from clearsight.measure.latency import latency, latency_of_layers


class Sleeps(nn.Module):
    """Takes a while, longer when it is called the first time; says in which mode it was."""

    def __init__(self, seconds):
        super().__init__()
        self.seconds, self.calls, self.modes = seconds, 0, set()

    def forward(self, x):
        self.calls += 1
        self.modes.add((self.training, torch.is_grad_enabled()))
        time.sleep(self.seconds * (10 if self.calls == 1 else 1))
        return x


def test_the_median_is_that_of_the_runs_after_the_warm_up():
    model = Sleeps(0.01).train()
    found = latency(model, torch.ones(2), runs=5, warmup=1)
    assert model.calls == 6
    assert 0.01 <= found.quartiles[0] <= found.median <= found.quartiles[1]
    assert found.median < 0.09  # the first call is thrown away
    assert (found.runs, found.device, found.threads) == (5, "cpu", torch.get_num_threads())
    assert model.modes == {(False, False)}
    assert model.training
    assert torch.is_grad_enabled()


def test_one_run_is_its_own_median():
    found = latency(Sleeps(0.0), torch.ones(2), runs=1)
    assert found.quartiles == (found.median, found.median)


def test_each_layer_has_its_own_time_without_what_is_within():
    class Outer(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = nn.Sequential(Sleeps(0.01), Sleeps(0.02))
            self.unused = Sleeps(0.5)

        def forward(self, x):
            time.sleep(0.005)
            return self.body(x)

    model = Outer()
    model.body[0].eval()
    found = latency_of_layers(model, torch.ones(2), runs=3, warmup=1)
    assert list(found) == ["body.0", "body.1", "body", ""]
    assert 0.01 <= found["body.0"] < found["body.1"]
    assert found["body.1"] >= 0.02
    assert found["body"] < 0.008
    assert 0.005 <= found[""] < 0.015
    assert [one.training for one in (model, model.body[0], model.body[1])] == [True, False, True]
    assert not any(one._forward_hooks or one._forward_pre_hooks for one in model.modules())


def test_hooks_go_when_the_model_fails():
    model = nn.Sequential(nn.Linear(3, 3))
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        latency_of_layers(model, torch.ones(2, 5), runs=1)
    assert not any(one._forward_hooks or one._forward_pre_hooks for one in model.modules())
    assert model.training


def test_the_same_module_twice_is_added_up():
    shared = Sleeps(0.01)
    found = latency_of_layers(nn.Sequential(shared, shared), torch.ones(1), runs=2, warmup=1)
    assert found["0"] >= 0.02


@pytest.mark.parametrize("measure", [latency, latency_of_layers])
def test_without_runs_there_is_nothing_to_measure(measure):
    with pytest.raises(ConfigError, match="runs: at least 1 is needed to measure, got 0"):
        measure(nn.ReLU(), torch.ones(1), runs=0)
