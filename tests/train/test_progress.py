from __future__ import annotations

import io

import pytest
from rich.console import Console
from torch import nn

from clearsight.train.observe import Ended, Evaluated, Position, Started, Stepped
from clearsight.train.progress import ProgressReport, duration


def play(console: Console, **length: object) -> None:
    whole = {"total_steps": 10, "total_epochs": 2, "minutes": None} | length
    report = ProgressReport(console)
    report.on_start(Started(position=Position(), steps_per_epoch=5, model=nn.Identity(), folder=None, **whole))  # pyright: ignore
    for step in range(1, 11):
        position = Position(epoch=(step - 1) // 5, step=step, elapsed=2.0 * step)
        epoch = position.epoch + 1
        report.on_step(Stepped(position=position, epoch=epoch, loss=0.5, terms={}, grad_norm=1.0, lr=0.1, images=8))
        if step % 5 == 0:
            report.on_evaluate(
                Evaluated(
                    position=position, epoch=epoch, metrics={"map": 0.4, "map_50": 0.7, "x": 1.0}, monitor="map",
                    score=0.4, is_best=step == 5,
                )
            )  # fmt: skip
    report.on_end(Ended(position=Position(step=10, elapsed=75.0), reason="all steps done"))


def test_without_a_terminal_a_line_an_evaluation():
    out = io.StringIO()
    play(Console(file=out, width=200))
    assert out.getvalue().splitlines() == [
        "epoch 1/2, loss 0.5, map 0.400, map_50 0.700, 4 images/s, 10 s left (best)",
        "epoch 2/2, loss 0.5, map 0.400, map_50 0.700, 4 images/s, 0 s left",
        "training ended after step 10 and 1 min 15 s: all steps done",
    ]


def test_the_clock_tells_what_is_left():
    out = io.StringIO()
    play(Console(file=out, width=200), total_steps=None, total_epochs=None, minutes=1.0)
    assert out.getvalue().splitlines()[0].endswith("50 s left (best)")


def test_on_a_terminal_a_bar():
    out = io.StringIO()
    play(Console(file=out, width=120, force_terminal=True, color_system=None))
    text = out.getvalue()
    assert "100 %" in text
    assert "epoch 2/2" in text
    assert "4 images/s" in text


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.4, "0 s"), (59.4, "59 s"), (59.6, "1 min 00 s"), (185, "3 min 05 s"), (7620, "2 h 07 min")]
)
def test_durations(seconds, text):
    assert duration(seconds) == text
