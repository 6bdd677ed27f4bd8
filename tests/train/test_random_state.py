from __future__ import annotations

import random

import numpy as np
import pytest
import torch

from clearsight.train.random_state import kept_random_state, random_state, seed_streams, set_random_state


def draw() -> tuple[float, ...]:
    legacy = np.random.rand()  # noqa: NPY002
    return torch.rand(1).item(), legacy, random.random(), random.gauss(0, 1), np.random.randn()  # noqa: NPY002


def test_states_go_through_a_file_and_give_the_same_draws(tmp_path):
    seed_streams(5, rank=0)
    draw()
    torch.save(random_state(), tmp_path / "state.pt")
    first = [draw() for _ in range(3)]
    set_random_state(torch.load(tmp_path / "state.pt", weights_only=True))
    assert [draw() for _ in range(3)] == first


def test_what_draws_inside_changes_nothing_outside():
    seed_streams(5, rank=0)
    expected = [draw(), draw()]
    seed_streams(5, rank=0)
    got = [draw()]
    with pytest.raises(ZeroDivisionError):
        _draw_and_fail()
    got.append(draw())
    assert got == expected


@kept_random_state()
def _draw_and_fail() -> None:
    draw()
    raise ZeroDivisionError


def test_processes_have_streams_of_their_own():
    seed_streams(5, rank=0)
    first = draw()
    seed_streams(5, rank=1)
    second = draw()
    assert all(a != b for a, b in zip(first, second, strict=True))
