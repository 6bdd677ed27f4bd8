from __future__ import annotations

import csv

import pytest

from clearsight.errors import CheckpointError
from clearsight.train.logs import MetricsLog, Table, TimingLog
from clearsight.train.observe import Checkpointed, Ended, Evaluated, Position, Started, Stepped


def rows(path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def step(number: int, **terms: float) -> Stepped:
    terms = terms or {"class": 0.1, "box": 0.2}
    return Stepped(
        position=Position(step=number, elapsed=float(number)), epoch=1, loss=sum(terms.values()), terms=terms,
        grad_norm=1.5, lr=1e-3, images=8,
    )  # fmt: skip


def evaluation(number: int, **metrics: float) -> Evaluated:
    return Evaluated(
        position=Position(step=number, elapsed=float(number)), epoch=1, metrics=metrics, monitor="map", score=0.0,
        is_best=True,
    )  # fmt: skip


def start(model=None, step: int = 0) -> Started:
    return Started(
        position=Position(step=step), total_steps=9, total_epochs=1, minutes=None, steps_per_epoch=9, model=model,
        folder=None,
    )  # fmt: skip  # pyright: ignore


def test_floats_come_back_exactly_and_nan_is_empty(tmp_path):
    table = Table(tmp_path / "t.csv", ("a", "b"))
    table.add({"a": 0.1 + 0.2, "b": float("nan")})
    table.add({"a": 1e-300})
    table.flush()
    read = rows(tmp_path / "t.csv")
    assert float(read[0]["a"]) == 0.1 + 0.2
    assert read[0]["b"] == read[1]["b"] == ""
    assert float(read[1]["a"]) == 1e-300


def test_a_late_column_is_added_to_the_whole_file(tmp_path):
    table = Table(tmp_path / "t.csv", ("a",))
    table.add({"a": 1})
    table.add({"a": 2, "late": 3})
    table.flush()
    assert rows(tmp_path / "t.csv") == [{"a": "1", "late": ""}, {"a": "2", "late": "3"}]


def test_rewind_takes_back_rows_columns_and_half_a_line(tmp_path):
    path = tmp_path / "t.csv"
    table = Table(path, ("a",))
    table.add({"a": 1})
    table.add({"a": 2})
    table.flush()
    before, state = path.read_bytes(), table.state()
    table.add({"a": 3, "late": 4})
    table.flush()
    with path.open("a") as file:
        file.write("5")  # killed while writing
    again = Table(path, ("a",))
    again.rewind(state)
    assert path.read_bytes() == before
    again.add({"a": 3})
    again.flush()
    assert len(rows(path)) == 3


def test_rewind_without_the_file(tmp_path):
    table = Table(tmp_path / "t.csv", ("a",))
    with pytest.raises(CheckpointError, match="has 0 rows, the checkpoint was written after 4"):
        table.rewind({"rows": 4, "columns": ["a"]})


def test_metrics_log(tmp_path):
    log = MetricsLog(tmp_path / "metrics.csv")
    (tmp_path / "metrics.csv").write_text("left over from before")
    log.on_start(start())
    log.on_step(step(1))
    log.on_evaluate(evaluation(1, map=0.25, map_50=0.5))
    log.on_step(step(2))
    log.on_end(Ended(position=Position(), reason="done"))
    train, val, last = rows(tmp_path / "metrics.csv")
    columns = ["step", "epoch", "split", "loss", "lr", "grad_norm", "loss_class", "loss_box", "map", "map_50"]
    assert list(train) == columns
    assert train["split"] == "train"
    assert (train["loss_box"], train["map"]) == ("0.2", "")
    assert (val["split"], val["map"], val["loss"]) == ("val", "0.25", "")
    assert last["step"] == "2"


def test_a_single_term_is_the_loss_and_needs_no_column(tmp_path):
    log = MetricsLog(tmp_path / "metrics.csv")
    log.on_step(step(1, ce=0.5))
    log.on_checkpoint(Checkpointed(position=Position()))
    assert "loss_ce" not in rows(tmp_path / "metrics.csv")[0]


def test_killed_and_resumed_gives_the_same_bytes(tmp_path):
    def play(log, numbers):
        for number in numbers:
            log.on_step(step(number))
            if number % 3 == 0:
                log.on_evaluate(evaluation(number, **{"map": number / 7, f"extra{number}": 1.0}))

    whole = MetricsLog(tmp_path / "whole.csv")
    whole.on_start(start())
    play(whole, range(1, 10))
    whole.table.flush()
    killed = MetricsLog(tmp_path / "killed.csv")
    killed.on_start(start())
    play(killed, range(1, 5))
    killed.on_checkpoint(Checkpointed(position=Position()))
    state = killed.state_dict()
    play(killed, range(5, 8))
    killed.table.flush()
    resumed = MetricsLog(tmp_path / "killed.csv")
    resumed.load_state_dict(state)
    resumed.on_start(start(step=4))
    play(resumed, range(5, 10))
    resumed.table.flush()
    assert (tmp_path / "whole.csv").read_bytes() == (tmp_path / "killed.csv").read_bytes()


def test_timing_counts_images_and_leaves_scoring_out(tmp_path):
    log = TimingLog(tmp_path / "timing.csv", every=2.0)
    log.on_start(start())
    for number in (1, 2):
        log.on_step(step(number))
    log.on_evaluate(evaluation(10, map=0.1))
    for number in (11, 12):
        log.on_step(step(number))
    log.on_end(Ended(position=Position(), reason="done"))
    assert [(row["seconds"], row["images_per_second"]) for row in rows(tmp_path / "timing.csv")] == [
        ("2.0", "8.0"),
        ("12.0", "8.0"),
    ]


def test_a_full_disk_is_said_clearly(tmp_path):
    table = Table(tmp_path / "no_such_folder" / "t.csv", ("a",))
    table.add({"a": 1})
    with pytest.raises(CheckpointError, match=r"t\.csv: could not be written: No such file"):
        table.flush()
