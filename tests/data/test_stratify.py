from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.model_selection import StratifiedKFold

from clearsight.data.stratify import assign_units, shares_to_counts


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


@given(st.integers(0, 200), st.lists(st.floats(0.01, 1), min_size=1, max_size=5))
def test_counts_add_up_and_are_within_one_of_their_share(total: int, weights: list[float]) -> None:
    shares = np.array(weights) / sum(weights)
    counts = shares_to_counts(total, shares)
    assert counts.sum() == total
    assert (np.abs(counts - shares * total) < 1 + 1e-9).all()


@pytest.mark.parametrize("folds", [2, 3, 5])
def test_single_labels_are_as_even_as_those_of_scikit_learn(folds: int) -> None:
    labels = rng().choice(4, size=203, p=(0.6, 0.25, 0.1, 0.05))
    vectors = np.eye(4)[labels]
    parts = assign_units(np.ones(203, dtype=int), vectors, [1 / folds] * folds, rng(1))

    def unevenness(part_of: np.ndarray) -> int:
        counts = np.array([np.bincount(labels[part_of == part], minlength=4) for part in range(folds)])
        return int((counts.max(axis=0) - counts.min(axis=0)).max())

    theirs = np.empty(203, dtype=int)
    for fold, (_, test) in enumerate(StratifiedKFold(folds, shuffle=True, random_state=0).split(vectors, labels)):
        theirs[test] = fold
    assert unevenness(parts) <= max(1, unevenness(theirs))
    sizes = np.bincount(parts)
    assert sizes.max() - sizes.min() <= 1


def test_rare_classes_reach_every_part() -> None:
    vectors = rng().poisson((5.0, 0.3, 0.05), (400, 3)).astype(float)
    vectors[:4, 2] = 1
    fractions = (0.6, 0.2, 0.2)
    parts = assign_units(np.ones(400, dtype=int), vectors, fractions, rng(1))
    totals = vectors.sum(axis=0)
    for part, share in enumerate(fractions):
        got = vectors[parts == part].sum(axis=0) / totals
        assert got[2] == pytest.approx(share, abs=0.08)
        assert got[1] == pytest.approx(share, abs=0.03)
    assert np.bincount(parts).tolist() == [240, 80, 80]
    # Chance alone is worse: the rarest class is what the order cares for.
    chance = [np.abs(vectors[rng(s).permutation(400)[:80], 2].sum() / totals[2] - 0.2) for s in range(40)]
    assert abs(vectors[parts == 1, 2].sum() / totals[2] - 0.2) <= np.median(chance)


@given(
    sizes=st.lists(st.integers(1, 9), min_size=1, max_size=40),
    classes=st.integers(0, 3),
    fractions=st.sampled_from([(0.6, 0.2, 0.2), (0.98, 0.01, 0.01), (0.5, 0.5, 0.0), (1.0, 0.0, 0.0)]),
    seed=st.integers(0, 5),
)
def test_every_unit_has_a_part_and_every_part_a_unit(
    sizes: list[int], classes: int, fractions: tuple[float, ...], seed: int
) -> None:
    vectors = rng(seed).poisson(0.7, (len(sizes), classes)).astype(float)
    parts = assign_units(np.array(sizes), vectors, fractions, rng(seed))
    wanted = [part for part, share in enumerate(fractions) if share > 0]
    assert set(parts.tolist()) <= set(wanted)
    assert len(set(parts.tolist())) == min(len(wanted), len(sizes))
    assert np.array_equal(parts, assign_units(np.array(sizes), vectors, fractions, rng(seed)))


@pytest.mark.parametrize("classes", [0, 1, 3])
def test_large_groups_are_in_proportion_too(classes: int) -> None:
    sizes = np.repeat([20, 5, 1], [30, 60, 300])
    vectors = (
        np.eye(classes)[rng().integers(0, classes, len(sizes))] * sizes[:, None] if classes else np.zeros((390, 0))
    )
    parts = assign_units(sizes, vectors, [0.8, 0.2], rng(2))
    for size in (20, 5, 1):
        assert np.mean(parts[sizes == size]) == pytest.approx(0.2, abs=0.07), f"groups of {size}"
    assert sizes[parts == 1].sum() / sizes.sum() == pytest.approx(0.2, abs=0.01)
