from __future__ import annotations

import warnings
from pathlib import Path

from torch import nn

from clearsight.train.observe import Ended, Evaluated, Position, Started, Stepped
from clearsight.train.tensorboard import TensorBoardLog


def read(folder: Path) -> dict[str, list[tuple[int, float]]]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    events = EventAccumulator(str(folder))
    events.Reload()
    return {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def begin(log: TensorBoardLog, step: int) -> None:
    log.on_start(
        Started(
            position=Position(step=step), total_steps=9, total_epochs=1, minutes=None, steps_per_epoch=9,
            model=nn.Identity(), folder=log.folder,
        )
    )  # fmt: skip


def play(log: TensorBoardLog, first: int, last: int, value: float) -> None:
    for step in range(first, last + 1):
        log.on_step(
            Stepped(
                position=Position(step=step), epoch=1, loss=value, terms={"a": value, "b": 0.0}, grad_norm=1.0, lr=0.5,
                images=4,
            )
        )  # fmt: skip
    log.on_evaluate(
        Evaluated(
            position=Position(step=last), epoch=1, metrics={"map": value}, monitor="map", score=value, is_best=True
        )
    )


def test_scalars_are_read_back(tmp_path):
    log = TensorBoardLog(tmp_path)
    begin(log, 0)
    play(log, 1, 3, 0.5)
    log.on_end(Ended(position=Position(step=3), reason="done"))
    found = read(tmp_path)
    assert found["train/loss"] == [(1, 0.5), (2, 0.5), (3, 0.5)]
    assert found["train/a"] == found["train/loss"]
    assert found["train/lr"][0] == (1, 0.5)
    assert found["val/map"] == [(3, 0.5)]


def test_a_resumed_run_has_no_second_branch(tmp_path):
    log = TensorBoardLog(tmp_path)
    begin(log, 0)
    play(log, 1, 6, 0.5)
    log.on_end(Ended(position=Position(step=6), reason="killed"))
    resumed = TensorBoardLog(tmp_path)
    begin(resumed, 4)
    play(resumed, 5, 6, 0.25)
    resumed.on_end(Ended(position=Position(step=6), reason="done"))
    assert read(tmp_path)["train/loss"] == [(1, 0.5), (2, 0.5), (3, 0.5), (4, 0.5), (5, 0.25), (6, 0.25)]
