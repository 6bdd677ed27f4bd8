from __future__ import annotations

import pytest
import torch

from clearsight.errors import ConfigError
from clearsight.train.observe import Checkpointed, Observer, Observers, Position, StopRequest

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
