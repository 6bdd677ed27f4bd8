"""Lengths and progress; that processes agree and signals end a run is shown in test_loop and test_processes."""

from __future__ import annotations

import time

import pytest
import torch

from clearsight.train.devices import make_fabric
from clearsight.train.ending import Ending
from clearsight.train.interrupt import Interruption
from clearsight.train.observe import Observers, Position, StopRequest
from clearsight.train.state import RunState


def ending(digits, batches=8, elapsed=0.0, **length):
    trainer = digits.cpu(**length)
    torch.manual_seed(0)
    state = RunState(make_fabric(trainer), digits.DigitNet(), digits.settings(trainer), Observers(()))
    state.position = Position(elapsed=elapsed)
    return Ending(state, Interruption(), batches)


@pytest.mark.parametrize(
    ("length", "steps"),
    [
        ({"epochs": 3}, 24),
        ({"epochs": 3, "accumulate": 3}, 9),
        ({"steps": 5}, 5),
        ({"minutes": 1.0}, None),
    ],
)
def test_steps_of_the_whole_run(digits, length, steps):
    assert ending(digits, **length).total_steps == steps


def test_progress_is_0_at_the_first_step_and_1_at_the_last(digits):
    end = ending(digits, steps=5)
    seen = []
    for step in range(5):
        end.state.position.step = step
        assert not end.is_over()
        seen.append(end.progress())
    assert seen == pytest.approx([0, 0.25, 0.5, 0.75, 1])
    end.state.position.step = 5
    assert end.is_over()
    assert ending(digits, steps=1).progress() == 0


def test_the_clock_goes_on_where_it_was(digits):
    end = ending(digits, minutes=1.0, elapsed=59.9)
    assert end.progress() == pytest.approx(59.9 / 60)
    assert not end.is_over()
    time.sleep(0.15)
    end.read_clock()
    assert end.is_over()
    assert end.reason() == "all minutes used"


def test_who_asked(digits):
    end = ending(digits, steps=5)
    end.ask()
    assert end.asked is None
    end.state.observers.stop = StopRequest("doctor: enough")
    end.ask()
    assert (end.asked, end.is_over(), end.by_signal) == ("stop", True, False)
    assert end.reason() == "doctor: enough"
    end.interruption.signal = "SIGTERM"
    end.ask()
    assert end.by_signal
    assert end.reason() == "SIGTERM after step 0"
