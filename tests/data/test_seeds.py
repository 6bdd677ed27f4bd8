from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from clearsight.data.seeds import derive, draws

PART = st.integers(-(2**70), 2**70) | st.text(max_size=8)


def test_values_are_those_of_every_release() -> None:
    # Changing these changes every run that was made before.
    assert derive(0) == 9549033805879814570
    assert derive(7, "order", 3) == 2426263280214487500


def test_kinds_and_borders_of_parts_matter() -> None:
    keys = [(0, 1), (0, "1"), (0, "a", "b"), (0, "ab"), (0, "a", "b", ""), (1, "a", "b"), (0, -1), (0,)]
    assert len({derive(*key) for key in keys}) == len(keys)


@given(st.integers(), st.lists(PART, max_size=3), st.lists(PART, max_size=3))
def test_a_seed_is_64_bits_and_a_function_of_its_parts(seed: int, one: list, other: list) -> None:
    value = derive(seed, *one)
    assert 0 <= value < 2**64
    assert value == derive(seed, *one)
    if one != other:
        assert value != derive(seed, *other)


def test_draws_repeat_and_differ() -> None:
    with draws(0, "sample", 1, 2):
        first = torch.rand(5)
    with draws(0, "sample", 1, 2):
        again = torch.rand(5)
    with draws(0, "sample", 2, 1):
        other = torch.rand(5)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_outer_state_comes_back_also_after_an_error() -> None:
    torch.manual_seed(3)
    torch.rand(7)
    before = torch.get_rng_state()
    random_before, numpy_before = random.getstate(), np.random.get_state()  # noqa: NPY002

    def fail() -> None:
        torch.randn(11)
        raise KeyError

    with pytest.raises(KeyError), draws(0, "x"):
        fail()
    assert torch.equal(torch.get_rng_state(), before)
    assert random.getstate() == random_before
    assert np.array_equal(np.random.get_state()[1], numpy_before[1])  # noqa: NPY002


def test_blocks_nest() -> None:
    with draws(0, "a"):
        torch.rand(1)
        plain = torch.rand(3)
    with draws(0, "a"):
        torch.rand(1)
        with draws(0, "b"):
            torch.rand(9)
        nested = torch.rand(3)
    assert torch.equal(plain, nested)
