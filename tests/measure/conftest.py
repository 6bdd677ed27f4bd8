"""A number that counts what is done with it: the oracle of what operations cost."""

from __future__ import annotations

import math
from collections import Counter

import pytest


class Number:
    """A float whose arithmetic is counted."""

    done: Counter

    def __init__(self, value: float = 1.0) -> None:
        self.value = value

    def _other(self, other):
        return other.value if isinstance(other, Number) else other

    def __add__(self, other):
        self.done["add"] += 1
        return type(self)(self.value + self._other(other))

    def __sub__(self, other):
        self.done["add"] += 1
        return type(self)(self.value - self._other(other))

    def __mul__(self, other):
        self.done["multiply"] += 1
        return type(self)(self.value * self._other(other))

    def __truediv__(self, other):
        self.done["divide"] += 1
        return type(self)(self.value / self._other(other))

    def exp(self):
        self.done["function"] += 1
        return type(self)(math.exp(self.value))

    def sqrt(self):
        self.done["function"] += 1
        return type(self)(math.sqrt(abs(self.value)))

    def largest(self, other):
        self.done["compare"] += 1
        return type(self)(max(self.value, other.value))


@pytest.fixture
def number():
    """A class of its own for each test, with a fresh counter in `done`."""
    return type("Number", (Number,), {"done": Counter()})
