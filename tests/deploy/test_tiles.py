from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clearsight.deploy.tiles import plan_tiles
from clearsight.errors import ConfigError, ShapeError
from clearsight.models.segment.unet_sizes import valid_input_size, valid_margin

SIDES = st.integers(1, 700)


def added(spans, length):
    total = np.zeros(length)
    for span in spans:
        total[span.first : span.last] += span.weight
    return total


@settings(max_examples=100, deadline=None)
@given(size=st.tuples(SIDES, SIDES), depth=st.integers(1, 4), more=st.tuples(st.integers(0, 99), st.integers(0, 99)))
def test_exact_writes_every_pixel_once_from_the_grid_on(size, depth, more):
    least = valid_input_size(2**depth, depth)
    tile = (least + more[0], least + more[1])
    tiles = plan_tiles(size, tile, valid_depth=depth)
    margin = valid_margin(depth)
    for spans, length, side in zip((tiles.rows, tiles.columns), size, tile, strict=True):
        written = np.concatenate([np.arange(span.first, span.last) for span in spans])
        np.testing.assert_array_equal(written, np.arange(length))
        np.testing.assert_array_equal(added(spans, length), 1)
        for span in spans:
            assert span.first % 2**depth == 0
            assert span.start == span.first - margin
            assert span.stop - span.start <= side
            assert (span.stop - span.start + 4) % 2**depth == 0  # a side that the net takes
            assert span.stop - margin >= span.last
            assert span.kept == slice(0, span.last - span.first)
    assert len(tiles) == len(tiles.rows) * len(tiles.columns)


@settings(max_examples=100, deadline=None)
@given(size=st.tuples(SIDES, SIDES), tile=st.tuples(st.integers(2, 200), st.integers(2, 200)), share=st.floats(0, 0.99))
def test_blended_weights_add_up_to_one(size, tile, share):
    overlap = int(share * min(tile))
    tiles = plan_tiles(size, tile, overlap)
    for spans, length, side in zip((tiles.rows, tiles.columns), size, tile, strict=True):
        np.testing.assert_allclose(added(spans, length), 1, atol=1e-6)
        assert spans[0].start == 0
        assert spans[-1].stop == length
        for before, after in pairwise(spans):
            assert before.start < after.start
            assert before.stop - after.start >= overlap
        for span in spans:
            assert span.stop - span.start == min(side, length)
            assert span.weight.min() > 0
            assert span.weight.max() <= 1


def test_two_tiles_by_hand():
    tiles = plan_tiles((6, 10), (6, 6), 2)
    assert [(span.start, span.stop) for span in tiles.rows] == [(0, 6)]
    assert [(span.start, span.stop) for span in tiles.columns] == [(0, 6), (4, 10)]
    fall = np.cos(np.pi / 8) ** 2  # the middle of the first of two pixels on half a wave
    np.testing.assert_allclose(tiles.columns[0].weight, [1, 1, 1, 1, fall, 1 - fall], atol=1e-7)
    np.testing.assert_allclose(tiles.columns[1].weight, [1 - fall, fall, 1, 1, 1, 1], atol=1e-7)


def test_as_few_tiles_as_cover_with_the_overlap():
    assert len(plan_tiles((512, 512), (512, 512), 64)) == 1
    assert len(plan_tiles((513, 960), (512, 512), 64)) == 4  # 960 = 512 + 512 - 64
    assert len(plan_tiles((513, 961), (512, 512), 64)) == 6
    # The paper's 572 give 388, of which 384 lie on the grid.
    assert [span.first for span in plan_tiles((384, 769), (572, 572), valid_depth=4).columns] == [0, 384, 768]


@pytest.mark.parametrize("length", [1, 2, 3, 7, 50])
def test_pixels_beyond_the_border_are_mirrored_as_often_as_it_takes(length):
    (span,) = plan_tiles((1, length), (60, 120), valid_depth=2).columns
    image = np.arange(length)
    expected = np.pad(image, (-span.start, span.stop - length), mode="edge" if length == 1 else "reflect")
    np.testing.assert_array_equal(image[span.pixels(length)], expected)


@pytest.mark.parametrize(
    ("size", "tile", "options", "error", "says"),
    [
        ((0, 5), (8, 8), {}, ShapeError, "found 0 × 5 pixels"),
        ((9, 9), (8, 0), {}, ConfigError, "tile: found 8 × 0"),
        ((9, 9), (8, 8), {"overlap": -1}, ConfigError, "overlap: found -1, expected 0 or more"),
        ((9, 9), (16, 8), {"overlap": 8}, ConfigError, "less than the tile's 8 pixels"),
        ((9, 9), (300, 203), {"valid_depth": 4}, ConfigError, "203 pixels leave nothing .* give at least 204"),
    ],
)
def test_what_cannot_be_planned(size, tile, options, error, says):
    with pytest.raises(error, match=says):
        plan_tiles(size, tile, **options)
