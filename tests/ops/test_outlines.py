"""Polygons of masks and masks of polygons: against a per-pixel loop, against pycocotools, and there and back."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from pycocotools import mask as coco_mask

from clearsight.errors import ConfigError, DataError, ShapeError
from clearsight.ops.outlines import mask_to_polygons, masks_to_polygons, polygons_to_mask, polygons_to_masks

# pycocotools 2.0.11 hands NumPy 2 an array type without the `copy` keyword
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
MASKS = arrays.arrays(bool, st.tuples(st.integers(1, 12), st.integers(1, 12)))
BATCHES = arrays.arrays(bool, st.tuples(st.integers(0, 4), st.integers(0, 8), st.integers(0, 8)))
RINGS = st.lists(
    arrays.arrays(float, st.tuples(st.integers(0, 7), st.just(2)), elements=st.integers(-12, 52).map(lambda v: v / 4)),
    max_size=3,
)
SQUARE = np.array([[1.0, 1.0], [4.0, 1.0], [4.0, 3.0], [1.0, 3.0]])


def blobs(height: int, width: int, seed: int) -> np.ndarray:
    from scipy.ndimage import gaussian_filter

    noise = np.random.default_rng(seed).normal(size=(height, width))
    return gaussian_filter(noise, 2.0) > 0.02


def shoelace(ring: np.ndarray) -> float:
    x, y = ring.T
    return float((x * np.roll(y, -1) - np.roll(x, -1) * y).sum() / 2)


def inside_by_loop(polygons: list[np.ndarray], size: tuple[int, int]) -> np.ndarray:
    """Even-odd, one pixel and one edge at a time, written from the definition."""
    out = np.zeros(size, dtype=bool)
    for row in range(size[0]):
        for column in range(size[1]):
            x, y, odd = column + 0.5, row + 0.5, False
            for ring in polygons:
                for (x0, y0), (x1, y1) in zip(ring, np.roll(ring, -1, axis=0), strict=True):
                    if (y0 <= y) != (y1 <= y) and x0 + (y - y0) * (x1 - x0) / (y1 - y0) <= x:
                        odd = not odd
            out[row, column] = odd
    return out


def test_polygon_by_hand():
    expected = np.zeros((5, 6), dtype=bool)
    expected[1:3, 1:4] = True
    assert (polygons_to_mask([SQUARE], (5, 6)) == expected).all()
    hole = np.array([[2.0, 1.0], [3.0, 1.0], [3.0, 2.0], [2.0, 2.0]])
    expected[1, 2] = False
    assert (polygons_to_mask([SQUARE, hole], (5, 6)) == expected).all()
    expected[1, 2] = True
    assert (polygons_to_mask([SQUARE, hole], (5, 6), fill="union") == expected).all()


def test_nothing_covers_nothing():
    for rings in ([], [np.empty((0, 2))], [SQUARE[:1]], [SQUARE[:2]]):
        assert not polygons_to_mask(rings, (5, 6)).any()
        assert not polygons_to_mask(rings, (5, 6), fill="union").any()


@settings(max_examples=150, deadline=None)
@given(
    st.lists(
        arrays.arrays(
            float, st.tuples(st.integers(3, 7), st.just(2)), elements=st.integers(-12, 52).map(lambda v: v / 4)
        ),
        min_size=1,
        max_size=3,
    )
)
def test_polygons_agree_with_a_loop_over_pixels(rings: list[np.ndarray]):
    assert (polygons_to_mask(rings, (9, 10)) == inside_by_loop(rings, (9, 10))).all()


def test_polygons_that_share_an_edge_tile():
    rng = np.random.default_rng(0)
    for _ in range(20):
        a, b, c, d = rng.uniform(0, 40, (4, 2))
        left, right = (
            polygons_to_mask([np.stack([a, b, c])], (40, 40)),
            polygons_to_mask([np.stack([b, c, d])], (40, 40)),
        )
        around = polygons_to_mask([np.stack([a, b, c]), np.stack([c, b, d])], (40, 40))
        assert ((left ^ right) == around).all()


def test_a_centre_on_an_edge_of_no_exact_slope():
    ring = np.array([[0.0, 0.0], [-2.75, -1.0], [11.75, 6.0]])  # 14.5 / 7 is no binary fraction; (4.5, 2.5) is on it
    assert polygons_to_mask([ring], (9, 10))[2].tolist() == [False] * 4 + [True] + [False] * 5


@pytest.mark.parametrize("ring", [np.zeros((3, 3)), np.zeros(4)])
def test_a_ring_of_another_shape_is_refused(ring: np.ndarray):
    with pytest.raises(ShapeError, match=r"expected \(p, 2\)"):
        polygons_to_mask([ring], (4, 4))


def test_a_vertex_that_is_not_finite_is_refused():
    with pytest.raises(DataError, match="NaN or infinite"):
        polygons_to_mask([np.array([[0, 0], [np.nan, 1], [2, 2]])], (4, 4))


@settings(max_examples=300, deadline=None)
@given(MASKS)
def test_masks_survive_polygons_exactly(mask: np.ndarray):
    rings = mask_to_polygons(mask)
    assert (polygons_to_mask(rings, mask.shape) == mask).all()
    assert sum(shoelace(ring) for ring in rings) == mask.sum()  # holes count negative


@settings(max_examples=200, deadline=None)
@given(MASKS)
def test_rings_are_the_components_and_their_holes(mask: np.ndarray):
    from scipy.ndimage import label

    areas = [shoelace(ring) for ring in mask_to_polygons(mask)]
    outside_too = np.pad(~mask, 1, constant_values=True)
    components, holes = label(mask)[1], label(outside_too, np.ones((3, 3)))[1] - 1
    assert sum(area > 0 for area in areas) == components
    assert sum(area < 0 for area in areas) == holes


def test_rings_turn_at_every_vertex():
    mask = np.zeros((6, 7), dtype=bool)
    mask[1:5, 1:6] = True
    mask[2:4, 2:4] = False
    outer, hole = mask_to_polygons(mask)
    assert outer.tolist() == [[1, 1], [6, 1], [6, 5], [1, 5]]
    assert shoelace(hole) == -4
    assert {tuple(point) for point in hole.tolist()} == {(2, 2), (4, 2), (4, 4), (2, 4)}
    assert mask_to_polygons(np.zeros((3, 3))) == []


def test_outlines_of_a_whole_image_lead_back_to_it():
    mask = blobs(1024, 1024, 3)
    assert (polygons_to_mask(mask_to_polygons(mask), mask.shape) == mask).all()


@settings(max_examples=200, deadline=None)
@given(BATCHES)
def test_many_masks_survive_polygons_exactly(masks: np.ndarray):
    polygons = masks_to_polygons(masks)
    assert len(polygons) == len(masks)
    assert (polygons_to_masks(polygons, masks.shape[1:]) == masks).all()


@settings(max_examples=200, deadline=None)
@given(BATCHES)
def test_many_masks_have_the_rings_of_each(masks: np.ndarray):
    for together, mask in zip(masks_to_polygons(masks), masks, strict=True):
        alone = mask_to_polygons(mask)
        assert [ring.tolist() for ring in together] == [ring.tolist() for ring in alone]


@settings(max_examples=200, deadline=None)
@given(st.lists(RINGS, max_size=4), st.sampled_from(["even_odd", "union"]))
def test_polygons_of_many_objects_cover_what_each_covers(polygons: list[list[np.ndarray]], fill: str):
    together = polygons_to_masks(polygons, (9, 10), fill=fill)
    assert together.shape == (len(polygons), 9, 10)
    for mask, rings in zip(together, polygons, strict=True):
        each = [inside_by_loop([ring], (9, 10)) for ring in rings]
        union = np.logical_or.reduce(each) if each else np.zeros((9, 10), dtype=bool)
        assert (mask == (union if fill == "union" else inside_by_loop(rings, (9, 10)))).all()


def test_pixels_that_touch_at_a_corner_by_hand():
    falling, rising = mask_to_polygons(np.eye(2)), mask_to_polygons(np.eye(2)[::-1])
    assert [ring.tolist() for ring in falling] == [
        [[0, 0], [1, 0], [1, 1], [0, 1]],
        [[1, 1], [2, 1], [2, 2], [1, 2]],
    ]
    assert [ring.tolist() for ring in rising] == [
        [[1, 0], [2, 0], [2, 1], [1, 1]],
        [[0, 1], [1, 1], [1, 2], [0, 2]],
    ]


def test_objects_of_one_pixel_and_at_the_border():
    masks = np.zeros((4, 3, 4), dtype=bool)
    masks[0, 0, 0] = masks[1, 2, 3] = True
    masks[3] = True
    first, last, nothing, whole = masks_to_polygons(masks)
    assert [ring.tolist() for ring in first] == [[[0, 0], [1, 0], [1, 1], [0, 1]]]
    assert [ring.tolist() for ring in last] == [[[3, 2], [4, 2], [4, 3], [3, 3]]]
    assert nothing == []
    assert [ring.tolist() for ring in whole] == [[[0, 0], [4, 0], [4, 3], [0, 3]]]


def test_rings_can_be_changed_one_by_one():
    first, second = masks_to_polygons(np.ones((2, 2, 2)))
    first[0] += 5
    assert second[0].min() == 0


def test_tensors_and_numbers_are_masks_too():
    mask = torch.zeros(2, 5, 6, dtype=torch.uint8)
    mask[1, 1:3, 1:4] = 255
    assert [len(rings) for rings in masks_to_polygons(mask)] == [0, 1]
    assert masks_to_polygons(mask)[1][0].tolist() == SQUARE.tolist()
    assert mask_to_polygons(mask[1].T.float())[0].tolist() == [[1, 1], [3, 1], [3, 4], [1, 4]]


def test_wrong_arguments_are_refused():
    with pytest.raises(ShapeError, match=r"mask: expected \(h, w\), got \(1, 5, 6\); masks_to_polygons"):
        mask_to_polygons(np.zeros((1, 5, 6)))
    with pytest.raises(ShapeError, match=r"masks: expected \(n, h, w\), got \(5, 6\); for one mask"):
        masks_to_polygons(np.zeros((5, 6)))
    with pytest.raises(ConfigError, match="fill: there is none named 'even-odd'; did you mean 'even_odd'"):
        polygons_to_mask([SQUARE], (5, 6), fill="even-odd")
    with pytest.raises(DataError, match="NaN or infinite"):
        polygons_to_masks([[SQUARE], [SQUARE * np.inf]], (5, 6))


@pytest.mark.real
def test_real_polygons_come_close_to_pycocotools(shared_data: Path):
    content = json.loads((shared_data / "fruits/data/trainval.json").read_text())
    for annotation in content["annotations"]:
        theirs = coco_mask.decode(coco_mask.frPyObjects(annotation["segmentation"], 600, 800)).any(axis=2)
        rings = [np.reshape(ring, (-1, 2)) for ring in annotation["segmentation"]]
        ours = polygons_to_mask(rings, (600, 800), fill="union")
        # pycocotools rounds outlines to a fifth of a pixel and takes in edge pixels; ours takes centres only.
        assert (ours & theirs).sum() / (ours | theirs).sum() > 0.97
        assert abs(ours.sum() - annotation["area"]) < abs(theirs.sum() - annotation["area"]) + 20


@pytest.mark.parametrize("fill", ["even_odd", "union"])
@pytest.mark.parametrize("size", [(0, 5), (5, 0), (0, 0)])
def test_masks_without_rows_or_columns(size: tuple[int, int], fill: str):
    ring = np.array([(0.0, 0.0), (4.0, 0.0), (4.0, 4.0)])
    assert polygons_to_masks([[ring], []], size, fill=fill).shape == (2, *size)
