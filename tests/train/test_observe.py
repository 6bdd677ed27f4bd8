from __future__ import annotations

import pytest
import torch

from clearsight.errors import ConfigError
from clearsight.train.observe import Checkpointed, Ended, Observer, Observers, Position, StopRequest

EVENT = Checkpointed(position=Position(step=4))


class Counter(Observer):
    def __init__(self, name: str = "", reason: str | None = None) -> None:
        self.name, self.reason, self.seen = name, reason, 0

    def on_checkpoint(self, event: Checkpointed) -> StopRequest | None:
        self.seen += event.position.step
        torch.rand(3)
        return StopRequest(self.reason) if self.reason else None

    def state_dict(self) -> dict:
        return {"seen": self.seen}

    def load_state_dict(self, state: dict) -> None:
        self.seen = state["seen"]


def test_all_see_it_and_the_first_request_counts():
    one, two, three = Counter("one"), Counter("two", "enough"), Counter("three", "too late")
    observers = Observers([one, two, three])
    observers.send(EVENT)
    assert [one.seen, two.seen, three.seen] == [4, 4, 4]
    assert observers.stop == StopRequest("two: enough")


def test_draws_are_undone():
    observers = Observers([Counter()])
    torch.manual_seed(1)
    expected = torch.rand(2)
    torch.manual_seed(1)
    observers.send(EVENT)
    assert torch.equal(torch.rand(2), expected)


def test_states_by_name():
    observers = Observers([Counter("one"), Counter("two")])
    observers.send(EVENT)
    fresh = [Counter("two"), Counter("new")]
    Observers(fresh).load_state_dict(observers.state_dict())
    assert [o.seen for o in fresh] == [4, 0]


def test_two_of_one_name():
    with pytest.raises(ConfigError, match="the name 'Counter' is used twice"):
        Observers([Counter(), Counter()])


class Broken(Observer):
    def on_end(self, event: Ended) -> None:
        raise OSError("no room")


class Last(Observer):
    ended = False

    def on_end(self, event: Ended) -> None:
        self.ended = True


@pytest.mark.parametrize("failed", [False, True])
def test_all_are_told_of_the_end(failed):
    last = Last()
    observers = Observers([Broken(), last])
    event = Ended(position=Position(), reason="done", failed=failed)
    if failed:
        observers.end(event)  # the error that ended the run is the one to be seen
    else:
        with pytest.raises(OSError, match="no room"):
            observers.end(event)
    assert last.ended
