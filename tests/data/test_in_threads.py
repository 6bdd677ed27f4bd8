"""Judgements in threads: their order, and the bar."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from clearsight.data import in_threads as module
from clearsight.data.in_threads import in_threads
from clearsight.types import Record

RECORDS = [Record(image=Path(f"{number}.png")) for number in range(12)]


def slow(record: Record) -> str:
    time.sleep(0.01 if record.image.stem in ("0", "5") else 0)
    return record.image.stem


@pytest.mark.parametrize("workers", [0, 1, 5])
def test_results_are_in_the_order_of_the_records(workers: int) -> None:
    assert list(in_threads(slow, RECORDS, workers=workers, title="x")) == [str(number) for number in range(12)]


def test_a_fault_of_the_judge_is_not_swallowed() -> None:
    with pytest.raises(ZeroDivisionError):
        list(in_threads(lambda record: 1 // (int(record.image.stem) - 7), RECORDS, workers=2, title="x"))


def test_progress_is_shown_when_it_takes_long(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(module, "PATIENCE", -1.0)
    monkeypatch.setenv("FORCE_COLOR", "1")
    list(in_threads(slow, RECORDS, workers=1, title="Checking spots"))
    assert "Checking spots" in capsys.readouterr().err
    monkeypatch.setattr(module, "PATIENCE", 60.0)
    list(in_threads(slow, RECORDS, workers=1, title="Checking spots"))
    assert capsys.readouterr().err == ""
