"""Copies that become another class, copies that become nothing known, copies that stay."""

from __future__ import annotations

import numpy as np
import pytest

from clearsight.doctor.data.class_collisions import class_collisions


def clouds(n=50):
    """Three classes about points on a line, the last two mirror images of each other about 0."""
    centres = np.array([[0.0, 9.0], [-9.0, 0.0], [9.0, 0.0]])
    return np.repeat(centres, n, axis=0) + np.random.default_rng(0).normal(size=(3 * n, 2)), np.repeat(np.arange(3), n)


def test_a_mirror_turns_two_classes_into_each_other():
    raw, labels = clouds()
    found = class_collisions(raw, raw[None] * (-1, 1), labels)
    assert found.accuracy == 1.0
    assert found.raw == 0.0
    # Two classes of three, of each about the 75 % whose nearest neighbour is as near as that of the class's own.
    assert found.copies == pytest.approx(0.5, abs=0.08)
    assert found.least == pytest.approx(found.copies - 1.96 * 0.5 / 150**0.5, abs=0.01)


def test_copies_that_look_like_nothing_are_no_collision():
    raw, labels = clouds()
    found = class_collisions(raw, raw[None] * (1, -1) - (0, 40), labels)  # all below, where nothing is
    assert found.copies == 0.0
    assert found.excess == 0.0


def test_small_changes_are_no_collision():
    raw, labels = clouds()
    moved = raw + np.random.default_rng(1).normal(size=(2, 150, 2)) * 0.3
    assert class_collisions(raw, moved, labels).copies == 0.0
