"""Hashes survive what copies go through, and the search for near ones misses none that comparing all would find."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy.fft import dctn

from clearsight.doctor.data.perceptual_hash import hash_distance, near_pairs, perceptual_hashes
from clearsight.errors import RangeError, ShapeError


def brute_force(hashes: np.ndarray, distance: int) -> list[list[int]]:
    found = []
    for first, value in enumerate(hashes.tolist()):
        found += [
            [first, second]
            for second in range(first + 1, len(hashes))
            if (value ^ int(hashes[second])).bit_count() <= distance
        ]
    return found


def blurry(rng: np.random.Generator, size: tuple[int, int] = (160, 120)) -> Image.Image:
    """A picture of coarse coloured patches."""
    return Image.fromarray(rng.integers(0, 256, (9, 12, 3), dtype=np.uint8)).resize(size, Image.Resampling.BICUBIC)


def thumbnail(image: Image.Image) -> np.ndarray:
    return np.asarray(image.convert("L").resize((32, 32), Image.Resampling.BILINEAR))


def test_bits_are_those_of_the_cosine_transform() -> None:
    rng = np.random.default_rng(1)
    pictures = rng.integers(0, 256, (5, 32, 32), dtype=np.uint8)
    for picture, found in zip(pictures, perceptual_hashes(pictures).tolist(), strict=True):
        low = dctn(picture.astype(np.float64))[1:9, 1:9].ravel()
        wanted = sum(1 << place for place, wave in enumerate(low) if wave > np.median(low))
        assert found == wanted


def test_copies_are_near_and_others_are_far() -> None:
    rng = np.random.default_rng(0)
    pictures = [blurry(rng) for _ in range(60)]
    hashes = perceptual_hashes(np.stack([thumbnail(picture) for picture in pictures]))
    smaller = [picture.resize((100, 75), Image.Resampling.LANCZOS) for picture in pictures]
    brighter = [picture.point(lambda level: min(255, round(0.9 * level + 20))) for picture in pictures]
    for copies in (smaller, brighter):
        again = perceptual_hashes(np.stack([thumbnail(picture) for picture in copies]))
        assert (hash_distance(hashes, again) <= 2).mean() > 0.9
    between = [hash_distance(hashes[first : first + 1], hashes[first + 1 :]) for first in range(59)]
    assert np.concatenate(between).min() > 8


def test_distance_counts_bits() -> None:
    a = np.array([0, 2**64 - 1, 0b1011], dtype=np.uint64)
    b = np.array([0, 0, 0b0110], dtype=np.uint64)
    assert hash_distance(a, b).tolist() == [0, 64, 3]
    assert hash_distance(a.reshape(3, 1)[::-1], b.reshape(3, 1)).tolist() == [[3], [64], [2]]


@pytest.mark.parametrize("distance", [2, 4])
def test_finds_what_comparing_all_finds(distance: int) -> None:
    rng = np.random.default_rng(distance)
    hashes = rng.integers(0, 2**64, 5000, dtype=np.uint64)
    for row in range(400):  # planted at distances 0 to 4, bits anywhere, also across the edges of bands
        flipped = rng.choice(64, row % 5, replace=False)
        hashes[4999 - row] = hashes[row] ^ np.uint64(sum(1 << int(bit) for bit in flipped))
    everywhere = np.concatenate(
        [
            np.stack((np.full(len(near), first), first + 1 + near), axis=1)
            for first in range(4999)
            if len(near := np.flatnonzero(hash_distance(hashes[first], hashes[first + 1 :]) <= distance))
        ]
    )
    found = near_pairs(hashes, distance=distance)
    assert found.tolist() == everywhere.tolist()
    assert len(found) == 80 * (distance + 1)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 2**64 - 1), max_size=12), st.lists(st.integers(0, 63), max_size=12), st.integers(0, 8))
def test_finds_all_of_any_hashes(values: list[int], bits: list[int], distance: int) -> None:
    near = [value ^ (1 << bit) for value, bit in zip(values, bits, strict=False)]
    hashes = np.array([*values, *near, *near[:3]], dtype=np.uint64)
    assert near_pairs(hashes, distance=distance).tolist() == brute_force(hashes, distance)


def test_nothing_and_one() -> None:
    assert near_pairs(np.zeros(0, dtype=np.uint64)).shape == (0, 2)
    assert near_pairs(np.zeros(1, dtype=np.uint64)).shape == (0, 2)
    assert perceptual_hashes(np.zeros((0, 32, 32), dtype=np.uint8)).shape == (0,)


def test_wrong_arguments() -> None:
    with pytest.raises(RangeError, match="0 to 8 bits, got 9"):
        near_pairs(np.zeros(2, dtype=np.uint64), distance=9)
    with pytest.raises(RangeError, match="got -1"):
        near_pairs(np.zeros(2, dtype=np.uint64), distance=-1)
    with pytest.raises(ShapeError, match=r"expected \(n, 32, 32\), got \(2, 16, 32\)"):
        perceptual_hashes(np.zeros((2, 16, 32), dtype=np.uint8))
