"""What a classifier loses on copies: nothing on exact ones, all on noise, half where two classes become one."""

from __future__ import annotations

import numpy as np
import pytest

from clearsight.doctor.data.accuracy_drop import Drop, accuracy_drop, known_classes


def clouds(n=40):
    """Four classes of `n` points each about corners of a square, far apart."""
    corners = np.array([[0, 0], [9, 0], [0, 9], [9, 9]])
    return np.repeat(corners, n, axis=0) + np.random.default_rng(0).normal(size=(4 * n, 2)), np.repeat(np.arange(4), n)


def test_exact_copies_lose_nothing():
    raw, labels = clouds()
    found = accuracy_drop(raw, np.stack([raw, raw]), labels)
    assert (found.raw, found.augmented, found.least) == (1.0, 1.0, 0.0)
    assert known_classes(raw, labels).all()
    assert known_classes(raw, np.random.default_rng(0).permutation(labels)).mean() < 0.5


def test_what_keeps_classes_apart_loses_little():
    raw, labels = clouds()
    found = accuracy_drop(raw, np.stack([-raw - 20, raw + 1]), labels)  # learned from such copies too
    assert abs(found.lost) < 0.03
    assert found.known > 0.97


def test_noise_loses_all_and_merged_classes_half():
    raw, labels = clouds()
    noise = accuracy_drop(raw, np.random.default_rng(1).normal(size=(2, 160, 2)) * 9, labels)
    assert noise.lost > 0.7
    merged = raw.copy()
    merged[:, 0] = 30 + np.random.default_rng(1).normal(size=160)  # the first coordinate told two classes apart
    half = accuracy_drop(raw, merged[None], labels)
    assert half.raw - half.augmented == pytest.approx(0.5, abs=0.12)
    assert half.lost - 0.16 < half.least < half.lost


def test_what_is_lost_is_counted_from_guessing():
    found = Drop(raw=0.9, augmented=0.7, chance=0.5, half=0.1)
    assert found.known == pytest.approx(0.8)
    assert found.lost == pytest.approx(0.5)
    assert found.least == pytest.approx(0.25)
