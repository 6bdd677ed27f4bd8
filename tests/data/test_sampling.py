from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clearsight.data.sampling import EpochBatches
from clearsight.errors import RangeError


def indices(batches: EpochBatches) -> list[list[int]]:
    return [[index for _, index in batch] for batch in batches]


def test_an_epoch_shows_every_sample_once() -> None:
    batches = EpochBatches(n=10, batch_size=3, drop_last=False)
    found = indices(batches)
    assert [len(batch) for batch in found] == [3, 3, 3, 1]
    assert sorted(index for batch in found for index in batch) == list(range(10))
    assert len(batches) == 4


def test_keys_carry_the_epoch() -> None:
    assert {epoch for batch in EpochBatches(n=4, batch_size=2, epoch=7) for epoch, _ in batch} == {7}


def test_order_depends_on_seed_and_epoch_alone() -> None:
    base = EpochBatches(n=50, batch_size=10, seed=1)
    assert indices(base) == indices(replace(base))
    assert indices(base) != indices(replace(base, epoch=1))
    assert indices(base) != indices(replace(base, seed=2))
    assert indices(replace(base, shuffle=False, epoch=9)) == [list(range(b, b + 10)) for b in range(0, 50, 10)]


def test_short_last_batch_is_dropped_only_beside_a_full_one() -> None:
    assert [len(batch) for batch in EpochBatches(n=7, batch_size=3)] == [3, 3]
    assert [len(batch) for batch in EpochBatches(n=2, batch_size=3)] == [2]
    assert [len(batch) for batch in EpochBatches(n=6, batch_size=3)] == [3, 3]


def test_start_gives_the_rest_of_the_same_epoch() -> None:
    whole = EpochBatches(n=23, batch_size=4, seed=3, epoch=2)
    for start in range(whole.total + 1):
        rest = replace(whole, start=start)
        assert list(rest) == list(whole)[start:]
        assert len(rest) == whole.total - start


@given(
    n=st.integers(1, 60),
    batch_size=st.integers(1, 12),
    world=st.integers(1, 5),
    drop_last=st.booleans(),
    shuffle=st.booleans(),
)
def test_processes_together_see_the_global_batches(
    n: int, batch_size: int, world: int, drop_last: bool, shuffle: bool
) -> None:
    if batch_size < world:
        with pytest.raises(RangeError, match="batch_size"):
            EpochBatches(n=n, batch_size=batch_size, world=world)
        return
    one = EpochBatches(n=n, batch_size=batch_size, drop_last=drop_last, shuffle=shuffle)
    ranks = [list(replace(one, rank=rank, world=world)) for rank in range(world)]
    for number, batch in enumerate(one):
        slices = [rank[number] for rank in ranks]
        together = [key for part in slices for key in part]
        assert together[: len(batch)] == batch
        assert set(together) == set(batch)
        assert len(together) == max(len(batch), world)
        assert max(map(len, slices)) - min(map(len, slices)) <= 1
        assert all(slices)
    assert {len(rank) for rank in ranks} == {len(one)}


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"n": 0}, "n is 0"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"rank": 1}, "rank is 1"),
        ({"rank": -1}, "rank is -1"),
        ({"world": 0}, "rank is 0"),
        ({"start": 4}, "start is 4; expected 0 to 3"),
        ({"start": -1}, "start is -1"),
        ({"world": 5, "batch_size": 4}, "5 processes"),
    ],
)
def test_values_out_of_range_are_refused(changes: dict, says: str) -> None:
    with pytest.raises(RangeError, match=says):
        EpochBatches(**{"n": 12, "batch_size": 4, **changes})
