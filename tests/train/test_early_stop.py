from __future__ import annotations

from clearsight.train.early_stop import EarlyStop
from clearsight.train.observe import Evaluated, Position


def see(observer: EarlyStop, *scores: float) -> list[str | None]:
    answers = []
    for epoch, score in enumerate(scores, start=1):
        event = Evaluated(
            position=Position(epoch=epoch), epoch=epoch, metrics={}, monitor="map", score=score, is_best=False
        )
        answer = observer.on_evaluate(event)
        answers.append(None if answer is None else answer.reason)
    return answers


def test_stops_after_patience_evaluations_without_improvement():
    answers = see(EarlyStop(patience=2), 0.1, 0.2, 0.2, 0.3, 0.25, 0.3)
    assert answers[:-1] == [None] * 5
    assert answers[-1] is not None
    assert "map has not improved" in answers[-1]
    assert "0.3" in answers[-1]


def test_small_steps_do_not_count():
    assert see(EarlyStop(patience=2, min_delta=0.1), 0.5, 0.55, 0.59)[-1] is not None
    assert see(EarlyStop(patience=2, min_delta=0.1), 0.5, 0.55, 0.61)[-1] is None


def test_nan():
    assert see(EarlyStop(patience=2), float("nan"), 0.1, float("nan"))[-1] is None
    assert see(EarlyStop(patience=2), 0.1, float("nan"), float("nan"))[-1] is not None


def test_the_state_goes_on():
    one = EarlyStop(patience=2)
    see(one, 0.5, 0.4)
    other = EarlyStop(patience=2)
    other.load_state_dict(one.state_dict())
    assert see(other, 0.4)[-1] is not None
