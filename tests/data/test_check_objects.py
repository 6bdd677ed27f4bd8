"""One object against its image."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from clearsight.data.check_objects import check_object, clip_ring
from clearsight.ops.contours import polygon_area
from clearsight.ops.outlines import polygons_to_mask
from clearsight.types import Object, Rle

SIZE = (30, 40)
NAN, INF = math.nan, math.inf


@pytest.mark.parametrize(
    ("box", "fault", "words"),
    [
        ((NAN, 1, 5, 5), "box-not-finite", "not a number"),
        ((1, 1, INF, 5), "box-not-finite", "not a number"),
        ((9, 1, 5, 5), "box-inverted", "ends before it begins"),
        ((1, 9, 5, 5), "box-inverted", "ends before it begins"),
        ((5, 1, 5, 5), "box-empty", "no area"),
        ((5, 5, 5, 5), "box-empty", "no area"),
        ((40, 1, 50, 5), "box-outside", "wholly outside its image of 40 × 30"),
        ((1, -9, 5, 0), "box-outside", "wholly outside"),
    ],
)
def test_boxes_that_are_dropped(box, fault, words):
    kept, (finding,) = check_object(Object(label=0, box=box, where="a.xml:3"), SIZE, where="x")
    assert kept is None
    assert (finding.id, finding.severity, finding.action) == (fault, "error", "object dropped")
    assert finding.where == "a.xml:3"
    assert words in finding.explanation
    json.dumps(finding.as_dict(), allow_nan=False)


@pytest.mark.parametrize(
    ("box", "clipped"),
    [
        ((-3, 2, 10, 10), (0, 2, 10, 10)),
        ((1, 2, 41, 31), (1, 2, 40, 30)),
        ((-5, -5, 99, 99), (0, 0, 40, 30)),
    ],
)
def test_boxes_that_are_clipped(box, clipped):
    item = Object(label=0, box=box)
    kept, (finding,) = check_object(item, SIZE, where="a.jpg")
    assert kept is not None
    assert kept.box == clipped
    assert item.box == box  # not changed
    assert (finding.id, finding.severity, finding.action) == ("box-outside", "warning", "clipped to the image")
    assert finding.where == "a.jpg"
    assert finding.evidence == {"box": list(box), "size": [30, 40]}


@pytest.mark.parametrize("box", [(0, 0, 40, 30), (1, 2, 3, 4), (-0.04, 0, 40.04, 30)])
def test_good_boxes_are_left_alone(box):
    item = Object(label=0, box=box)
    assert check_object(item, SIZE, where="") == (item, [])


def test_without_a_size_nothing_is_outside():
    item = Object(label=0, box=(-5, 0, 999, 4))
    assert check_object(item, None, where="") == (item, [])
    assert check_object(Object(label=0, box=(5, 0, 1, 4)), None, where="")[0] is None


def ring(*points):
    return np.array(points, dtype=np.float64)


SQUARE = ring((2, 2), (8, 2), (8, 8), (2, 8))


@pytest.mark.parametrize(
    ("bad", "fault"),
    [
        (ring((1, 1), (NAN, 2), (3, 3)), "polygon-not-finite"),
        (ring((1, 1), (2, 2)), "polygon-empty"),
        (ring((1, 1), (2, 2), (3, 3)), "polygon-empty"),
        (SQUARE + 100, "polygon-outside"),
    ],
)
def test_rings_that_are_dropped(bad, fault):
    item = Object(label=0, box=(2, 2, 8, 8), polygons=[SQUARE, bad])
    kept, (finding,) = check_object(item, SIZE, where="")
    assert kept is not None
    assert len(kept.polygons) == 1
    assert (finding.id, finding.severity, finding.action) == (fault, "error", "polygon dropped")
    alone, findings = check_object(Object(label=0, box=(2, 2, 8, 8), polygons=[bad]), SIZE, where="")
    assert alone is None
    assert [one.action for one in findings] == ["polygon dropped", "object dropped"]


def test_ring_that_reaches_out_is_clipped_exactly():
    outside = ring((-5.2, 10.1), (20.3, -5.2), (45.4, 10.3), (20.1, 40.3))
    item = Object(label=0, box=(0, 0, 40, 30), polygons=[outside])
    kept, (finding,) = check_object(item, SIZE, where="")
    assert kept is not None
    assert (finding.id, finding.severity) == ("polygon-outside", "warning")
    assert kept.polygons[0].min() >= 0
    assert kept.polygons[0][:, 0].max() <= 40
    np.testing.assert_array_equal(polygons_to_mask(kept.polygons, SIZE), polygons_to_mask([outside], SIZE))


def test_clip_hand_worked():
    half = clip_ring(ring((-10, 5), (10, 5), (10, 15), (-10, 15)), SIZE)
    assert polygon_area(half) == 100
    assert len(clip_ring(SQUARE - 50, SIZE)) == 0
    assert clip_ring(SQUARE, SIZE).tolist() == SQUARE.tolist()


@example([(0, 0), (0, 1), (50, 3)])
@given(st.lists(st.tuples(st.integers(-40, 80), st.integers(-40, 80)), min_size=3, max_size=9))
def test_clipping_never_changes_the_pixels_inside(points):
    shape = ring(*points) + 0.25  # no vertex on a pixel's centre
    clipped = clip_ring(shape, SIZE)
    before, after = polygons_to_mask([shape], SIZE), polygons_to_mask([clipped], SIZE)
    # Where the border cuts an edge, the crossing is rounded to a float: centres on that very edge may fall either way.
    for row, column in zip(*(before != after).nonzero(), strict=True):
        centre, following = np.array((column + 0.5, row + 0.5)), np.roll(shape, -1, axis=0)
        along, to = following - shape, centre - shape
        share = np.clip((along * to).sum(1) / np.maximum((along**2).sum(1), 1e-9), 0, 1)
        assert np.linalg.norm(to - share[:, None] * along, axis=1).min() < 1e-9


def test_mask_of_another_size():
    item = Object(label=0, box=(1, 1, 2, 2), rle=Rle((3, 3), (9,)))
    kept, (finding,) = check_object(item, SIZE, where="a#1")
    assert kept is None
    assert (finding.id, finding.action) == ("size-mismatch", "object dropped")
    assert "3 × 3 pixels, its image 40 × 30" in finding.explanation


def test_mask_without_a_pixel():
    item = Object(label=0, box=(1, 1, 2, 2), rle=Rle(SIZE, (1200,)))
    kept, (finding,) = check_object(item, SIZE, where="a#1")
    assert kept is None
    assert (finding.id, finding.severity, finding.action) == ("mask-empty", "error", "object dropped")
    one_pixel = Object(label=0, box=(1, 1, 2, 2), rle=Rle(SIZE, (31, 1, 1168)))
    assert check_object(one_pixel, SIZE, where="") == (one_pixel, [])


def test_loops_that_cancel_in_the_area_are_not_nothing():
    bow = SQUARE[[0, 1, 3, 2]]
    assert polygon_area(bow) == 0
    item = Object(label=0, box=(2, 2, 8, 8), polygons=[bow])
    assert check_object(item, SIZE, where="") == (item, [])
    there_and_back = ring((1, 1), (5, 1), (5, 5), (5, 1))
    found = check_object(Object(label=0, box=(1, 1, 5, 5), polygons=[there_and_back]), SIZE, where="")[1]
    assert found[0].id == "polygon-empty"
    assert "4 points (3 different ones) has no area" in found[0].explanation
