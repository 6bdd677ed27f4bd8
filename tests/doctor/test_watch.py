from __future__ import annotations

import copy
import math
import time

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import nn

from clearsight.doctor.rule import Rule
from clearsight.doctor.run.record import RunRecord
from clearsight.doctor.run.telemetry import read_telemetry
from clearsight.doctor.watch import Watch
from clearsight.errors import ConfigError
from clearsight.types import Finding

PIXELS, LABELS = load_digits(return_X_y=True)
IMAGES = torch.from_numpy(PIXELS).float().reshape(-1, 1, 8, 8) / 16
CLASSES = torch.from_numpy(LABELS).long()


class Net(nn.Module):
    """Everything that is measured: norms, dropout, functions, a layer in front of nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.drop, self.head = nn.Dropout(0.2), nn.Linear(8 * 16, 10)

    def forward(self, x):
        x = F.max_pool2d(F.relu(self.norm(self.conv(x))), 2)
        return self.head(self.drop(x.flatten(1)))


def run(watch=None, *, steps=200, first=0, model=None, optimizer=None, last=False, half=False, clip=None):
    """Train on digits; returns model and optimiser, so that it can go on."""
    if model is None:
        torch.manual_seed(3)
        model = Net().to(memory_format=torch.channels_last if last else torch.contiguous_format)
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    if watch is not None and first == 0:
        watch.attach(model, optimizer)
    for step in range(first, steps):
        rows = torch.arange(16 * step, 16 * step + 16) % 1400
        images = IMAGES[rows].to(memory_format=torch.channels_last if last else torch.contiguous_format)
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            loss = F.cross_entropy(model(images), CLASSES[rows])
        loss.backward()
        norm = None if clip is None else nn.utils.clip_grad_norm_(model.parameters(), clip)
        optimizer.step()
        if watch is not None:
            watch.step(loss, grad_norm=norm)
    return model, optimizer


def score(model, watch, *, mode="eval") -> None:
    """An evaluation as loops have it, in the mode given; train mode is back when the watch hears of it."""
    model.train(mode == "train")
    with torch.no_grad():
        accuracy = (model(IMAGES[1400:]).argmax(1) == CLASSES[1400:]).float().mean()
    model.train()
    watch.evaluated(accuracy=accuracy)


class Always(Rule[RunRecord]):
    """Finds the same at every examination, and counts them."""

    id = "always"
    source = ""

    def __init__(self, severity="warning") -> None:
        self.severity, self.at = severity, []

    def check(self, evidence):
        self.at.append(evidence.steps)
        yield Finding(id=self.id, severity=self.severity, where="", explanation="It is so.")


# ------------------------------------------------------------------------------------------------ it changes nothing
@pytest.mark.parametrize("form", [{}, {"last": True}, {"half": True}], ids=["plain", "channels-last", "bf16"])
def test_training_with_and_without_gives_the_same_bits(form) -> None:
    with Watch(nn.Linear(1, 1), rules=()):
        pass
    watch = Watch(rules=(), every=10)
    model, optimizer = run(watch, **form)
    state = torch.get_rng_state()
    twin, plain = run(**form)
    assert torch.equal(state, torch.get_rng_state())
    for one, other in zip(model.state_dict().values(), twin.state_dict().values(), strict=True):
        assert torch.equal(one, other)
    moments = [[entry["exp_avg"] for entry in o.state.values()] for o in (optimizer, plain)]
    assert all(torch.equal(one, other) for one, other in zip(*moments, strict=True))
    if form.get("last"):
        assert model.conv.weight.is_contiguous(memory_format=torch.channels_last)
    watch.detach()
    assert watch.record().layers.steps.tolist() == sorted({1, 2, 4, 8, 16, 32, *range(10, 201, 10)})


def test_nothing_stays_in_model_and_optimizer() -> None:
    model = Net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with pytest.raises(ZeroDivisionError), Watch(model, optimizer, rules=()):
        raise ZeroDivisionError
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    assert not optimizer._optimizer_step_pre_hooks
    assert not optimizer._optimizer_step_post_hooks


def test_between_measurements_the_layers_have_no_hooks() -> None:
    watch = Watch(rules=())
    model, _ = run(watch, steps=40)
    assert [name for name, m in model.named_modules() if m._forward_hooks or m._forward_pre_hooks] == [""]
    assert len(model._forward_hooks) == 0


def test_an_averaged_copy_is_not_watched() -> None:
    watch = Watch(rules=())
    model, optimizer = run(watch, steps=3)  # the next step is measured: hooks are in
    score(torch.optim.swa_utils.AveragedModel(model), watch, mode="train")
    run(watch, steps=6, first=3, model=model, optimizer=optimizer)
    record = watch.record()
    assert "eval_in_train_mode" not in record.facts
    assert record.layers.steps.tolist() == [1, 2, 4]


# ------------------------------------------------------------------------------------------------ what it records
def test_every_step_is_recorded_and_nothing_need_be_said() -> None:
    watch = Watch(rules=(), about=RunRecord(name="digits", task="classification"), budget=60)
    model, _ = run(watch, steps=60)
    record = watch.record()
    for curve in (record.loss, record.grad_norm, record.lr):
        assert curve.steps.tolist() == list(range(1, 61))
    assert record.lr.values.tolist() == [0.01] * 60
    assert record.seconds.steps.tolist() == list(range(2, 61))
    own = math.sqrt(sum(float(p.grad.double().square().sum()) for p in model.parameters()))
    assert record.grad_norm.values[-1] == pytest.approx(own, rel=1e-5)
    assert (record.name, record.task, record.budget, record.origin) == ("digits", "classification", 60, "watch")
    assert record.memory.values[-1] > 5e7
    assert record.layers.names == ("conv", "norm", "head")
    assert record.layers.activations == ("", "relu", "")
    total = np.sqrt((record.layers.values["grad_norm"] ** 2).sum(1))
    at = np.searchsorted(record.grad_norm.steps, record.layers.steps)
    np.testing.assert_allclose(total, record.grad_norm.values[at], rtol=1e-5)


def test_layers_are_given_the_gradient_of_before_clipping() -> None:
    clipped, free = Watch(rules=()), Watch(rules=())
    run(clipped, steps=1, clip=1e-3)
    run(free, steps=1)
    one, other = clipped.record().layers, free.record().layers
    np.testing.assert_allclose(one.values["grad_norm"], other.values["grad_norm"], rtol=1e-4)


def test_an_optimizer_need_not_be_given() -> None:
    torch.manual_seed(0)
    watch = Watch(model := Net(), rules=())
    with watch:
        run(watch, steps=3, first=1, model=model, optimizer=torch.optim.SGD(model.parameters(), lr=0.5))
    record = watch.record()
    assert record.lr.values.tolist() == [0.5, 0.5]
    assert record.layers.steps.tolist() == [1, 2]
    assert record.finished


def test_waiting_for_data_is_measured() -> None:
    watch = Watch(Net(), rules=()).__enter__()
    for number in watch.loading(iter([1, 2])):
        watch.waited(0.5)
        watch.step(number)
        time.sleep(0.01)
    record = watch.record()
    assert record.waiting.values == pytest.approx([0.5, 0.5], abs=0.2)
    assert record.seconds.values[0] >= 0.01
    watch.detach()


def test_an_evaluation_is_not_step_time() -> None:
    watch = Watch(rules=())
    model, optimizer = run(watch, steps=3)
    time.sleep(0.6)
    watch.evaluated({"loss": 0.3, "map": 0.5}, accuracy=0.9, class_scores={"cat": 0.2}, train_in_eval={"loss": 0.1})
    run(watch, steps=5, first=3, model=model, optimizer=optimizer)
    record = watch.record()
    assert record.seconds.values.max() < 0.5
    assert {name: curve.values.tolist() for name, curve in record.val.items()} == {
        "loss": [0.3], "accuracy": [0.9], "map": [0.5],
    }  # fmt: skip
    assert record.class_scores["cat"].steps.tolist() == [3]
    assert record.train_in_eval["loss"].values.tolist() == [0.1]


def test_steps_without_an_update_keep_the_count() -> None:
    watch = Watch(Net(), rules=()).__enter__()
    for _ in range(5):  # an optimiser that torch does not know
        watch.step(1.0, terms={"a": 0.4}, lr=0.3)
    assert watch.record().lr.values.tolist() == [0.3] * 5
    assert watch._eye.done == 5
    watch.detach()


# ------------------------------------------------------------------------------------------------ facts
@pytest.mark.parametrize(("mode", "found"), [("eval", None), ("train", ["norm", "drop"])])
def test_the_mode_of_an_evaluation_is_seen_also_when_it_is_over(mode, found) -> None:
    watch = Watch(rules=())
    model, _ = run(watch, steps=3)
    score(model, watch, mode=mode)
    assert watch.record().facts.get("eval_in_train_mode") == found


def test_training_in_eval_mode_is_seen() -> None:
    watch = Watch(rules=())
    model, optimizer = run(watch, steps=3)
    assert "train_in_eval_mode" not in watch.record().facts
    model.eval()
    run(watch, steps=4, first=3, model=model, optimizer=optimizer)
    assert watch.record().facts["train_in_eval_mode"] == ["norm", "drop"]
    assert watch.record().facts["untouched_statistics"] is False  # three steps in training mode came before


def test_norms_that_never_saw_training_mode_are_told_from_frozen_ones() -> None:
    torch.manual_seed(3)
    model = Net().eval()
    watch = Watch(rules=())
    watch.attach(model)
    run(watch, steps=3, first=1, model=model, optimizer=torch.optim.SGD(model.parameters(), lr=0.1))
    assert watch.record().facts["untouched_statistics"] is True


def test_parameters_without_an_optimizer_are_named() -> None:
    model = Net()
    watch = Watch(model, rules=())
    optimizer = torch.optim.SGD(model.head.parameters(), lr=0.1)
    with watch:
        run(watch, steps=3, first=1, model=model, optimizer=optimizer)
    names = ["conv.weight", "conv.bias", "norm.weight", "norm.bias"]
    facts = {"not_in_optimizer": names, "gradient_before_backward": 0.0}
    assert watch.record().facts == {**facts, "gradient_cosines": [1.0, 1.0], "momentum": 0.0}


def test_a_compiled_model_is_said_plainly() -> None:
    model: nn.Module = torch.compile(Net(), backend="eager")  # pyright: ignore
    with Watch(model, rules=()) as watch:
        run(watch, steps=3, first=1, model=model, optimizer=torch.optim.SGD(model.parameters(), lr=0.1))
    record = watch.record()
    assert record.facts["outputs_not_measured"] == "the model is compiled"
    assert record.layers.names == ("conv", "norm", "head")
    assert np.all(record.layers.values["update_ratio"] > 0)


# ------------------------------------------------------------------------------------------------ rules
def test_rules_are_applied_at_evaluations_and_at_most_fifty_times_besides() -> None:
    told, rule = [], Always()
    watch = Watch(rules=[rule], budget=100, on_finding=told.append)
    model, _ = run(watch, steps=7)
    assert rule.at == [2, 4, 6]
    score(model, watch)
    assert rule.at == [2, 4, 6, 7]
    watch.detach(finished=True)
    assert rule.at == [2, 4, 6, 7, 7]
    assert [finding.id for finding in told] == ["always"]
    assert watch.findings == told


@pytest.mark.parametrize(("severity", "stop_on", "stops"), [
    ("error", "error", True), ("warning", "error", False), ("error", None, False),
])  # fmt: skip
def test_it_asks_to_stop_only_where_it_is_told_to(severity, stop_on, stops) -> None:
    watch = Watch(rules=[Always(severity)], on_finding=lambda _: None, stop_on=stop_on, budget=10)
    run(watch, steps=2)
    assert watch.should_stop is stops


def test_wrong_arguments_are_refused() -> None:
    with pytest.raises(ConfigError, match="every must be at least 1, found 0"):
        Watch(every=0)
    with pytest.raises(ConfigError, match="there is no model"), Watch():
        pass


# ------------------------------------------------------------------------------------------------ going on
def test_a_resumed_run_has_one_record_and_one_file(tmp_path) -> None:
    whole = Watch(rules=(), folder=tmp_path / "whole", every=5)
    run(whole, steps=30)
    broken = Watch(rules=[Always()], folder=tmp_path / "broken", every=5, on_finding=lambda _: None)
    model, optimizer = run(broken, steps=17)
    broken.evaluated(accuracy=0.5)
    state = copy.deepcopy((broken.state_dict(), model.state_dict(), optimizer.state_dict(), torch.get_rng_state()))
    run(broken, steps=25, first=17, model=model, optimizer=optimizer)  # lost with the crash
    broken.detach()

    told = []
    resumed = Watch(rules=[Always()], folder=tmp_path / "broken", every=5, on_finding=told.append)
    resumed.load_state_dict(state[0])
    assert [finding.id for finding in resumed.findings] == ["always"]
    model = Net()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    model.load_state_dict(state[1])
    optimizer.load_state_dict(state[2])
    torch.set_rng_state(state[3])
    resumed.attach(model, optimizer)
    run(resumed, steps=30, first=17, model=model, optimizer=optimizer)
    resumed.examine()
    assert told == []
    one, other = whole.record(), resumed.record()
    np.testing.assert_array_equal(one.loss.values, other.loss.values)
    assert other.layers.steps.tolist() == one.layers.steps.tolist() == [1, 2, 4, 5, 8, 10, 15, 16, 20, 25, 30]
    assert other.layers.activations == one.layers.activations
    for measure in ("grad_norm", "update_ratio", "out_std", "bn_gap"):
        np.testing.assert_array_equal(one.layers.values[measure], other.layers.values[measure])
    for watch, folder in ((whole, "whole"), (resumed, "broken")):
        series, facts = read_telemetry(tmp_path / folder)
        assert series.steps.tolist() == watch.record().layers.steps.tolist()
        for measure, values in watch.record().layers.values.items():
            np.testing.assert_allclose(series.values[measure], values, rtol=1e-5)
        assert facts == {"gradient_before_backward": 0.0, "gradient_cosines": [1.0] * 4, "momentum": 0.9}
