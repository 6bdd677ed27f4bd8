from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import nn

from clearsight.doctor.run.model_watch import ModelWatch
from clearsight.doctor.run.telemetry import LayerNote


def build(optimizers=True):
    model = nn.Sequential(nn.Linear(2, 2, bias=False), nn.ReLU(), nn.Dropout(0.5))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    facts = {}
    eye = ModelWatch(model, [optimizer] if optimizers else [], every=100, facts=facts)
    eye.begin(0, [])
    return model, optimizer, eye, facts


def update(model, optimizer) -> None:
    optimizer.zero_grad()
    model(torch.ones(4, 2)).sum().backward()
    optimizer.step()


def test_updates_are_counted_and_some_are_measured() -> None:
    model, optimizer, eye, _ = build()
    at = []
    for _ in range(10):
        update(model, optimizer)
        if eye.measured_at < math.inf:
            at.append(eye.measurement()[0])
        assert eye.measured_at == math.inf
    assert (at, eye.done, eye.lr) == ([1, 2, 4, 8], 10, 0.1)
    assert eye.measurement() is None


def test_a_norm_of_before_clipping_enlarges_and_a_smaller_one_changes_nothing() -> None:
    for factor, wanted in ((10.0, 10.0), (0.5, 1.0), (math.nan, 1.0)):
        torch.manual_seed(0)
        model, optimizer, eye, _ = build()
        nn.init.ones_(model[0].weight)
        update(model, optimizer)
        own = float(eye.norm)
        assert eye.measurement(norm=factor * own)[2]["grad_norm"].tolist() == pytest.approx([wanted * own])


def test_of_a_momentum_that_is_cycled_the_lowest_is_a_fact() -> None:
    model, optimizer, _eye, facts = build()
    seen = []
    for momentum in (0.9, 0.5, 0.7, 0.8):
        optimizer.param_groups[0]["momentum"] = momentum
        update(model, optimizer)
        seen.append(facts["momentum"])
    assert seen == [0.9, 0.5, 0.5, 0.5]


def test_the_last_cosines_go_on_behind_a_resume() -> None:
    model, optimizer, eye, facts = build()
    nn.init.ones_(model[0].weight)
    model[2].p = 0.0
    facts["gradient_cosines"] = [0.1, 0.2, 0.3, 0.4]
    for _ in range(2):
        update(model, optimizer)
        eye.measurement()
    assert facts["gradient_cosines"] == [0.3, 0.4, 1.0, 1.0]


def test_it_goes_on_with_what_was_known() -> None:
    model, optimizer, eye, _ = build()
    eye.begin(16, [LayerNote("0", "Linear", "relu", False, 0)])
    for _ in range(16):
        update(model, optimizer)
    step, notes, _ = eye.measurement() or (0, [], {})
    assert (step, notes[0].activation) == (32, "relu")


@pytest.mark.parametrize(
    ("passes", "alone", "found"),
    [
        (["eval"], True, False),
        (["train"], True, True),
        (["train", "eval"], True, False),
        (["grad"], True, True),
        (["grad"], False, False),
        (["grad", "eval"], True, False),
        ([], True, False),
    ],
)
def test_only_what_was_scored_in_train_mode_throughout_is_a_fact(passes, alone, found) -> None:
    model, optimizer, eye, facts = build()
    update(model, optimizer)
    for kind in passes:
        model.train(kind != "eval")
        with torch.set_grad_enabled(kind == "grad"):
            model(torch.ones(1, 2))
    eye.judge_mode(alone=alone)
    assert facts.get("eval_in_train_mode") == (["2"] if found else None)


def test_copies_do_not_count_and_nothing_counts_after_the_end() -> None:
    model, optimizer, eye, _ = build(optimizers=False)
    update(model, optimizer)
    twin = copy.deepcopy(model)
    update(twin, torch.optim.SGD(twin.parameters(), lr=0.1))
    assert eye.done == 1
    eye.detach()
    update(model, optimizer)
    assert eye.done == 1
