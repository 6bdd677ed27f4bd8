from __future__ import annotations

import json

import pytest
import torch

from clearsight.errors import NonFiniteLoss
from clearsight.train.losses import LossReader, StepInfo
from clearsight.train.observe import Observer, Observers, Position
from clearsight.train.step import Measured


class Seen(Observer):
    def __init__(self) -> None:
        self.events = []

    def on_step(self, event) -> None:
        self.events.append(event)


def push(reader, digits, values, step=1):
    meta = digits.batch_of([4, 7, 9, 11]).meta
    info = StepInfo(position=Position(step=step), epoch=2, lr=0.5, images=4, meta=meta)
    reader.push(info, Measured(("class", "box"), torch.tensor(values)))


def test_reports_the_sum_and_the_terms(tmp_path, digits):
    seen = Seen()
    push(LossReader(Observers([seen]), tmp_path / "e.json", scaled=False), digits, [0.5, 0.25, 3.0])
    event = seen.events[0]
    assert (event.loss, event.terms, event.grad_norm) == (0.75, {"class": 0.5, "box": 0.25}, 3.0)
    assert (event.epoch, event.lr, event.images) == (2, 0.5, 4)


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ([float("nan"), 0.25, 3.0], r"loss is nan \(class=nan, box=0\.25\)"),
        ([0.5, float("inf"), 3.0], r"loss is inf"),
        ([0.5, 0.25, float("inf")], r"its gradient's norm is inf"),
    ],
)
def test_stops_with_evidence(tmp_path, digits, values, text):
    seen, evidence = Seen(), tmp_path / "nonfinite.json"
    reader = LossReader(Observers([seen]), evidence, scaled=False)
    with pytest.raises(
        NonFiniteLoss, match=rf"step 7 \(epoch 2\): .*{text}.*lr=0\.5.*digit4\.png, digit7\.png"
    ) as caught:
        push(reader, digits, values, step=7)
    assert "digit11" not in str(caught.value)  # the message names the first ones, the file has all
    facts = json.loads(evidence.read_text())
    assert facts["indices"] == [4, 7, 9, 11]
    assert facts["files"][3] == "digit11.png"
    assert facts["step"] == 7
    assert not seen.events


def test_a_scaler_deals_with_an_overflowing_gradient_itself(tmp_path, digits):
    seen = Seen()
    reader = LossReader(Observers([seen]), tmp_path / "e.json", scaled=True)
    push(reader, digits, [0.5, 0.25, float("inf")])
    assert len(seen.events) == 1
    with pytest.raises(NonFiniteLoss):
        push(reader, digits, [float("nan"), 0.25, 1.0])


@pytest.mark.gpu
def test_on_a_gpu_a_step_is_read_one_step_later(tmp_path, digits):
    seen = Seen()
    reader = LossReader(Observers([seen]), tmp_path / "e.json", scaled=False)
    meta = digits.batch_of([1]).meta
    for step in (1, 2):
        info = StepInfo(position=Position(step=step), epoch=1, lr=0.5, images=1, meta=meta)
        reader.push(info, Measured(("a",), torch.tensor([float(step), 1.0], device="cuda")))
        assert [event.loss for event in seen.events] == list(range(1, step))
    reader.flush()
    assert [event.loss for event in seen.events] == [1.0, 2.0]
