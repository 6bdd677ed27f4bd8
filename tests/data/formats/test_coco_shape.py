"""Boxes and masks in COCO's form: values that come back, and errors that say what was expected."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pycocotools import mask as coco_mask

from clearsight.data.formats.coco_shape import (
    box_of_shape,
    box_to_xywh,
    needs_corners,
    parse_box,
    parse_segmentation,
    rings_overlap,
    segmentation_of,
)
from clearsight.errors import DataError
from clearsight.ops.masks import mask_to_rle
from clearsight.types import Object

SIDES = st.floats(0, 5000)


@given(SIDES, SIDES, SIDES, SIDES)
def test_boxes_inside_an_image_come_back_bit_for_bit(a: float, b: float, c: float, d: float):
    box = (min(a, c), min(b, d), max(a, c), max(b, d))
    corners = list(box) if needs_corners(box) else None
    assert parse_box(box_to_xywh(box), corners) == box


def test_a_sum_halfway_between_two_floats_needs_the_corners():
    low, high = 2.0**-53, 1 + 2.0**-52
    box = (low, 0.0, high, 1.0)
    assert needs_corners(box)
    assert parse_box(box_to_xywh(box)) != box
    assert parse_box(box_to_xywh(box), list(box)) == box
    assert parse_box(box_to_xywh(box), [5, 5, 6, 6]) == parse_box(box_to_xywh(box))  # corners of another box
    assert not needs_corners((101.16770186335401, 118.87577639751552, 237.81366459627327, 285.3354037267081))
    assert not needs_corners((float("nan"), 0, 1, 1))


@given(st.lists(st.floats(-1e4, 1e4), min_size=4, max_size=4))
def test_lists_come_back_bit_for_bit_while_the_box_is_the_same(given_box: list[float]):
    box = parse_box(given_box)
    assert box_to_xywh(box, given_box) == given_box
    moved = (box[0] + 1, box[1], box[2] + 1, box[3])
    assert box_to_xywh(moved, given_box)[0] == moved[0]


def test_whole_numbers_are_written_whole():
    assert repr(box_to_xywh((1.0, 2.0, 3.5, 4.0))) == "[1, 2, 2.5, 2]"


def test_masks_go_there_and_back():
    mask = np.zeros((5, 6), dtype=bool)
    mask[1:4, 2:5] = True
    rle = mask_to_rle(mask)
    written = segmentation_of(Object(label=0, box=(0, 0, 1, 1), rle=rle))
    assert isinstance(written, dict)
    assert written["counts"].encode() == coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))["counts"]
    assert parse_segmentation(written) == ([], rle)
    assert parse_segmentation({"size": [5, 6], "counts": list(rle.counts)}) == ([], rle)
    assert box_of_shape([], rle) == (2, 1, 5, 4)


@pytest.mark.parametrize("value", [None, [], [[]]])
def test_no_mask(value: object):
    assert parse_segmentation(value) == ([], None)
    assert box_of_shape([], None) is None


def test_one_ring_without_its_list():
    rings, _ = parse_segmentation([0, 0, 4, 0, 4, 4])
    assert [ring.tolist() for ring in rings] == [[[0, 0], [4, 0], [4, 4]]]
    assert box_of_shape(rings, None) == (0, 0, 4, 4)


def test_a_short_ring_beside_others_is_left_to_the_checks():
    rings, _ = parse_segmentation([[0, 0, 4, 0, 4, 4], [1, 2, 3, 4]])
    assert [len(ring) for ring in rings] == [3, 2]
    for short in ([[1, 2, 3, 4]], [[1, 2], [1, 2, 3, 4]], [[0, 0, 4, 0, 4, 4], [1, 2, 3]]):
        with pytest.raises(DataError, match="numbers, expected an even number of at least 6"):
            parse_segmentation(short)


def test_wrong_values_are_shown_short():
    with pytest.raises(DataError, match=r"bbox is \[0, 1, 2.*…, expected four numbers"):
        parse_box(list(range(100)))
    with pytest.raises(DataError, match=r"ring \['a'\], expected numbers"):
        parse_segmentation([["a"]])


def test_overlap_of_rings_is_that_of_their_boxes():
    square = np.array([[0, 0], [4, 0], [4, 4], [0, 4.0]])
    assert rings_overlap([square, square + 3])
    assert not rings_overlap([square, square + 4])
    assert not rings_overlap([square])
