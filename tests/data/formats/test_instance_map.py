"""Instance numbers to objects and back."""

from __future__ import annotations

import numpy as np
import pytest

from clearsight.data.formats.instance_map import draw_instances, object_mask, split_instances
from clearsight.ops.masks import mask_to_box, mask_to_rle
from clearsight.types import Object


def test_hand_worked():
    numbers = np.array([[0, 5, 5], [2, 0, 5]], np.uint16)
    assert [(number, box, rle.counts) for number, box, rle in split_instances(numbers)] == [
        (2, (0.0, 1.0, 1.0, 2.0), (1, 1, 4)),
        (5, (1.0, 0.0, 3.0, 2.0), (2, 1, 1, 2)),
    ]


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (9, 1), (17, 23)])
@pytest.mark.parametrize("highest", [1, 3, 60000])
def test_agrees_with_one_mask_at_a_time(shape, highest):
    rng = np.random.default_rng(0)
    numbers = np.where(rng.random(shape) < 0.4, 0, rng.integers(0, highest + 1, shape)).astype(np.uint16)
    got = split_instances(numbers)
    assert [number for number, _, _ in got] == sorted(set(numbers.ravel().tolist()) - {0})
    for number, box, rle in got:
        mask = numbers == number
        assert rle == mask_to_rle(mask)
        assert box == mask_to_box(mask)


def test_nothing():
    assert split_instances(np.zeros((4, 5), np.uint16)) == []
    assert split_instances(np.zeros((0, 0), np.uint16)) == []


def test_draw_gives_the_map_back():
    numbers = np.random.default_rng(0).integers(0, 5, (12, 9)).astype(np.uint16)
    found = split_instances(numbers)
    objects = [Object(label=0, box=box, rle=rle) for _, box, rle in found]
    drawn, claimed = draw_instances(objects, (12, 9), [number for number, _, _ in found])
    np.testing.assert_array_equal(drawn, numbers)
    assert claimed == 0


def test_overlap_is_counted_and_later_objects_win():
    square = [np.array([[0.0, 0.0], [2.0, 0.0], [2.0, 2.0], [0.0, 2.0]])]
    objects = [Object(label=0, box=(0, 0, 2, 2), polygons=square) for _ in range(2)]
    drawn, claimed = draw_instances(objects, (3, 3), [1, 2])
    assert claimed == 4
    assert drawn.tolist() == [[2, 2, 0], [2, 2, 0], [0, 0, 0]]


def test_objects_without_a_mask():
    assert object_mask(Object(label=0, box=(0, 0, 1, 1)), (3, 3)) is None
    rings = [
        np.array([[0.0, 0.0], [3.0, 0.0], [3.0, 3.0], [0.0, 3.0]]),
        np.array([[1.0, 1.0], [2.0, 1.0], [2.0, 2.0], [1.0, 2.0]]),
    ]
    hole = object_mask(Object(label=0, box=(0, 0, 3, 3), polygons=rings), (3, 3))
    whole = object_mask(Object(label=0, box=(0, 0, 3, 3), polygons=rings, attributes={"fill": "union"}), (3, 3))
    assert hole is not None
    assert whole is not None
    assert (hole.sum(), whole.sum()) == (8, 9)


def test_a_run_that_goes_on_in_the_next_column():
    ((_, box, rle),) = split_instances(np.array([[0, 4], [0, 0], [4, 0]], np.uint8))
    assert box == (0.0, 0.0, 2.0, 3.0)
    assert rle.counts == (2, 2, 2)
