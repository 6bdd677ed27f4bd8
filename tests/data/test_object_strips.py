"""Windows one above the other are the masks that training draws."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from clearsight.data.object_strips import draw_strips
from clearsight.ops.masks import mask_to_rle
from clearsight.ops.outlines import polygons_to_mask
from clearsight.types import Object

SIZE = (40, 50)


def blob(rng: np.random.Generator) -> np.ndarray:
    angle = np.sort(rng.uniform(0, 2 * np.pi, 9))
    radius, centre = rng.uniform(1, 15, (9, 1)), rng.uniform((0, 0), SIZE[::-1])
    return np.clip(centre + radius * np.stack((np.cos(angle), np.sin(angle)), axis=1), 0, SIZE[::-1])


def whole_masks(objects: Sequence[Object], **options) -> dict[int, np.ndarray]:
    found = {}
    for strip in draw_strips(objects, SIZE, **options):
        for number, position in enumerate(strip.objects.tolist()):
            found[position] = np.zeros(SIZE, dtype=bool)
            left, top, right, bottom = strip.windows[number]
            found[position][top:bottom, left:right] = strip.mask(number)
        marked = np.zeros_like(strip.pixels)
        for row, (left, top, right, bottom) in zip(strip.rows, strip.windows, strict=True):
            marked[row : row + bottom - top, 1 : 1 + right - left] = True
        assert not strip.pixels[~marked].any()
        assert not strip.pixels[[0, -1]].any()
        assert not strip.pixels[:, [0, -1]].any()
    return found


@pytest.mark.parametrize("pixels", [16_000_000, 2000, 1])
def test_every_kind_of_object(pixels: int) -> None:
    rng = np.random.default_rng(0)
    objects: list[Object] = []
    wanted: dict[int, np.ndarray] = {}
    for number in range(24):
        kind, rings = number % 4, [blob(rng) for _ in range(1 + number % 3)]
        item = Object(label=0, box=(0, 0, 1, 1))
        if kind < 2:
            item.polygons, item.attributes = rings, {"fill": "union"} if kind else {}
            wanted[number] = polygons_to_mask(rings, SIZE, fill="union" if kind else "even_odd")
        elif kind == 2:
            wanted[number] = polygons_to_mask(rings, SIZE) if number != 6 else np.ones(SIZE, dtype=bool)
            item.rle = mask_to_rle(wanted[number])
        objects.append(item)
    got = whole_masks(objects, pixels=pixels)
    assert got.keys() == wanted.keys()
    for number, mask in wanted.items():
        assert np.array_equal(got[number], mask), number
    strips = len(draw_strips(objects, SIZE, pixels=pixels))
    assert (strips == 1, strips == len(wanted)) == (pixels > 2000, pixels == 1)


def test_runs_over_the_end_of_a_column() -> None:
    mask = np.zeros(SIZE, dtype=bool)
    mask[30:, 4], mask[:3, 5] = True, True  # one run, down one column and on in the next
    assert len(mask_to_rle(mask).counts) == 3
    assert np.array_equal(whole_masks([Object(label=0, box=(0, 0, 1, 1), rle=mask_to_rle(mask))])[0], mask)


def test_nothing_to_draw() -> None:
    empty = Object(label=0, box=(0, 0, 1, 1), rle=mask_to_rle(np.zeros(SIZE, dtype=bool)))
    outside = Object(label=0, box=(0, 0, 1, 1), polygons=[np.array([(60.0, 1), (70, 1), (70, 9)])])
    assert draw_strips([Object(label=0, box=(0, 0, 1, 1))], SIZE) == []
    (strip,) = draw_strips([empty, outside], SIZE)
    assert not strip.pixels.any()
    assert strip.mask(0).size == strip.mask(1).size == 0


def test_rows_know_their_object() -> None:
    square = np.array([(0.0, 0), (2, 0), (2, 2), (0, 2)])
    objects = [Object(label=0, box=(0, 0, 2, 2), polygons=[square + 3 * number]) for number in range(3)]
    (strip,) = draw_strips(objects, None)
    assert strip.rows.tolist() == [1, 4, 7]
    assert strip.owner(np.array([1, 2, 4, 5, 8])).tolist() == [0, 0, 1, 1, 2]
    assert strip.windows[2].tolist() == [6, 6, 8, 8]
