"""Patches that the doctor's benchmark cuts out of photos: copies are one group, and labels say where things are."""

from __future__ import annotations

import numpy as np
from PIL import Image

from doctor_patches import _placed, photos_of


def test_copies_of_a_photo_share_a_group(tmp_path):
    draws = np.random.default_rng(0)
    first, second = draws.integers(0, 200, (2, 64, 64), dtype=np.uint8)
    photos = [first, second, first + 20, 255 - first]  # the third is brighter
    files = [tmp_path / f"{number}.png" for number in range(4)]
    for file, photo in zip(files, photos, strict=True):
        Image.fromarray(photo).save(file)
    assert photos_of(files) == [0, 1, 0, 3]


def spot(column: int, row: int) -> Image.Image:
    pixels = np.zeros((120, 120), dtype=np.uint8)
    pixels[row - 2 : row + 3, column - 2 : column + 3] = 255
    return Image.fromarray(pixels)


def test_nucleus_is_in_the_place_that_is_said():
    seen = set()
    for seed in range(60):
        placed = _placed(spot(60, 55), (60.0, 55.0), [(60.0, 55.0)], np.random.default_rng(seed))
        assert placed is not None
        patch, place = placed
        _, row, column = np.unravel_index(patch.argmax(), patch.shape)
        assert 3 * (3 * row // 16) + 3 * column // 16 == place
        seen.add(place)
    assert seen == set(range(9))


def test_other_nuclei_and_the_rim_of_the_photo_leave_fewer_places():
    draws = np.random.default_rng(0)
    both = [(60.0, 55.0), (63.0, 55.0)]  # no patch has only one of them
    assert _placed(spot(60, 55), both[0], both, draws) is None
    corner = [_placed(spot(11, 11), (11.0, 11.0), [(11.0, 11.0)], draws) for _ in range(20)]
    assert {placed[1] for placed in corner if placed is not None} == {0}
