"""Batches from shuffled, sorted and partly shuffled orders; moments against every order and against many."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest

from clearsight.data.sampling import EpochBatches
from clearsight.doctor.data.order import LabelOrder, Unshuffled, label_likeness
from clearsight.doctor.rule import examine
from clearsight.errors import ShapeError


def cut(labels, size, batches=10):
    return [labels[start : start + size] for start in range(0, size * batches, size)]


def judged(labels, size, *, batches=10, counts=None):
    return examine([Unshuffled()], LabelOrder(batches=cut(labels, size, batches), counts=counts))


def buffered(labels, width, rng):
    """The order that a shuffle buffer of `width` gives."""
    left, held, given = list(labels), [], []
    while left or held:
        while left and len(held) < width:
            held.append(left.pop(0))
        given.append(held.pop(rng.integers(len(held))))
    return np.array(given)


@pytest.mark.parametrize("sizes", [(3, 3, 2), (4, 2)])
def test_moments_are_those_of_all_orders(sizes):
    labels = np.array([0, 0, 0, 1, 1, 2, 2, 2])
    ends = np.cumsum(sizes)
    batches = [labels[end - size : end] for end, size in zip(ends, sizes, strict=True)]
    counts = np.bincount(labels)
    found = label_likeness(batches, counts)
    alike = []
    for order in set(permutations(labels.tolist())):
        tables = [np.bincount(order[end - size : end], minlength=3) for end, size in zip(ends, sizes, strict=True)]
        alike.append(sum(int((table * (table - 1)).sum()) // 2 for table in tables))
    assert found is not None
    assert found.expected == pytest.approx(np.mean(alike))
    assert found.deviation == pytest.approx(np.std(alike))


@pytest.mark.parametrize(
    ("shares", "size"), [((0.5, 0.5), 8), ((0.1,) * 10, 32), ((0.97, 0.03), 16), ((0.6, 0.3, 0.1), 64)]
)
def test_random_orders_pass(shares, size):
    rng = np.random.default_rng(0)
    population = np.repeat(np.arange(len(shares)), (np.array(shares) * 5000).astype(int))
    counts = np.bincount(population)
    z = []
    for _ in range(1000):
        found = label_likeness(cut(rng.choice(population, size * 10, replace=False), size), counts)
        assert found is not None
        z.append(found.z)
    assert min(z) > -4.2
    assert np.mean(np.array(z) < -2.33) <= 0.02  # 0.01 of a normal variable
    assert np.mean(np.array(z) < -1.28) >= 0.03  # 0.1 of one; few objects of a rare class take few values


def test_sorted_data_are_found():
    labels = np.repeat(np.arange(10), 180)
    done = judged(labels, 32, counts=np.bincount(labels))
    assert [finding.severity for finding in done.findings] == ["warning"]
    found = done.findings[0]
    assert found.id == "unshuffled"
    assert found.evidence["excess"] > 0.5
    assert found.evidence["z"] < -30
    assert "sorted" in found.explanation


def test_one_class_alone_is_found_where_the_counts_are_known():
    labels = np.repeat([0, 1], 1000)
    assert judged(labels, 64).silent == {"unshuffled": "labels of two classes"}
    assert judged(labels, 64, counts=[1000, 1000]).findings[0].evidence["excess"] == 1.0


def test_a_small_shuffle_buffer_is_found_and_a_large_one_is_not():
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(10), 200)
    counts = np.bincount(labels)
    assert judged(buffered(labels, 100, rng), 32, batches=60, counts=counts).findings[0].severity == "warning"
    assert judged(buffered(labels, 2000, rng), 32, batches=60, counts=counts).passed == ("unshuffled",)


def test_the_loaders_order_passes_and_its_unshuffled_one_does_not():
    labels = np.repeat(np.arange(4), 100)
    for shuffle, ids in ((True, []), (False, ["unshuffled"])):
        order = EpochBatches(n=400, batch_size=16, shuffle=shuffle)
        batches = [labels[[index for _, index in keys]] for keys in order]
        done = examine([Unshuffled()], LabelOrder(batches=batches, counts=[100] * 4))
        assert [finding.id for finding in done.findings] == ids


def test_a_sampler_that_spreads_classes_is_no_fault():
    labels = np.tile(np.arange(10), 100)
    found = label_likeness(cut(labels, 20))
    assert found is not None
    assert found.z > 3
    assert judged(labels, 20).passed == ("unshuffled",)


def test_what_cannot_be_judged():
    labels = np.tile([0, 1], 500)
    assert judged(labels, 32, batches=9).silent == {"unshuffled": "10 batches of two labels or more"}
    assert judged(labels, 1, batches=20).silent == {"unshuffled": "10 batches of two labels or more"}
    assert judged(np.zeros(1000, dtype=int), 32).silent == {"unshuffled": "labels of two classes"}
    assert label_likeness([]) is None
    with pytest.raises(ShapeError, match="counts"):
        label_likeness(cut(labels, 32), [10, 10])
